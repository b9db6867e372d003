"""The filter index against a plain set of tuples."""

import numpy as np
import pytest
import torch

from pipeline.errors import UserError
from pipeline.graph.filter_index import FilterIndex

ENTITIES, RELATIONS = 60, 5


@pytest.fixture(scope="module")
def facts() -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    sides = torch.randint(ENTITIES - 10, (700, 2), generator=generator)  # the last ten have no fact
    relation = torch.randint(RELATIONS - 1, (700,), generator=generator)  # nor has the last relation
    rows = torch.stack([sides[:, 0], relation, sides[:, 1]], dim=1)
    return torch.cat([rows, rows[:50]])  # some facts twice


@pytest.fixture(scope="module")
def known(facts) -> FilterIndex:
    return FilterIndex.build(facts, ENTITIES, RELATIONS)


def test_each_fact_counts_once(known, facts):
    assert len(known) == len(set(map(tuple, facts.tolist()))) < len(facts)


@pytest.mark.parametrize("side", ["head", "tail"])
def test_answers_are_those_of_a_plain_search(known, facts, side):
    true = set(map(tuple, facts.tolist()))
    entity = torch.arange(ENTITIES).repeat_interleave(RELATIONS)
    relation = torch.arange(RELATIONS).repeat(ENTITIES)
    row, answer = known.answers(entity.to(torch.int32), relation.to(torch.int32), side)
    assert row.dtype == answer.dtype == torch.int64
    found = list(zip(row.tolist(), answer.tolist(), strict=True))
    expected = [
        (place, other)
        for place, (one, r) in enumerate(zip(entity.tolist(), relation.tolist(), strict=True))
        for other in range(ENTITIES)
        if ((one, r, other) if side == "tail" else (other, r, one)) in true
    ]
    assert found == expected  # the order too: rows, then entities, ascend


def test_no_fact_at_all():
    empty = FilterIndex.build(np.zeros((0, 3), dtype=np.int64), 4, 2)
    row, entity = empty.answers(torch.tensor([0, 1]), torch.tensor([0, 1]), "tail")
    assert len(empty) == row.numel() == entity.numel() == 0


@pytest.mark.parametrize("row", [[4, 0, 0], [0, 2, 0], [0, 0, -1]])
def test_an_id_outside_the_graph_is_refused(row):
    with pytest.raises(UserError, match="outside a graph of 4 entities and 2 relations"):
        FilterIndex.build(torch.tensor([[0, 0, 1], row]), 4, 2)


def test_a_graph_too_large_for_the_keys_is_refused():
    with pytest.raises(UserError, match="64-bit"):
        FilterIndex.build(torch.zeros((0, 3)), 1 << 31, 4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_answers_the_same(known, facts):
    there = known.to("cuda")
    head, relation, _ = facts.T
    for side in ("head", "tail"):
        for here, other in zip(
            known.answers(head, relation, side), there.answers(*facts.T[:2].cuda(), side), strict=True
        ):
            assert torch.equal(here, other.cpu())
