"""The index of known facts against a plain set of tuples, and the sieve against the search."""

import numpy as np
import pytest
import torch

from pipeline.errors import UserError
from pipeline.graph.filter_index import KnownFacts

ENTITIES, RELATIONS = 60, 5


@pytest.fixture(scope="module")
def facts() -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    sides = torch.randint(ENTITIES - 10, (700, 2), generator=generator)  # the last ten have no fact
    relation = torch.randint(RELATIONS - 1, (700,), generator=generator)  # nor has the last relation
    rows = torch.stack([sides[:, 0], relation, sides[:, 1]], dim=1)
    return torch.cat([rows, rows[:50]])  # some facts twice


@pytest.fixture(scope="module")
def known(facts) -> KnownFacts:
    return KnownFacts.build(facts, ENTITIES, RELATIONS)


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


def test_contains_is_that_of_a_plain_search_and_broadcasts(known, facts):
    true = set(map(tuple, facts.tolist()))
    head, tail = torch.arange(ENTITIES)[:, None], torch.arange(ENTITIES)[None]
    for relation in range(RELATIONS):
        found = known.contains(head, torch.tensor(relation), tail)
        assert found.shape == (ENTITIES, ENTITIES)
        assert {(h, relation, t) for h, t in found.nonzero().tolist()} == {fact for fact in true if fact[1] == relation}


def test_the_sieve_only_saves_work(known):
    generator = torch.Generator().manual_seed(0)
    head, tail = torch.randint(ENTITIES, (2, 20_000), generator=generator)
    relation = torch.randint(RELATIONS, (20_000,), generator=generator)
    key = (head * RELATIONS + relation) * ENTITIES + tail
    assert torch.equal(known.contains(head, relation, tail), known._searched(key))
    assert known.sieve.float().mean() < 0.05  # it does turn most questions away
    everything = KnownFacts(
        ENTITIES, RELATIONS, known.tails, known.heads, known.facts, torch.ones(64, dtype=torch.bool)
    )
    assert torch.equal(known.contains(head, relation, tail), everything.contains(head, relation, tail))


def test_queries_are_all_that_have_an_answer(known, facts):
    pairs = set(zip(*(part.tolist() for part in known.queries("head")), strict=True))
    assert pairs == {(t, r) for _, r, t in facts.tolist()}


def test_no_fact_at_all():
    empty = KnownFacts.build(np.zeros((0, 3), dtype=np.int64), 4, 2)
    row, entity = empty.answers(torch.tensor([0, 1]), torch.tensor([0, 1]), "tail")
    assert len(empty) == row.numel() == entity.numel() == 0
    assert not empty.contains(torch.arange(4), torch.tensor(0), torch.arange(4)).any()


@pytest.mark.parametrize("row", [[4, 0, 0], [0, 2, 0], [0, 0, -1]])
def test_an_id_outside_the_graph_is_refused(row):
    with pytest.raises(UserError, match="outside a graph of 4 entities and 2 relations"):
        KnownFacts.build(torch.tensor([[0, 0, 1], row]), 4, 2)


def test_a_graph_too_large_for_the_keys_is_refused():
    with pytest.raises(UserError, match="64-bit"):
        KnownFacts.build(torch.zeros((0, 3)), 1 << 31, 4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_answers_the_same(known, facts):
    there = known.to("cuda")
    head, relation, tail = facts.T
    for side in ("head", "tail"):
        for here, other in zip(
            known.answers(head, relation, side), there.answers(*facts.T[:2].cuda(), side), strict=True
        ):
            assert torch.equal(here, other.cpu())
    assert there.contains(head.cuda(), relation.cuda(), tail.cuda()).all()
    assert torch.equal(known.contains(tail, relation, head), there.contains(*facts.flip(1).T.cuda()).cpu())
