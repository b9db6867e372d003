"""What a graph's runs come to, in a sentence: who is best, by how much, and whether a paired test bears it out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.errors import counted
from stages.report.inputs import Run
from trainers.evaluation import significance
from trainers.evaluation.metrics import METRICS, MRR, headline

SAMPLES = 2000  # resamples of each bootstrap and each permutation test
LEVEL = 0.05  # below which a p value bears a difference out


@dataclass(frozen=True)
class Difference:
    """A run's MRR less that of the graph's best run, on the same queries: fractions, with the 95 % interval."""

    difference: float
    low: float
    high: float
    p: float

    @property
    def clear(self) -> bool:
        """Whether the paired permutation test bears it out."""
        return self.p < LEVEL


def differences(runs: Sequence[Run]) -> list[Difference | None]:
    """Each run against the best by MRR; None for the best itself."""
    best = max(runs, key=lambda run: run.test[MRR.name])
    found: list[Difference | None] = []
    for run in runs:
        if run is best:
            found.append(None)
            continue
        told = _compared(run, best, [MRR.name])[MRR.name]
        low, high = told["interval"]
        found.append(Difference(told["difference"], low, high, told["p"]))
    return found


def clear_winners(runs: Sequence[Run]) -> dict[str, int]:
    """Of each headline metric that one run leads against every other run by the paired test: that run's place."""
    led: dict[int, list[str]] = {}  # by the place of the run that leads: the metrics
    for metric in headline():
        best = (max if METRICS[metric].higher_is_better else min)(runs, key=lambda run: run.test[metric])
        led.setdefault(runs.index(best), []).append(metric)
    winners: dict[str, int] = {}
    for place, metrics in led.items():
        told = [_compared(runs[place], run, metrics) for run in runs if run is not runs[place]]
        winners |= {name: place for name in metrics if told and all(one[name]["p"] < LEVEL for one in told)}
    return winners


def _compared(a: Run, b: Run, metrics: list[str]) -> Any:
    return significance.compare(a.ranks, b.ranks, metrics, samples=SAMPLES)


def sentence(
    runs: Sequence[Run], labels: Mapping[str, str], encoders: str, against: Sequence[Difference | None]
) -> str:
    """The result in one sentence: the two best runs, and what the figures rest on. `labels`: model -> its name."""
    order = sorted(range(len(runs)), key=lambda place: -runs[place].test[MRR.name])
    first = runs[order[0]]
    rests = f"{seeds(runs)}; {first.about['split']} split; {encoders}"
    name = labels[first.model]
    if len(runs) == 1:
        low, high = (first.test.get("intervals") or significance.intervals(first.ranks))[MRR.name]
        return f"{name} reaches {MRR.text(first.test[MRR.name])} % {MRR.label} on {first.graph} " \
               f"(95 %: {100 * low:.1f} to {100 * high:.1f}; {rests})."  # fmt: skip
    second = against[order[1]]
    assert second is not None
    other = labels[runs[order[1]].model]
    figures = f"(95 %: {-100 * second.high:.1f} to {-100 * second.low:.1f}, p {p_value(second.p)}; {rests})"
    points = f"{-100 * second.difference:.1f} points of {MRR.label}"
    if second.clear:
        return f"{name} beats {other} on {first.graph} by {points} {figures}."
    level = [labels[runs[place].model] for place in order[1:] if (told := against[place]) and not told.clear]
    rest = "" if len(level) == 1 else f", nor from {' or '.join(level[1:])}"
    return f"Nothing separates {name} from {other}{rest} on {first.graph}: it is ahead by {points} {figures}."


def p_value(p: float) -> str:
    """`= 0.03`; at the least that so many resamples can tell, `< 0.001`."""
    return "< 0.001" if p < 0.001 else f"= {p:.1g}" if p < 0.1 else f"= {p:.2f}"


def seeds(runs: Sequence[Run]) -> str:
    """How many seeds the figures rest on: one training a model."""
    chosen = sorted({run.about["seed"] for run in runs})
    return f"1 seed ({chosen[0]})" if len(chosen) == 1 else f"{counted(len(chosen), 'seed')}, one a model"
