"""Each column of evidence as its definition says, counted by loops over a small graph."""

import math

import numpy as np
import pytest
import torch

from trainers.parts.mosaic import constants, rules
from trainers.parts.mosaic.evidence import Evidence
from trainers.parts.mosaic.facts import Facts
from trainers.parts.mosaic.neighbours import SHARPNESS
from trainers.parts.mosaic.views import Bag, Dense
from trainers.training.data import Features, Tokens

ENTITIES, RELATIONS = 9, 2
KNOWN, ASKED = np.repeat(np.arange(ENTITIES), 2 * RELATIONS), np.tile(np.arange(2 * RELATIONS), ENTITIES)


def edges() -> list[tuple[int, int, int]]:
    """Both ways, distinct."""
    draw = np.random.default_rng(1)
    facts = {(int(h), int(r), int(t)) for h, r, t in zip(*(draw.integers(n, size=16) for n in (9, 2, 8)), strict=True)}
    return sorted(facts | {(t, r + RELATIONS, h) for h, r, t in facts})


def vectors() -> np.ndarray:
    """Unit vectors; the third entity has none."""
    drawn = np.random.default_rng(2).normal(size=(ENTITIES, 4)).astype(np.float32)
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    drawn[2] = 0
    return drawn


@pytest.fixture(scope="module")
def columns() -> dict[str, np.ndarray]:
    """Name -> the column (36, 9) of all questions."""
    triples = np.array([edge for edge in edges() if edge[1] < RELATIONS])
    facts = Facts(triples, ENTITIES, RELATIONS)
    evidence = Evidence(facts, rules.mine(facts), constants.mine(facts), {"text": vectors()})
    return dict(zip(evidence.names, (np.array(one) for one in evidence.columns(KNOWN, ASKED)), strict=True))


def compare(found: np.ndarray, expected) -> None:
    """`expected(known, relation, entity)` of every question and entity."""
    wanted = [[expected(k, r, e) for e in range(ENTITIES)] for k, r in zip(KNOWN.tolist(), ASKED.tolist(), strict=True)]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("steps", [3, 5])
def test_walks_of_so_many_steps_and_those_that_end_with_the_relation(columns, steps):
    counts, last = {(k, k): 1 for k in range(ENTITIES)}, {}
    for _ in range(steps):
        before, counts, last = counts, {}, {}
        for (start, at), number in before.items():
            for source, relation, target in edges():
                if source == at:
                    counts[start, target] = counts.get((start, target), 0) + number
                    last[start, relation, target] = last.get((start, relation, target), 0) + number
    assert max(counts.values()) > 10
    compare(columns[f"walks_{steps}"], lambda k, r, e: math.log1p(counts.get((k, e), 0)))
    compare(columns[f"walks_ending_{steps}"], lambda k, r, e: math.log1p(last.get((k, r, e), 0)))


def test_how_often_an_entity_answers_and_how_many_facts_it_has(columns):
    compare(columns["answered"], lambda k, r, e: math.log1p(sum((r, e) == edge[1:] for edge in edges())))
    compare(columns["degree"], lambda k, r, e: math.log1p(sum(edge[0] == e for edge in edges())))


def test_neighbours_answer_with_what_they_have_in_the_relation(columns):
    seen = vectors()
    there = np.linalg.norm(seen, axis=1) > 0.5

    def weight(one: int, other: int) -> float:
        near = math.exp(SHARPNESS * (float(seen[one] @ seen[other]) - 1))
        return near * bool(one != other and there[one] and there[other])

    def share(known: int, relation: int, entity: int) -> float:
        askers = {source for source, kind, _ in edges() if kind == relation}
        whole = sum(weight(known, one) for one in askers) + 1e-6
        return sum(weight(known, one) for one in askers if (one, relation, entity) in edges()) / whole

    def range_(_: int, relation: int, entity: int) -> float:
        answers = {target for _, kind, target in edges() if kind == relation and there[target]}
        mean = sum(weight(entity, one) for one in answers) / max(1, len(answers))
        return (math.log(mean + 1e-5) - math.log(1e-5)) * bool(there[entity])

    compare(columns["text_likeness"], lambda k, r, e: float(seen[k] @ seen[e]))
    compare(columns["text_neighbours"], share)
    compare(columns["text_neighbours_root"], lambda *asked: math.sqrt(share(*asked)))
    compare(columns["text_range"], range_)


def test_a_bag_weighs_the_rarer_tokens_more_and_is_of_length_one():
    tokens = Tokens(
        torch.tensor([0, 2]), torch.tensor([0, 3, 5]), torch.tensor([0, 1, 1, 1, 2]), torch.arange(4), torch.zeros(4, 2)
    )
    rows = Bag(tokens, 4).matrix().toarray()
    common, rare = math.log(2 / 2) + 1e-3, math.log(2 / 1) + 1e-3
    length = math.hypot(common, rare)
    np.testing.assert_allclose(rows[0], [rare / length, common / length, 0, 0], rtol=1e-5)
    np.testing.assert_allclose(rows[2], [0, common / length, rare / length, 0], rtol=1e-5)
    assert not rows[[1, 3]].any()


def test_of_some_entities_a_view_makes_what_it_makes_of_all():
    draw = torch.Generator().manual_seed(0)
    tokens = Tokens(torch.arange(3), torch.tensor([0, 2, 4, 6]), torch.tensor([0, 1, 1, 2, 2, 3]), torch.arange(4),
                    torch.zeros(4, 2))  # fmt: skip
    views = Dense(Features(torch.arange(3), torch.randn(3, 4, generator=draw)), 5), Bag(tokens, 5)
    some = torch.tensor([4, 1, 1, 0])
    for view in views:
        W = torch.randn(view.width, 6, generator=draw, requires_grad=True)
        whole, part = view.times(W)[some], view.times(W, some)
        torch.testing.assert_close(part, whole)
        upon = torch.randn(part.shape, generator=draw)
        slopes = [torch.autograd.grad((made * upon).sum(), W)[0] for made in (whole, part)]
        torch.testing.assert_close(*slopes)
        assert slopes[0].abs().sum() > 0
