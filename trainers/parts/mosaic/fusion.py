"""The fusion: a linear model of all evidence, whose weights depend on the query, fitted listwise on dev.

    score(q, e) = Σ_f (w_f + v_{r(q), f} + u_{d(q), f}) x_f(q, e) / s_f

with r the relation in its direction, d how many facts the known entity has in train (none, 1 to 3, 4 to 15, more), s
the column's spread. v and u are held small by a penalty, so that a relation with few facts in dev follows the others.
The loss is the cross entropy of a softmax over the truth, the rivals that a fixed blend puts first, and rivals drawn
at random, each of which stands for as many as it was drawn from (an importance-sampled softmax, Bengio and Senécal
2008).
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.errors import UserError
from trainers.training.checkpoint import load_tensors

FEWER_THAN = (1, 4, 16)  # facts of the known entity: bounds of its classes
FOLDS = 3


@dataclass(frozen=True)
class Plan:
    """How the fusion is fitted."""

    hard: int = 200  # rivals that the blend puts first
    random: int = 200  # rivals drawn from all others
    spared: int = 16  # of a query's other answers in dev, how many stand by to be rivals where dev is left out
    epochs: int = 12
    batch_size: int = 256
    learning_rate: float = 0.05  # of Adam, falling to 0 along a line
    penalty: float = 0.5  # on the squared weights of relations and classes, summed, for the whole of dev
    pull: float = 0.5  # the same on what the weights of all queries differ from the fixed blend's


@dataclass(frozen=True)
class Lists:
    """Dev as lists of candidates, the truth first: n lists of C candidates with F columns.

    The last S candidates are the query's other answers in dev: no rivals, but where their fold is left out.
    """

    columns: Tensor  # (n, C, F) float32
    offset: Tensor  # (n, C): the log of how many a candidate stands for; −inf: of none
    relation: Tensor  # (n,) int64, below 2R
    degree: Tensor  # (n,) int64: facts of the known entity
    fold: Tensor  # (n,) int64: which fold leaves the list out
    spared: Tensor  # (n, S) int64: which fold leaves out each of the last S candidates; −1: it stands for none

    def part(self, rows: Tensor) -> "Lists":
        parts = self.columns, self.offset, self.relation, self.degree, self.fold, self.spared
        return Lists(*(one[rows] for one in parts))

    def without(self, fold: int) -> "Lists":
        """Those of the other folds, for which no fact of this one is known: as answers of theirs they are rivals."""
        rest = self.part(self.fold != fold)
        offset, last = rest.offset.clone(), rest.spared.shape[1]
        offset[:, offset.shape[1] - last :].masked_fill_(rest.spared == fold, 0.0)
        return replace(rest, offset=offset)


class Fusion(nn.Module):
    """`everywhere` (F,), `by_relation` (2R, F), `by_degree` (classes, F), of columns over `spread` (F,)."""

    everywhere: Tensor
    by_relation: Tensor
    by_degree: Tensor
    spread: Tensor

    def __init__(self, columns: int, relations: int):
        super().__init__()
        self.register_buffer("everywhere", torch.zeros(columns))
        self.register_buffer("by_relation", torch.zeros(relations, columns))
        self.register_buffer("by_degree", torch.zeros(len(FEWER_THAN) + 1, columns))
        self.register_buffer("spread", torch.ones(columns))

    def weights(self, relation: Tensor, degree: Tensor) -> Tensor:
        """(B, F): what each column counts in each query."""
        kind = torch.bucketize(degree, torch.tensor(FEWER_THAN, device=degree.device), right=True)
        return (self.everywhere + self.by_relation[relation] + self.by_degree[kind]) / self.spread


def of_run(run: Path, members: Sequence[str], columns: int, relations: int) -> Fusion:
    """The fusion that lies in a run folder of Mosaic.

    Raises UserError unless it weighs the same `members` and number of `columns` over as many `relations` (R).
    """
    tensors = load_tensors(run / "weights.safetensors")
    found = {name.removeprefix("fusion."): value for name, value in tensors.items() if name.startswith("fusion.")}
    if not found:
        raise UserError(f"{run} holds no fusion: it is no run of mosaic; name another one in fusion_from.")
    theirs = {name.split(".")[1] for name in tensors if name.startswith("scorers.")}
    theirs |= {"walker" for name in tensors if name.startswith("walker.")}
    if theirs != set(members) or found["by_relation"].shape != (2 * relations, columns):
        raise UserError(
            f"The fusion of {run} weighs {', '.join(sorted(theirs))} on {len(found['by_relation']) // 2} relations, "
            f"this model has {', '.join(sorted(members))} on {relations}: name in fusion_from a run with the same ones."
        )
    taken = Fusion(0, 0)
    for name, value in found.items():
        setattr(taken, name, value)
    return taken


def fit(lists: Lists, blend: Tensor, relations: int, plan: Plan, seed: int) -> Fusion:
    """The fusion that explains the lists best, beginning at what each column counts in the fixed `blend` (F,)."""
    count, _, width = lists.columns.shape
    fusion = Fusion(width, relations)
    fusion.spread.copy_(_spread(lists))
    start = blend * fusion.spread
    fusion.everywhere.copy_(start)
    trained = [fusion.everywhere, fusion.by_relation, fusion.by_degree]
    for one in trained:
        one.requires_grad_(True)
    optimizer = torch.optim.Adam(trained, lr=plan.learning_rate)
    steps = -(-count // plan.batch_size) * plan.epochs
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    draw = torch.Generator().manual_seed(seed)
    for _ in range(plan.epochs):
        for rows in torch.randperm(count, generator=draw).split(plan.batch_size):
            part = lists.part(rows)
            weights = fusion.weights(part.relation, part.degree)
            scores = torch.einsum("ncf,nf->nc", part.columns, weights) + part.offset
            own = fusion.by_relation.square().sum() + fusion.by_degree.square().sum()
            moved = (fusion.everywhere - start).square().sum()
            loss = (scores.logsumexp(1) - scores[:, 0]).mean() + (plan.penalty * own + plan.pull * moved) / count
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    for one in trained:
        one.requires_grad_(False)
    return fusion


def _spread(lists: Lists) -> Tensor:
    """(F,) standard deviation of each column over the candidates; 1 where it says the same of all."""
    seen = lists.columns[torch.isfinite(lists.offset)]
    found = seen.std(0) if len(seen) > 1 else torch.zeros(seen.shape[1])
    return torch.where(found > 1e-6, found, torch.ones_like(found))


def candidates(
    blend: np.ndarray, others: np.ndarray, truth: int, plan: Plan, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Candidates (C,) of one list and their offsets (C,), from a query's blended scores (E,).

    `others` are the known answers of the query, in train and dev; they are no rivals, and the truth among them is
    none of its own. Every list has 1 + hard + random candidates; those that stand for none have the offset −inf.
    """
    rivals = blend.copy()
    rivals[others] = rivals[truth] = -np.inf
    hard = np.argpartition(-rivals, min(plan.hard, len(rivals)) - 1)[: plan.hard]
    usable = np.isfinite(rivals[hard])
    left = np.isfinite(rivals)
    left[hard] = False
    drawn = generator.integers(len(rivals), size=plan.random)
    good = left[drawn]
    stands_for = np.log(left.sum() / good.sum()) if good.any() else 0.0
    fill = plan.hard - len(hard)
    picked = np.concatenate([[truth], hard, np.full(fill, truth), drawn])
    offset = np.concatenate(
        [[0.0], np.where(usable, 0.0, -np.inf), np.full(fill, -np.inf), np.where(good, stands_for, -np.inf)]
    )
    return picked, offset.astype(np.float32)


def candidates_of_all(
    blend: np.ndarray, others: tuple[Tensor, Tensor], truth: Tensor, plan: Plan, generator: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """`candidates` of B queries, as (B, C) each: `blend` (B, E), `truth` (B,), the known answers as the filter index
    gives them: row (M,) ascending, entity (M,)."""
    bounds = np.searchsorted(others[0].numpy(), np.arange(len(truth) + 1))
    found = [
        candidates(row, others[1][start:stop].numpy(), int(one), plan, generator)
        for row, one, (start, stop) in zip(blend, truth, itertools.pairwise(bounds), strict=True)
    ]
    picked, offset = (torch.from_numpy(np.stack(part)) for part in zip(*found, strict=True))
    return picked, offset


def folds(triples: int, seed: int) -> np.ndarray:
    """(n,) which of the folds each triple of dev is left out by."""
    return np.random.default_rng(seed).permutation(triples) % FOLDS


def spared_of(query: np.ndarray, answer: np.ndarray, fold: np.ndarray, most: int) -> tuple[Tensor, Tensor]:
    """For each of n lists up to `most` other answers of its query, (n, most), and their folds; −1 where there is none.

    List i asks `query[i]` (n,), a number that equal queries share, for `answer[i]` (n,), and is of `fold[i]` (n,).
    """
    order = np.lexsort((answer, query))
    place = np.argsort(order)
    first, last = (np.searchsorted(query[order], query, side) for side in ("left", "right"))
    next_ = (place - first)[:, None] + 1 + np.arange(most)  # the lists after it, and from the first on again
    others = order[first[:, None] + next_ % (last - first)[:, None]]
    there = np.arange(most) < (last - first - 1)[:, None]
    kept = np.where(there, answer[others], answer[:, None]), np.where(there, fold[others], -1)
    return torch.from_numpy(kept[0]), torch.from_numpy(kept[1])
