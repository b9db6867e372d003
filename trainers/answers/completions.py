"""The missing facts that a trained run holds for most probable, and an estimate of how many of them hold.

For each relation, every candidate head asks (head, relation, ?) over all entities. Known facts of all splits are left
out, and loops of relations that have none in train. Queries are scored in blocks, of which only the best stay, so
memory does not grow with the graph.

The estimate: the same choice is made once more as if test were unknown, which taught neither weights nor
probabilities. The share of test's facts among what is then chosen is a precision under the closed world, hence a lower
bound of the true one: a chosen fact that no split holds may be true all the same, and most missing facts are in no
split.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.graph.filter_index import FilterIndex
from trainers.answers.calibration import Calibration, log_shares

Score = Callable[[Tensor, Tensor, str], Tensor]
Columns = dict[str, np.ndarray]

# Bytes that a score takes on its way: itself, its value, its mask, copies in which known facts are left out.
_BYTES_A_SCORE = 32


@dataclass(frozen=True)
class Facts:
    """The facts of one graph: which are known, which of these are test's, and the triples of train, (n, 3) int64."""

    train: Tensor
    test: FilterIndex
    known: FilterIndex  # all splits
    others: FilterIndex  # all splits but test


@dataclass(frozen=True)
class Choice:
    """Which completions are wanted. `same_types`: only heads and tails that the relation has in train."""

    per_relation: int
    smallest_probability: float = 0.0
    same_types: bool = True


@dataclass(frozen=True)
class Completions:
    """`missing`: columns head, relation, tail, rank (int32), score (float32), value and probability (float64), the best
    of each relation first. `chosen`: how many would be chosen if test were unknown, `expected` the mean of their
    probabilities (NaN without such); `of_test` of these are facts of test.
    """

    missing: Columns
    chosen: int
    of_test: int
    expected: float

    @property
    def precision(self) -> float | None:
        """The share of test's facts among what is chosen as if test were unknown; None if nothing is."""
        return self.of_test / self.chosen if self.chosen else None


def complete(
    score: Score,
    facts: Facts,
    relations: list[int],
    calibration: Calibration | None,
    choice: Choice,
    *,
    memory_bytes: int,
) -> Completions:
    """The completions of `relations`, at most `choice.per_relation` of each.

    A completion's rank is its place, from 1, among all unknown tails of its query. Without a calibration (too small a
    dev) candidates are compared by score, and have no probability (NaN), hence no smallest one.
    """
    found, as_if = [], []
    for relation in relations:
        best, trial = _Best(choice.per_relation), _Best(choice.per_relation)
        for block in _blocks(score, facts, relation, calibration, choice, memory_bytes):
            best.add(block, facts.known)
            trial.add(block, facts.others)
        found.append(_kept(best.columns(), choice, calibration))
        as_if.append(_kept(trial.columns(), choice, calibration))
    missing, chosen = (
        {name: np.concatenate([part[name] for part in parts]) for name in _TYPES} for parts in (found, as_if)
    )
    expected = float(chosen["probability"].mean()) if len(chosen["head"]) else float("nan")
    return Completions(missing, len(chosen["head"]), _facts_among(chosen, facts.test), expected)


@dataclass(frozen=True)
class _Block:
    """Scored queries (head (B,), relation, ?): scores (B, E), -inf where there is none; which `tails` (E,) count."""

    head: Tensor
    relation: Tensor
    scores: Tensor
    tails: Tensor
    loops: bool  # whether an entity may be its own answer
    calibration: Calibration | None


def _blocks(
    score: Score, facts: Facts, relation: int, calibration: Calibration | None, choice: Choice, memory_bytes: int
) -> Iterator[_Block]:
    entities = facts.known.entities
    of_relation = facts.train[facts.train[:, 1] == relation]
    loops = bool((of_relation[:, 0] == of_relation[:, 2]).any())
    heads, tails = torch.arange(entities), torch.ones(entities, dtype=torch.bool)
    if choice.same_types:
        heads = of_relation[:, 0].unique()
        tails = torch.zeros(entities, dtype=torch.bool)
        tails[of_relation[:, 2]] = True
    for head in heads.split(max(1, memory_bytes // (_BYTES_A_SCORE * entities))):
        asked = torch.full_like(head, relation)
        scores = score(head, asked, "tail").cpu().float().nan_to_num(nan=-torch.inf)
        yield _Block(head, asked, scores, tails, loops, calibration)


class _Best:
    """The n best candidates of the blocks so far, by value; of equal ones those that came first."""

    def __init__(self, number: int):
        self.number = number
        self.parts: list[Columns] = []

    def add(self, block: _Block, known: FilterIndex) -> None:
        """Take in a block's candidates that are not `known`."""
        free = torch.ones(block.scores.shape, dtype=torch.bool)
        free[known.answers(block.head, block.relation, "tail")] = False
        fitted = block.calibration
        values = log_shares(block.scores, free, fitted.temperature) if fitted else block.scores
        open_ = torch.where(free & block.tails, values, -torch.inf)
        if not block.loops:
            open_[torch.arange(len(block.head)), block.head] = -torch.inf
        value, place = open_.flatten().topk(min(self.number, open_.numel()))
        value, place = value[value > -torch.inf], place[value > -torch.inf]
        row, tail = place // open_.shape[1], place % open_.shape[1]
        score = block.scores[row, tail]
        above = [int((block.scores[r][free[r]] > s).sum()) for r, s in zip(row.tolist(), score, strict=True)]
        self.parts.append({
            "head": block.head[row].int().numpy(), "relation": block.relation[row].int().numpy(),
            "tail": tail.int().numpy(), "rank": np.array(above, dtype=np.int32) + 1, "score": score.numpy(),
            "value": value.double().numpy(),
            "probability": fitted.probability(value) if fitted else np.full(len(row), np.nan),
        })  # fmt: skip
        self.parts = [self.columns()]

    def columns(self) -> Columns:
        """What there is, the best first."""
        joined = {name: np.concatenate([part[name] for part in self.parts]) for name in self.parts[0]} if self.parts \
            else {name: np.empty(0, dtype) for name, dtype in _TYPES.items()}  # fmt: skip
        order = np.argsort(-joined["value"], kind="stable")[: self.number]
        return {name: column[order] for name, column in joined.items()}


_TYPES = {"head": np.int32, "relation": np.int32, "tail": np.int32, "rank": np.int32, "score": np.float32,
          "value": np.float64, "probability": np.float64}  # fmt: skip


def _kept(columns: Columns, choice: Choice, calibration: Calibration | None) -> Columns:
    if calibration is None:
        return columns
    keep = columns["probability"] >= choice.smallest_probability
    return {name: column[keep] for name, column in columns.items()}


def _facts_among(columns: Columns, facts: FilterIndex) -> int:
    head, relation, tail = (torch.from_numpy(columns[name]).long() for name in ("head", "relation", "tail"))
    row, answer = facts.answers(head, relation, "tail")
    return int((answer == tail[row]).sum())
