"""How the papers' own code measures, so that a clean figure can stand beside the figure which that code would print.

Facts from the evaluation code of zjukg/AdaMF-MAT (`mmkgc/base/Test.h`, `run_adamf_mat.py`), zjukg/MoMoK (`train.py`,
`utils/data_loader.py`) and zjukg/MyGO (`train_mygo_fgc.py`, `utils.py`, `dataset.py`). All three rank over all
entities in both directions, filter by the released train, validation and test files together, and never look at the
validation figures to choose. They differ in three things:

|           | a truth tied with k rivals              | which epoch is reported            | a truth scored NaN |
|-----------|-----------------------------------------|------------------------------------|--------------------|
| adamf_mat | ahead of them all                       | the last                           | ranks first        |
| momok     | at a place among them drawn by lot      | each metric's best on test, apart  | ranks last         |
| mygo      | behind k // 2 of them                   | that of the best MRR on test       | ranks first        |

These figures answer one question: how much of the distance to a printed figure is due to the measuring. Nothing else
may be concluded from them, and no model is chosen by them. Asked for, they are the one reason to look at test while a
model trains (`TestProbe`); the weights are still chosen on dev.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from trainers.about import PaperProtocol
from trainers.evaluation.metrics import METRICS, MRR, means_over_queries, summary
from trainers.evaluation.ranking import Ranks


def protocol_ranks(protocol: PaperProtocol, ranks: Mapping[str, np.ndarray], *, seed: int = 0) -> np.ndarray:
    """The rank (N,) int64 that this protocol gives each query of `ranks` (`trainers.evaluation.ranking.rank`).

    `seed` draws the lots of `momok`. One thing of that code is not followed: it sets the scores of filtered rivals to
    0 instead of removing them, so they tie with a truth whose probability has underflowed to 0.
    """
    optimistic = np.asarray(ranks["optimistic"], dtype=np.int64)
    ties = np.asarray(ranks["pessimistic"], dtype=np.int64) - optimistic
    if protocol.ties == "ahead":
        found = optimistic
    elif protocol.ties == "half":
        found = optimistic + ties // 2
    else:
        found = optimistic + np.random.default_rng(seed).integers(0, ties + 1)
    if protocol.nan_first:
        found = np.where(np.isnan(ranks["score"]), 1, found)
    return found


def protocol_metrics(protocol: PaperProtocol, ranks: Mapping[str, np.ndarray], *, seed: int = 0) -> dict[str, float]:
    """The metrics of one epoch's test ranks as this protocol counts them: those that are means over queries."""
    found = summary(protocol_ranks(protocol, ranks, seed=seed), ranks["candidates"])
    return {name: found[name] for name in means_over_queries()}


@dataclass(frozen=True)
class TestProbe:
    """Called after each epoch of training, ranks test where the protocol would; its columns go into history.csv."""

    protocol: PaperProtocol
    rank_test: Callable[[nn.Module], Ranks]
    epochs: int  # of the whole training
    evaluate_every: int  # where ours measures on dev, hence where training may stop early

    def __call__(self, model: nn.Module, epoch: int) -> dict[str, float | None]:
        """The columns `<protocol>_<metric>` of this epoch; None where the protocol does not look."""
        every = self.protocol.evaluate_every or self.evaluate_every
        if epoch % every and epoch != self.epochs:
            return dict.fromkeys(f"{self.protocol.name}_{metric}" for metric in means_over_queries())
        found = protocol_metrics(self.protocol, self.rank_test(model))
        return {f"{self.protocol.name}_{metric}": value for metric, value in found.items()}

    def summary(self, history: Sequence[Mapping[str, Any]]) -> dict[str, object]:
        """What run.json keeps: `name`, `words`, `split`, and of each metric the value and epoch that would be reported;
        no metric where training stopped before the first look."""
        prefix = f"{self.protocol.name}_"
        looked = {
            row["epoch"]: {metric: row[prefix + metric] for metric in means_over_queries()}
            for row in history
            if row.get(prefix + MRR.name) is not None
        }
        about = {"name": self.protocol.name, "words": self.protocol.words, "split": self.protocol.split}
        return {**about, "reported": reported(self.protocol, looked) if looked else {}}


def reported(protocol: PaperProtocol, by_epoch: Mapping[int, Mapping[str, float]]) -> dict[str, dict[str, float | int]]:
    """What this protocol prints, given `protocol_metrics` of each epoch at which test was ranked.

    Returns metric -> {"value", "epoch"}. Of epochs with equal figures the earliest is named.

    Raises ValueError if there is no epoch.
    """
    if not by_epoch:
        raise ValueError("no epoch was ranked on test")
    epochs = sorted(by_epoch)
    names = list(by_epoch[epochs[0]])
    if protocol.choice == "last":
        chosen = dict.fromkeys(names, epochs[-1])
    elif protocol.choice == "best MRR on test":
        chosen = dict.fromkeys(names, max(epochs, key=lambda epoch: by_epoch[epoch][MRR.name]))
    else:
        chosen = {name: _best(name, epochs, by_epoch) for name in names}
    return {name: {"value": by_epoch[epoch][name], "epoch": epoch} for name, epoch in chosen.items()}


def _best(name: str, epochs: list[int], by_epoch: Mapping[int, Mapping[str, float]]) -> int:
    choose = max if METRICS[name].higher_is_better else min
    return choose(epochs, key=lambda epoch: by_epoch[epoch][name])
