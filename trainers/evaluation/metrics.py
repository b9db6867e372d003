"""The metrics: one row of `METRICS` each, from which evaluator, tests of significance, summary and report read them.

A metric is the mean over queries of something that depends on a query's rank alone. Where the mean rank that chance
would give must be set against it, `adjust` does so after the mean has been taken.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

Adjust = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Metric:
    """One row of `METRICS`.

    `of_a_rank` turns ranks (N,) float64 into what each query adds to the mean, (N,) float64. `adjust`, if there is one,
    turns the means (G,) of G groups of queries and `by_chance` (G,), the mean rank of random scores less 1, into the
    metric (G,). `percent`: a fraction, shown in percent. `shown`: "headline" in the summary, in studies and, with its
    bootstrap interval, in the report; "report" only there, without an interval; "files" only in the files of a run.
    """

    name: str
    label: str
    of_a_rank: Callable[[np.ndarray], np.ndarray]
    higher_is_better: bool = True
    percent: bool = True
    shown: Literal["headline", "report", "files"] = "headline"
    adjust: Adjust | None = None

    @property
    def heading(self) -> str:
        """The label with its unit."""
        return f"{self.label} %" if self.percent else self.label

    def text(self, value: float) -> str:
        """A value as tables show it: percent with two digits, other numbers with one."""
        return f"{100 * value:.2f}" if self.percent else f"{value:.1f}"


def reciprocal(rank: np.ndarray) -> np.ndarray:
    """1 / rank."""
    return 1 / rank


def hits_at(k: int) -> Callable[[np.ndarray], np.ndarray]:
    """1 where the rank is at most k, else 0."""
    return lambda rank: (rank <= k).astype(np.float64)


def adjusted_index(mean_rank: np.ndarray, by_chance: np.ndarray) -> np.ndarray:
    """The adjusted mean rank index, 1 - (MR - 1) / (E[MR] - 1) (Berrendorf et al. 2020): 1 is perfect, 0 is chance.

    Where nothing is to be chosen from, it is 0.
    """
    return 1 - np.divide(mean_rank - 1, by_chance, out=np.ones_like(by_chance), where=by_chance > 0)


MRR = Metric("mrr", "MRR", reciprocal)
METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        MRR,
        Metric("mr", "Mean rank", lambda rank: rank, higher_is_better=False, percent=False, shown="report"),
        Metric("hits_at_1", "Hits@1", hits_at(1)),
        Metric("hits_at_3", "Hits@3", hits_at(3)),
        Metric("hits_at_5", "Hits@5", hits_at(5), shown="files"),
        Metric("hits_at_10", "Hits@10", hits_at(10)),
        Metric("hits_at_100", "Hits@100", hits_at(100), shown="files"),
        Metric("amri", "AMRI", lambda rank: rank, adjust=adjusted_index, shown="report"),
    )
}


def headline() -> list[str]:
    """The names of the metrics that are shown wherever figures are, each a mean over queries."""
    return [name for name, metric in METRICS.items() if metric.shown == "headline" and metric.adjust is None]


def means_over_queries() -> list[str]:
    """The names of the metrics that are plain means over queries, so that queries can be resampled and paired."""
    return [name for name, metric in METRICS.items() if metric.adjust is None]


def in_report() -> list[Metric]:
    """The columns of the report's results: the headline metrics, then those that stand only there."""
    shown = [metric for metric in METRICS.values() if metric.shown != "files"]
    return sorted(shown, key=lambda metric: metric.shown != "headline")


def per_query(rank: np.ndarray, metric: str) -> np.ndarray:
    """What each query adds to a metric that is a mean over queries. (N,) float64.

    Raises ValueError if there is no such metric, or it is not a plain mean over queries.
    """
    if metric not in means_over_queries():
        raise ValueError(f"{metric!r} is not a mean over queries; known are {', '.join(means_over_queries())}")
    return METRICS[metric].of_a_rank(np.asarray(rank, dtype=np.float64))


def summary(rank: np.ndarray, candidates: np.ndarray) -> dict[str, float]:
    """Every metric, in the order of `METRICS`, of one kind of rank (N,) among `candidates` (N,).

    The mean rank of random scores is (candidates + 1) / 2 per query.
    """
    rank = np.asarray(rank, dtype=np.float64)
    by_chance = (np.asarray(candidates, dtype=np.float64) - 1).mean() / 2
    return combine({name: metric.of_a_rank(rank).mean() for name, metric in METRICS.items()}, by_chance)


def combine(means: Mapping[str, np.ndarray], by_chance: np.ndarray) -> dict:
    """The metrics, given the means of `of_a_rank` by name and what chance gives: numbers, or (G,) each for G groups."""
    found: dict = {}
    for name, metric in METRICS.items():
        value = np.asarray(means[name])
        found[name] = value if metric.adjust is None else metric.adjust(value, np.asarray(by_chance))
    return {name: float(value) if value.ndim == 0 else value for name, value in found.items()}
