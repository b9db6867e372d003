"""How sure a figure is: bootstrap intervals, two runs compared on the same queries, several seeds.

What is resampled are queries (rows of ranks.parquet), so an interval says how much a figure would move with another
draw of test queries for the same trained model. How much it moves with another training is what several seeds say
(`over_seeds`); the two do not replace one another.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from scipy import sparse

from pipeline.errors import UserError
from trainers.evaluation.metrics import METRICS, headline, per_query
from trainers.evaluation.ranking import Ranks

_DRAWN_AT_ONCE = 1 << 21  # numbers of one block of resamples: 16 MB


def resamples(queries: int, samples: int, seed: int) -> Iterator[np.ndarray]:
    """Bootstrap resamples as how often each query was drawn, in blocks (S, queries) float64 that sum to `samples`."""
    generator = np.random.default_rng(seed)
    block = max(1, _DRAWN_AT_ONCE // max(1, queries))
    for start in range(0, samples, block):
        count = min(block, samples - start)
        drawn = generator.integers(0, queries, size=(count, queries))
        drawn += np.arange(count)[:, None] * queries
        yield np.bincount(drawn.ravel(), minlength=count * queries).reshape(count, queries).astype(np.float64)


def bootstrap_means(
    values: np.ndarray, groups: sparse.csr_array | None = None, *, samples: int = 1000, seed: int = 0
) -> np.ndarray:
    """Resampled means (samples, G, M) of `values` (N, M) in each group; `groups` (N, G) is 1 where a query belongs.

    All groups and all columns see the same resamples, so that differences between them may be taken. A group that a
    resample missed has NaN there.
    """
    values = np.asarray(values, dtype=np.float64).reshape(len(values), -1)
    if groups is None:
        groups = sparse.csr_array(np.ones((len(values), 1)))
    members = sparse.csr_array(groups.T, dtype=np.float64)
    weighted = [sparse.csr_array(members.multiply(column[None, :])) for column in values.T]
    found = []
    for weights in resamples(len(values), samples, seed):
        with np.errstate(invalid="ignore"):
            sizes = members @ weights.T
            found.append(np.stack([(part @ weights.T) / sizes for part in weighted], axis=-1).transpose(1, 0, 2))
    return np.concatenate(found)


def percentile_interval(means: np.ndarray, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """(low, high) between which the middle `level` of the resampled means (samples, …) lies; NaN where all are NaN."""
    tail = (1 - level) / 2
    missed = np.isnan(means).all(axis=0)
    low, high = np.nanquantile(np.where(missed, 0.0, means), (tail, 1 - tail), axis=0)
    return np.where(missed, np.nan, low), np.where(missed, np.nan, high)


def intervals(
    ranks: Mapping[str, np.ndarray],
    metrics: Sequence[str] | None = None,
    *,
    samples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, list[float]]:
    """[low, high] of each of `metrics` of the realistic rank, by the percentile bootstrap over queries (Efron 1979).

    None: of the headline metrics.
    """
    metrics = headline() if metrics is None else metrics
    values = np.stack([per_query(ranks["realistic"], metric) for metric in metrics], axis=1)
    low, high = percentile_interval(bootstrap_means(values, samples=samples, seed=seed), level)
    return {metric: [float(low[0, i]), float(high[0, i])] for i, metric in enumerate(metrics)}


def aligned(a: Ranks, b: Ranks) -> tuple[Ranks, Ranks]:
    """Both runs' rows in one common order of queries.

    Raises UserError if they did not rank the same queries.
    """
    a, b = _ordered(a), _ordered(b)
    keys = ("head", "relation", "tail", "direction")
    if len(a["head"]) != len(b["head"]) or any((a[key] != b[key]).any() for key in keys):
        rows = [set(zip(*(run[key].tolist() for key in keys), strict=True)) for run in (a, b)]
        raise UserError(
            f"The two runs ranked different queries ({len(a['head']):,} and {len(b['head']):,}, "
            f"{len(rows[0] & rows[1]):,} in common); to compare them, evaluate both on the same graph and split."
        )
    return a, b


def _ordered(ranks: Ranks) -> Ranks:
    order = np.lexsort((ranks["realistic"], ranks["tail"], ranks["relation"], ranks["head"], ranks["direction"]))
    return {name: np.asarray(column)[order] for name, column in ranks.items()}


def compare(
    a: Ranks,
    b: Ranks,
    metrics: Sequence[str] | None = None,
    *,
    samples: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, object]:
    """Compare two runs on the same queries, by `metrics`, or by the headline metrics if it is None.

    Returns `queries`; `better`, `equal`, `worse`: on how many queries a ranks the truth higher than b, the same, lower;
    `wilcoxon`: the p value of the signed-rank test of reciprocal ranks (Wilcoxon 1945; 1 where all are equal); and
    under each metric: `a`, `b`, `difference` (a - b), `interval` of the difference by the paired bootstrap, `p` of the
    two-sided paired permutation test, whose null says that a's and b's rank of a query may be exchanged.

    Raises UserError if the two did not rank the same queries.
    """
    metrics = headline() if metrics is None else metrics
    a, b = aligned(a, b)
    found: dict[str, object] = {
        "queries": len(a["realistic"]),
        "better": int((a["realistic"] < b["realistic"]).sum()),
        "equal": int((a["realistic"] == b["realistic"]).sum()),
        "worse": int((a["realistic"] > b["realistic"]).sum()),
        "wilcoxon": _wilcoxon(1 / a["realistic"], 1 / b["realistic"]),
    }
    ours, theirs = (np.stack([per_query(run["realistic"], m) for m in metrics], axis=1) for run in (a, b))
    low, high = percentile_interval(bootstrap_means(ours - theirs, samples=samples, seed=seed), level)
    p = permutation_test(ours - theirs, samples=samples, seed=seed)
    for i, metric in enumerate(metrics):
        found[metric] = {
            "a": float(ours[:, i].mean()),
            "b": float(theirs[:, i].mean()),
            "difference": float((ours[:, i] - theirs[:, i]).mean()),
            "interval": [float(low[0, i]), float(high[0, i])],
            "p": float(p[i]),
        }
    return found


def _wilcoxon(a: np.ndarray, b: np.ndarray) -> float:
    if (a == b).all():
        return 1.0
    from scipy import stats  # here: it takes a second or two, and only comparisons of runs need it

    return float(stats.wilcoxon(a, b, zero_method="pratt", method="asymptotic").pvalue)


def permutation_test(differences: np.ndarray, *, samples: int = 10_000, seed: int = 0) -> np.ndarray:
    """p values (M,) of the two-sided paired permutation test of mean zero, for each column of (N, M) differences.

    Under the null each query's difference has either sign with probability ½. All columns see the same signs. The
    observed assignment counts as one more, so p is at least 1 / (samples + 1) (Phipson and Smyth 2010).
    """
    differences = np.asarray(differences, dtype=np.float64).reshape(len(differences), -1)
    differences = differences[(differences != 0).any(axis=1)]
    observed = np.abs(differences.sum(axis=0))
    slack = 1e-9 * np.abs(differences).sum(axis=0)  # sums in another order differ in the last bits; such are ties
    generator = np.random.default_rng(seed)
    block = max(1, _DRAWN_AT_ONCE // max(1, len(differences)))
    extreme = np.zeros(differences.shape[1], dtype=np.int64)
    for start in range(0, samples, block):
        count = min(block, samples - start)
        bits = np.unpackbits(np.frombuffer(generator.bytes(count * len(differences) // 8 + 1), dtype=np.uint8))
        signs = bits[: count * len(differences)].reshape(count, -1).astype(np.float64) * 2 - 1
        extreme += (np.abs(signs @ differences) >= observed - slack).sum(axis=0)
    return (extreme + 1) / (samples + 1)


def over_seeds(runs: Sequence[Mapping[str, object]]) -> dict[str, dict[str, float | int | None]]:
    """`mean`, `deviation` (sample standard deviation, n - 1; None with one run) and `runs` of each metric at the top
    level of several runs' metrics (`trainers.evaluation.ranking.metrics`).

    Raises ValueError if there is no run.
    """
    if not runs:
        raise ValueError("no runs to average")
    found = {}
    for name in METRICS:
        values = np.array([run[name] for run in runs], dtype=np.float64)
        deviation = float(values.std(ddof=1)) if len(values) > 1 else None
        found[name] = {"mean": float(values.mean()), "deviation": deviation, "runs": len(values)}
    return found
