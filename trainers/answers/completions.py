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
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from pipeline.graph.filter_index import FilterIndex
from trainers.answers.calibration import Calibration, log_totals

Score = Callable[[Tensor, Tensor, str], Tensor]
Columns = dict[str, np.ndarray]

# Bytes that a score takes on its way: itself as given and without NaN, its distance from the best, the exponential of
# that, its value, a mask.
_BYTES_A_SCORE = 32
# Scores that are looked at at once: they stay in cache from one look to the next.
_BLOCK = 1 << 22


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
            best.add(block)
            trial.add(block.as_if_test_were_unknown())
        found.append(_kept(best.columns(), choice, calibration))
        as_if.append(_kept(trial.columns(), choice, calibration))
    missing, chosen = (
        {name: np.concatenate([part[name] for part in parts]) for name in _TYPES} for parts in (found, as_if)
    )
    expected = float(chosen["probability"].mean()) if len(chosen["head"]) else float("nan")
    return Completions(missing, len(chosen["head"]), _facts_among(chosen, facts.test), expected)


@dataclass(frozen=True)
class _Block:
    """Scored queries (head (B,), relation, ?): `scores` (B, E), -inf where a fact is known; which `tails` (E,) count.

    `row`, `tail`, `own` (M,): test's facts among the known ones, and what they score. `total` (B,): under a
    calibration, the logarithm of the sum of exponentials of all rivals.
    """

    head: Tensor
    relation: Tensor
    scores: Tensor
    row: Tensor
    tail: Tensor
    own: Tensor
    tails: Tensor
    loops: bool  # whether an entity may be its own answer
    calibration: Calibration | None
    total: Tensor

    def values(self, scores: Tensor, row: Tensor | None = None) -> Tensor:
        """By what candidates of queries `row` (N,) are compared that score `scores` (N,); of all (B, E) without."""
        if self.calibration is None:
            return scores
        total = self.total[:, None] if row is None else self.total[row]
        return scores / self.calibration.temperature - total

    def as_if_test_were_unknown(self) -> "_Block":
        """The same queries, whose facts of test are candidates and rivals, too. Overwrites this block's `scores`."""
        if not len(self.row):
            return self
        self.scores[self.row, self.tail] = self.own
        if self.calibration is None:
            return self
        theirs = torch.full_like(self.total, -torch.inf)
        for row, value in zip(self.row.tolist(), self.own / self.calibration.temperature, strict=True):
            theirs[row] = torch.logaddexp(theirs[row], value)
        return replace(self, total=torch.logaddexp(self.total, theirs))

    def above(self, least: float) -> tuple[Tensor, Tensor]:
        """Row and tail of candidates, among them all whose value is above `least`, a number."""
        if self.calibration is None:
            bound = torch.full((len(self.head), 1), least)
        else:  # rounded down, as the quotient may have been rounded up
            bound = (least + self.total[:, None]) * self.calibration.temperature
            bound -= 1e-6 * (bound.abs() + abs(least) + self.total[:, None].abs())
        row, tail = (self.scores > bound).nonzero(as_tuple=True)
        keep = self.tails[tail]
        if not self.loops:
            keep &= tail != self.head[row]
        return row[keep], tail[keep]

    def best(self, number: int) -> tuple[Tensor, Tensor]:
        """Row and tail of the best `number` candidates."""
        values = torch.where(self.tails, self.values(self.scores), -torch.inf)
        if not self.loops:
            values[torch.arange(len(self.head)), self.head] = -torch.inf
        value, place = values.flatten().topk(min(number, values.numel()))
        place = place[value > -torch.inf]
        return place // values.shape[1], place % values.shape[1]


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
    for head in heads.split(max(1, min(memory_bytes // _BYTES_A_SCORE, _BLOCK) // entities)):
        asked = torch.full_like(head, relation)
        scores = score(head, asked, "tail").cpu().float().nan_to_num(nan=-torch.inf)
        row, tail = facts.test.answers(head, asked, "tail")
        own = scores[row, tail]
        scores[facts.known.answers(head, asked, "tail")] = -torch.inf
        total = torch.zeros(len(head))
        if calibration is not None:
            total = log_totals(scores, [calibration.temperature])[:, 0].nan_to_num(neginf=0.0)
        yield _Block(head, asked, scores, row, tail, own, tails, loops, calibration, total)


class _Best:
    """The n best candidates of the blocks so far, by value; of equal ones those that came first."""

    def __init__(self, number: int):
        self.number = number
        self.found: Columns = {name: np.empty(0, dtype) for name, dtype in _TYPES.items()}

    def add(self, block: _Block) -> None:
        """Take in a block's candidates."""
        full = len(self.found["value"]) == self.number
        row, tail = block.above(float(self.found["value"][-1])) if full else block.best(self.number)
        score = block.scores[row, tail]
        value = block.values(score, row).double().numpy()
        new = {"head": block.head[row].numpy(), "relation": block.relation[row].numpy(), "tail": tail.numpy(),
               "score": score.numpy(), "value": value}  # fmt: skip
        best = np.argsort(-value, kind="stable")[: self.number]
        new = {name: column[best] for name, column in new.items()}
        above = [int((block.scores[at] > one).sum()) for at, one in zip(row[best].tolist(), score[best], strict=True)]
        new["rank"] = np.array(above, dtype=np.int32) + 1
        fitted = block.calibration
        new["probability"] = (
            fitted.probability(torch.from_numpy(new["value"])) if fitted else np.full(len(best), np.nan)
        )
        joined = {name: np.concatenate([column, new[name].astype(_TYPES[name])]) for name, column in self.found.items()}
        order = np.argsort(-joined["value"], kind="stable")[: self.number]
        self.found = {name: column[order] for name, column in joined.items()}

    def columns(self) -> Columns:
        """What there is, the best first."""
        return self.found


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
