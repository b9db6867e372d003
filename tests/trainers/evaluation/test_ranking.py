"""The evaluator against an obvious twin, and against scores that must not win."""

import math

import numpy as np
import pytest
import torch

from pipeline.errors import UserError
from tests.helpers.score_tables import (
    ENTITIES,
    RELATIONS,
    Table,
    coarse_scores,
    facts_and_test,
    ranked,
    table_of,
)
from trainers.evaluation import metrics, ranking


def twin(values, test, facts, entities=ENTITIES):
    """The definition in plain Python: (optimistic, pessimistic, candidates) of each query."""
    known = {tuple(fact) for fact in facts.tolist()}
    found = []
    for side in ("tail", "head"):
        for h, r, t in test.tolist():
            row = values[int(side == "head"), t if side == "head" else h, r].tolist()
            truth = h if side == "head" else t
            others = [e for e in range(entities) if ((e, r, t) if side == "head" else (h, r, e)) not in known]
            rivals = [row[e] for e in others if e != truth]
            if not math.isfinite(row[truth]):
                found.append((len(rivals) + 1, len(rivals) + 1, len(rivals) + 1))
                continue
            above = sum(1 for rival in rivals if math.isnan(rival) or rival > row[truth])
            equal = sum(1 for rival in rivals if rival == row[truth])
            found.append((1 + above, 1 + above + equal, len(rivals) + 1))
    return np.array(found)


def assert_as_twin(score, test, facts, **options):
    ranks = ranked(score, test, facts, **options)
    optimistic, pessimistic, candidates = twin(score.values, test, facts).T
    np.testing.assert_array_equal(ranks["optimistic"], optimistic)
    np.testing.assert_array_equal(ranks["pessimistic"], pessimistic)
    np.testing.assert_array_equal(ranks["candidates"], candidates)
    np.testing.assert_array_equal(ranks["realistic"], (optimistic + pessimistic) / 2)
    return ranks


def test_ranks_with_many_ties_equal_those_of_the_definition():
    facts, test = facts_and_test()
    ranks = assert_as_twin(coarse_scores(), test, facts)
    assert (ranks["optimistic"] < ranks["pessimistic"]).any()  # there were ties
    assert (ranks["candidates"] < ENTITIES).any()  # and the filter had work to do


def test_rows_stand_in_the_order_of_the_triples_with_the_truths_own_score():
    facts, test = facts_and_test()
    score = coarse_scores(levels=1000)
    ranks = ranked(score, test, facts)
    assert ranks["direction"].tolist() == ["tail"] * len(test) + ["head"] * len(test)
    for name, column in zip(("head", "relation", "tail"), test.T.numpy(), strict=True):
        np.testing.assert_array_equal(ranks[name], np.tile(column, 2))
    h, r, t = test.T
    expected = torch.cat([score.values[0, h, r, t], score.values[1, t, r, h]])
    np.testing.assert_array_equal(ranks["score"], expected.numpy())


def test_a_query_with_several_true_tails_does_not_rank_them_against_one_another():
    facts = torch.tensor([[0, 0, 1], [0, 0, 2], [0, 0, 3], [5, 1, 6]])
    values = torch.zeros(2, ENTITIES, RELATIONS, ENTITIES)
    values[0, 0, 0, [1, 2, 3, 4]] = torch.tensor([9.0, 8.0, 7.0, 7.5])
    ranks = ranked(Table(values), facts[:3], facts, directions=("tail",))
    assert ranks["realistic"].tolist() == [1, 1, 2]  # entity 4 alone stands above 3
    assert ranks["candidates"].tolist() == [ENTITIES - 2] * 3


def test_a_truth_that_is_no_known_fact_is_ranked_too():
    facts, test = facts_and_test()
    unknown = torch.tensor([[0, 3, 0], [7, 2, 7]])
    facts = facts[(facts[:, None] != unknown).any(dim=2).all(dim=1)]
    assert_as_twin(coarse_scores(), torch.cat([test[:5], unknown]), facts)


def test_without_known_facts_every_entity_is_a_candidate():
    _, test = facts_and_test()
    ranks = assert_as_twin(coarse_scores(), test, torch.empty((0, 3), dtype=torch.int64))
    assert (ranks["candidates"] == ENTITIES).all()


def test_each_distinct_query_is_scored_once():
    facts, test = facts_and_test()
    score = coarse_scores()
    ranked(score, torch.cat([test, test]), facts)
    assert len(score.asked) == len(set(score.asked))
    expected = {("tail", h, r) for h, r, _ in test.tolist()} | {("head", t, r) for _, r, t in test.tolist()}
    assert set(score.asked) == expected


def test_constant_scores_get_chance():
    facts, test = facts_and_test()
    for constant in (0.0, -3.4e38, 3.4e38):
        ranks = ranked(table_of(lambda shape, c=constant: torch.full(shape, c)), test, facts)
        np.testing.assert_array_equal(ranks["realistic"], (ranks["candidates"] + 1) / 2)
        assert ranking.metrics(ranks)["amri"] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_model_of_nothing_but_nan_or_infinity_is_last_everywhere(value):
    facts, test = facts_and_test()
    ranks = ranked(table_of(lambda shape: torch.full(shape, value)), test, facts)
    for kind in ranking.RANKS:
        np.testing.assert_array_equal(ranks[kind], ranks["candidates"])
    metrics = ranking.metrics(ranks)
    assert metrics["not_finite"] == metrics["queries"] == 2 * len(test)
    assert metrics["amri"] == pytest.approx(-1)


@pytest.mark.parametrize(
    ("rival", "rank"), [(math.nan, ENTITIES), (math.inf, ENTITIES), (-math.inf, 1)], ids=["nan", "inf", "-inf"]
)
def test_a_rival_that_is_not_finite_never_helps_the_truth(rival, rank):
    facts = torch.tensor([[0, 0, 1]])
    values = torch.full((2, ENTITIES, RELATIONS, ENTITIES), rival)
    values[0, 0, 0, 1] = 0.0
    ranks = ranked(Table(values), facts, facts, directions=("tail",))
    assert [ranks[kind].tolist() for kind in ranking.RANKS] == [[rank]] * 3


def test_nan_and_infinities_among_scores_rank_as_defined():
    facts, test = facts_and_test()
    score = coarse_scores()
    holes = torch.rand(score.values.shape, generator=torch.Generator().manual_seed(3))
    for low, value in ((0.0, math.nan), (0.1, math.inf), (0.2, -math.inf)):
        score.values[(holes >= low) & (holes < low + 0.1)] = value
    ranks = assert_as_twin(score, test, facts)
    assert ranking.metrics(ranks)["not_finite"] == (~np.isfinite(ranks["score"])).sum() > 0


def test_turning_scores_into_nan_never_improves_a_rank():
    facts, test = facts_and_test()
    clean = coarse_scores(levels=50)
    before = ranked(clean, test, facts)
    holes = torch.rand(clean.values.shape, generator=torch.Generator().manual_seed(4)) < 0.3
    after = ranked(Table(clean.values.masked_fill(holes, math.nan)), test, facts)
    for kind in ranking.RANKS:
        assert (after[kind] >= before[kind]).all()


def test_permuting_entities_changes_nothing():
    facts, test = facts_and_test()
    score = coarse_scores()
    new = torch.randperm(ENTITIES, generator=torch.Generator().manual_seed(5))
    old = new.argsort()

    def renamed(triples):
        return torch.stack([new[triples[:, 0]], triples[:, 1], new[triples[:, 2]]], dim=1)

    permuted = Table(score.values[:, old][..., old].contiguous())
    before, after = ranked(score, test, facts), ranked(permuted, renamed(test), renamed(facts))
    for name in (*ranking.RANKS, "candidates", "score"):
        np.testing.assert_array_equal(before[name], after[name])


@pytest.mark.parametrize("queries_at_once", [1, 3, 1000])
def test_ranks_do_not_depend_on_the_memory(queries_at_once, monkeypatch):
    facts, test = facts_and_test()
    expected = ranked(coarse_scores(), test, facts)
    monkeypatch.setattr(ranking, "_CPU_BLOCK", 2 * ENTITIES)
    monkeypatch.setattr(ranking, "_MOST_COLUMNS", 7)
    sizes = []
    score = coarse_scores()

    def counting(known, relation, side):
        sizes.append(len(known))
        return score(known, relation, side)

    memory = queries_at_once * ENTITIES * ranking._BYTES_A_SCORE
    found = ranked(counting, test, facts, memory_bytes=memory)
    assert max(sizes) <= queries_at_once
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name])


def test_a_scorers_own_tensor_is_left_as_it_is():
    facts, test = facts_and_test()
    row = torch.arange(ENTITIES, dtype=torch.float32)
    ranks = ranked(lambda known, relation, side: row.expand(len(known), -1), test, facts)
    np.testing.assert_array_equal(row, torch.arange(ENTITIES))
    assert (ranks["optimistic"] == ranks["pessimistic"]).all()


def test_too_little_memory_says_how_much_is_needed():
    facts, test = facts_and_test()
    with pytest.raises(UserError, match=r"evaluate\.memory"):
        ranked(coarse_scores(), test, facts, memory_bytes=100)


def test_scores_of_another_precision_or_shape_are_refused():
    facts, test = facts_and_test()
    with pytest.raises(TypeError, match="float32"):
        ranked(lambda k, r, s: torch.zeros(len(k), ENTITIES, dtype=torch.bfloat16), test, facts)
    with pytest.raises(ValueError, match="shape"):
        ranked(lambda k, r, s: torch.zeros(len(k), ENTITIES - 1), test, facts)
    with pytest.raises(ValueError, match="entity"):
        ranked(coarse_scores(), torch.tensor([[0, 0, ENTITIES]]), facts)


def test_metrics_of_ranks_worked_out_by_hand():
    ranks = {
        "direction": np.array(["tail", "tail", "head", "head"]),
        "optimistic": np.array([1, 2, 4, 90]),
        "pessimistic": np.array([1, 4, 4, 110]),
        "realistic": np.array([1, 3, 4, 100.0]),
        "candidates": np.array([201, 101, 101, 201]),
        "score": np.array([1, 1, np.nan, 1], dtype=np.float32),
    }
    found = ranking.metrics(ranks)
    assert found["queries"] == 4
    assert found["not_finite"] == 1
    assert found["mrr"] == pytest.approx((1 + 1 / 3 + 1 / 4 + 1 / 100) / 4)
    assert found["mr"] == pytest.approx(27)
    assert [found[f"hits_at_{k}"] for k in (1, 3, 5, 10, 100)] == [0.25, 0.5, 0.75, 0.75, 1.0]
    assert found["amri"] == pytest.approx(1 - 26 / 75)  # chance: (101 + 51 + 51 + 101) / 4 = 76
    assert found["optimistic"]["mrr"] == pytest.approx((1 + 1 / 2 + 1 / 4 + 1 / 90) / 4)
    assert found["pessimistic"]["hits_at_3"] == 0.25
    assert found["tail"] == {"queries": 2, **metrics.summary(np.array([1, 3]), np.array([201, 101]))}
    assert found["head"]["mr"] == 52
    with pytest.raises(ValueError, match="no queries"):
        ranking.metrics({name: column[:0] for name, column in ranks.items()})


def test_ranks_come_back_from_parquet_as_they_were(tmp_path):
    facts, test = facts_and_test()
    ranks = {"dev": ranked(coarse_scores(1), test[:20], facts), "test": ranked(coarse_scores(2), test[20:], facts)}
    ranking.write(tmp_path / "ranks.parquet", ranks, {"model": "table"})
    found = ranking.read(tmp_path / "ranks.parquet", "test")
    for name, column in ranks["test"].items():
        np.testing.assert_array_equal(found[name], column)
    assert set(ranking.read(tmp_path / "ranks.parquet")["split"]) == {"dev", "test"}
    with pytest.raises(UserError, match="'train'"):
        ranking.read(tmp_path / "ranks.parquet", "train")
