"""From scores to probabilities, learnt on dev by temperature scaling and isotonic regression.

What such a probability means. Each query of dev is asked with its known answers left out, and all entities that are
left are rivals. A score becomes a share of the query: the softmax over these rivals, at the temperature under which
dev's answers are likeliest (Guo et al. 2017). The probability of a candidate is the part of dev's candidates of that
share which were the fact taken away, by isotonic regression (Zadrozny and Elkan 2002). So it holds *if the query has
one answer that the graph lacks*, and it counts every rival as false. Under the open world neither is certain: many
queries lack nothing, for which it says too much, and some rivals are true but not recorded, for which it says too
little. It ranks facts of one run soundly; it is no promise of how many of them hold, for which
trainers/answers/completions.py takes a count on held-out facts.

All that is measured is cross-fitted: each query of dev by what the other four fifths of the queries taught.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import UserError
from pipeline.graph.filter_index import FilterIndex

SIDES = ("tail", "head")
FILE = "completions.json"

# Of each query, the best rivals all count; of the others a few are drawn, and weigh for the rest.
_BEST, _DRAWN = 100, 20
_MOST_QUERIES = 4000
_FEWEST_QUERIES = 20
_FOLDS = 5
_BINS = 10
# Scores that are looked at at once: they stay in cache from one temperature to the next.
_BLOCK = 1 << 22
# Temperatures that are tried, in standard deviations of the scores.
_TEMPERATURES = np.logspace(-2, 0.7, 48)

Score = Callable[[Tensor, Tensor, str], Tensor]


@dataclass(frozen=True)
class Calibration:
    """A rising function from a candidate's share of its query to a probability: `y` at the logarithm of the share `x`,
    straight between, level outside.
    """

    temperature: float
    x: list[float]
    y: list[float]

    def probability(self, log_share: Tensor) -> np.ndarray:
        """Float64 in 0 to 1, of the same shape as `log_share` (see `log_shares`)."""
        return np.interp(log_share.double().cpu().numpy(), self.x, self.y)


@dataclass(frozen=True)
class Sample:
    """Candidates of dev's queries, each with the number of candidates that it stands for; all (M,) but `total`, the
    logarithm of the sum of exponentials (Q, T), and `loss`, that of the query's truth (Q, T), for T temperatures.
    """

    query: np.ndarray
    score: np.ndarray
    right: np.ndarray
    weight: np.ndarray
    best: np.ndarray  # whether it is its query's best candidate
    temperatures: np.ndarray
    total: np.ndarray
    loss: np.ndarray

    def values(self, queries: np.ndarray) -> tuple[float, np.ndarray]:
        """The temperature that fits the `queries` (Q,) bool best, and the logarithm of each candidate's share there."""
        at = int(self.loss[queries].mean(0).argmin())
        return float(self.temperatures[at]), self.score / self.temperatures[at] - self.total[self.query, at]


def log_shares(scores: Tensor, rivals: Tensor, temperature: float) -> Tensor:
    """(B, E) the logarithm of each entity's share of its query: a softmax over the `rivals` (B, E), -inf elsewhere.

    A score that is no number has no share.
    """
    out = torch.where(rivals, scores.float().nan_to_num(nan=-torch.inf), -torch.inf) / temperature
    return out - out.logsumexp(1, keepdim=True).nan_to_num(neginf=0.0)


def log_totals(scores: Tensor, temperatures: Sequence[float] | np.ndarray) -> Tensor:
    """(B, T) the logarithm of the sum of exponentials of each query's float32 scores (B, E), at each temperature.

    What lies 80 below a query's best counts as e^-80 of it: exponentials of less would be denormal numbers, which
    processors compute up to seven times more slowly.
    """
    top = scores.amax(1, keepdim=True)
    below, scratch = scores - top.nan_to_num(neginf=0.0), torch.empty_like(scores)
    sums = [torch.mul(below, 1 / one, out=scratch).clamp_(min=-80.0).exp_().sum(1) for one in temperatures]
    return torch.stack(sums, 1).log() + top / torch.tensor(temperatures, dtype=torch.float32)


def calibrate(
    score: Score, dev: Tensor, known: FilterIndex, side: str, *, memory_bytes: int, seed: int = 0
) -> tuple[Calibration, dict[str, object]] | None:
    """Learn from the triples `dev` (n, 3) what scores of the `side` that is asked for say; None if they are too few.

    `known` holds the facts of train and dev, which are no rivals. Returns the calibration and what was measured of it
    by cross-fitting: `queries`, and of each query's best candidate
    `expected_calibration_error` (10 bins of equal width; Guo et al. 2017, equation 3), `mean_probability`,
    `share_right`, and `reliability`, of each bin that is not empty the mean probability, the share right, the queries.
    """
    draw = np.random.default_rng(seed)
    rows = dev[torch.from_numpy(draw.permutation(len(dev))[:_MOST_QUERIES])]
    if len(rows) < _FEWEST_QUERIES:
        return None
    taken = _sample(score, rows, known, side, memory_bytes, draw)
    probability, right = _held_out(taken)[taken.best], taken.right[taken.best]
    measured = {
        "queries": len(rows),
        "expected_calibration_error": calibration_error(probability, right),
        "mean_probability": float(probability.mean()),
        "share_right": float(right.mean()),
        "reliability": reliability(probability, right),
    }
    return _fit(taken, np.ones(len(rows), dtype=bool)), measured


def calibration_error(probability: np.ndarray, right: np.ndarray, bins: int = _BINS) -> float:
    """The expected calibration error of N probabilities: the mean distance of a bin's mean from its share of truths."""
    apart = np.bincount(_bin(probability, bins), weights=probability - right, minlength=bins)
    return float(np.abs(apart).sum() / max(1, len(probability)))


def reliability(probability: np.ndarray, right: np.ndarray, bins: int = _BINS) -> list[dict[str, float]]:
    """Of each bin that holds any of the N probabilities: their mean, the share of truths among them, their number."""
    place = _bin(probability, bins)
    return [
        {"probability": float(probability[place == one].mean()), "share_right": float(right[place == one].mean()),
         "queries": int((place == one).sum())}
        for one in np.unique(place).tolist()
    ]  # fmt: skip


def read_calibration(run: Path, about: Mapping) -> dict[str, Calibration]:
    """By the side that is asked for, what `stages.complete` left in a run's folder; empty if it has not run since
    the run was trained.

    Raises UserError if the file is damaged.
    """
    try:
        found = json.loads((run / FILE).read_text(encoding="utf-8"))
        if found["provenance"].get("fingerprint") != about.get("fingerprint"):
            return {}
        return {side: Calibration(**one) for side, one in found["calibration"].items()}
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{run / FILE} is damaged ({error}); make it again (python -m stages.complete).") from error


def as_json(calibrations: Mapping[str, Calibration]) -> dict[str, dict]:
    """What `read_calibration` reads again."""
    return {side: asdict(one) for side, one in calibrations.items()}


def _bin(probability: np.ndarray, bins: int) -> np.ndarray:
    return np.minimum((probability * bins).astype(int), bins - 1)


def _sample(
    score: Score, rows: Tensor, known: FilterIndex, side: str, memory_bytes: int, draw: np.random.Generator
) -> Sample:
    """The truth, the best rivals, and some of the others, of the query that each of the triples `rows` asks."""
    given, asked = (0, 2) if side == "tail" else (2, 0)
    parts: list[dict[str, np.ndarray]] = []
    temperatures: np.ndarray | None = None
    for start in range(0, len(rows), batch := max(1, min(memory_bytes // 24, _BLOCK) // known.entities)):
        block = rows[start : start + batch]
        scores = score(block[:, given], block[:, 1], side).cpu().float().nan_to_num(nan=-torch.inf)
        rivals = torch.ones(scores.shape, dtype=torch.bool)
        rivals[known.answers(block[:, given], block[:, 1], side)] = False
        place, truth = torch.arange(len(block)), block[:, asked]
        rivals[place, truth] = True
        scores = scores.masked_fill(~rivals, -torch.inf)
        if temperatures is None:
            temperatures = _TEMPERATURES * max(1e-6, float(scores[scores.isfinite()].std()))
        total = log_totals(scores, temperatures).numpy()
        loss = total - scores[place, truth].numpy()[:, None] / temperatures
        weight, best = _weights(scores, rivals, truth, draw)
        row, entity = weight.nonzero(as_tuple=True)
        parts.append({
            "query": row.numpy() + start,
            "score": scores[row, entity].double().numpy(),
            "right": (entity == truth[row]).numpy(),
            "weight": weight[row, entity].double().numpy(),
            "best": (entity == best[row]).numpy(),
            "total": np.nan_to_num(total, neginf=0.0),
            "loss": np.nan_to_num(loss, nan=1e3, posinf=1e3),
        })  # fmt: skip
    assert temperatures is not None
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return Sample(temperatures=temperatures, **columns)


def _weights(scores: Tensor, rivals: Tensor, truth: Tensor, draw: np.random.Generator) -> tuple[Tensor, Tensor]:
    """(B, E) how many candidates each one stands for, 0 for those that are not taken; (B,) the best one."""
    place = torch.arange(len(scores))
    top = scores.topk(min(_BEST, scores.shape[1]), dim=1).indices
    weight = torch.zeros(scores.shape)
    weight[place[:, None], top] = 1.0
    weight[place, truth] = 1.0
    free = rivals & (weight == 0)
    drawn = torch.zeros_like(rivals)
    drawn[place[:, None], torch.from_numpy(draw.integers(scores.shape[1], size=(len(scores), _DRAWN)))] = True
    drawn &= free
    stands_for = free.sum(1, keepdim=True) / drawn.sum(1, keepdim=True).clamp(min=1)
    return torch.where(drawn, stands_for, weight) * (rivals & scores.isfinite()), top[:, 0]


def _fit(sample: Sample, queries: np.ndarray) -> Calibration:
    """The calibration that some of the queries (Q,) bool teach."""
    from sklearn.isotonic import IsotonicRegression  # here: it takes a second or two, and asking needs none of it

    temperature, value = sample.values(queries)
    here = queries[sample.query]
    model = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip")
    model.fit(value[here], sample.right[here].astype(float), sample_weight=sample.weight[here])
    # A few truths above all rivals prove no certainty: Laplace's rule of succession bounds what n of them can say.
    most = 1 - 1 / (int(sample.right[here].sum()) + 2)
    return Calibration(temperature, model.X_thresholds_.tolist(), np.minimum(model.y_thresholds_, most).tolist())


def _held_out(sample: Sample) -> np.ndarray:
    """(M,) the probability of each candidate by the four fifths of the queries that it is not of."""
    found = np.empty(len(sample.query))
    fold = np.arange(len(sample.loss)) % _FOLDS
    for one in range(_FOLDS):
        others = fold != one
        fitted = _fit(sample, others)
        _, value = sample.values(others)
        here = ~others[sample.query]
        found[here] = fitted.probability(torch.from_numpy(value[here]))
    return found
