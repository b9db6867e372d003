"""The evaluator against PyKEEN's: the same ranks, candidates and metrics on the same scores, ties and filters."""

import numpy as np
import pytest
import torch

from pipeline.encoding import torchvision_repair  # noqa: F401
from tests.helpers.score_tables import ENTITIES, Table, coarse_scores, facts_and_test, ranked
from trainers.evaluation import ranking

evaluation = pytest.importorskip(
    "pykeen.evaluation", reason="PyKEEN is not installed (pip install 'tessera-mmkgc[dev]')"
)
evaluator = pytest.importorskip("pykeen.evaluation.evaluator", reason="PyKEEN is not installed")

COLUMNS = {"tail": 2, "head": 0}
NAMES = {
    "mrr": "inverse_harmonic_mean_rank",
    "mr": "arithmetic_mean_rank",
    "hits_at_1": "hits_at_1",
    "hits_at_3": "hits_at_3",
    "hits_at_5": "hits_at_5",
    "hits_at_10": "hits_at_10",
    "amri": "adjusted_arithmetic_mean_rank_index",
}


def pykeens(score: Table, test: torch.Tensor, facts: torch.Tensor):
    judge = evaluation.RankBasedEvaluator(clear_on_finalize=False)
    for side, column in COLUMNS.items():
        known = test[:, 2 - column]
        scores = score.values[int(side == "head"), known, test[:, 1]].clone()
        truth = scores.gather(1, test[:, column, None]).clone()
        positives, _ = evaluator.create_sparse_positive_filter_(test, facts, filter_col=column)
        scores = evaluator.filter_scores_(scores, positives)
        scores.scatter_(1, test[:, column, None], truth)
        judge.process_scores_(test, side, scores, truth)
    return judge, judge.finalize()


@pytest.mark.parametrize("levels", [2, 7, 10**6])
def test_ranks_and_metrics_equal_pykeens(levels):
    facts, test = facts_and_test(seed=levels)
    score = coarse_scores(seed=levels, levels=levels)
    judge, expected = pykeens(score, test, facts)
    found = ranked(score, test, facts)
    for kind in ranking.RANKS:
        theirs = np.concatenate([np.concatenate(judge.ranks[side, kind]) for side in COLUMNS])
        np.testing.assert_array_equal(found[kind], theirs)
    theirs = np.concatenate([np.concatenate(judge.num_candidates[side]) for side in COLUMNS])
    np.testing.assert_array_equal(found["candidates"], theirs)
    assert (found["candidates"] < ENTITIES).any()
    metrics = ranking.metrics(found)
    for ours, theirs in NAMES.items():
        assert metrics[ours] == close_to(expected, "both.realistic", theirs)
        assert metrics["head"][ours] == close_to(expected, "head.realistic", theirs)
        if ours != "amri":  # which PyKEEN defines for the realistic rank only
            assert metrics["optimistic"][ours] == close_to(expected, "both.optimistic", theirs)
            assert metrics["pessimistic"][ours] == close_to(expected, "both.pessimistic", theirs)


def close_to(expected, which, metric):
    return pytest.approx(expected.get_metric(f"{which}.{metric}"), rel=1e-5, abs=1e-6)  # PyKEEN averages in float32
