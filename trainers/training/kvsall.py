"""KvsAll training (Dettmers et al., 2018, arXiv 1707.01476): each distinct query (h, r) with all its answers at once.

Reciprocal relations make both directions the same: (h, r, t) also stands as (t, r + R, h).
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.graph.rows import ordered
from trainers.kernels import bce
from trainers.matmul import add_product, set_product
from trainers.training import learner, prefetch, processes
from trainers.training.data import Data
from trainers.training.prefetch import moved
from trainers.training.sampling import without_repetition

SMOOTHING = 0.1  # labels are 0.9 y + 1/E, as in ConvE's and MoMoK's code
BLOCK = 1 << 20  # logits computed at a time on the CPU: 4 MB, which stay in cache between the passes over them
BLOCK_CUDA = 1 << 27


@dataclass(frozen=True)
class Batch:
    """Queries with all their known answers, sorted by relation. All fields are tensors: it moves to a device whole."""

    known: Tensor  # (B,) int64
    relation: Tensor  # (B,) int64, 0 … 2R − 1
    distinct: Tensor  # (U,) int64: the distinct relations, ascending
    index: Tensor  # (B,) int64: relation = distinct[index]
    row: Tensor  # (M,) int64: which query …
    answer: Tensor  # (M,) int64: … has which answer
    answers: Tensor  # (A,) int64: the distinct answers, ascending
    answer_index: Tensor  # (M,) int64: answer = answers[answer_index]

    def to(self, device: torch.device) -> "Batch":
        return Batch(**{f.name: moved(getattr(self, f.name), device) for f in fields(self)})


class Queries:
    """All distinct queries (h, r), reciprocal ones included, with their answers as a compressed list."""

    def __init__(self, triples: Tensor, entities: int, relations: int):
        head, relation, tail = triples.numpy().T
        rows = np.stack(
            [np.r_[relation, relation + relations], np.r_[head, tail], np.r_[tail, head]], axis=1
        )  # relation first, so that ids order queries by relation
        rows = ordered(rows)
        keys, first = np.unique(rows[:, 0] * entities + rows[:, 1], return_index=True)
        self.relation, self.known = np.divmod(keys, entities)
        self.offsets = np.append(first, len(rows))
        self.answer = np.ascontiguousarray(rows[:, 2])

    def __len__(self) -> int:
        return len(self.known)

    def batch(self, ids: np.ndarray) -> Batch:
        """The queries `ids` as one batch, in ascending order (which is by relation)."""
        ids = np.sort(ids)
        counts = self.offsets[ids + 1] - self.offsets[ids]
        row = np.repeat(np.arange(len(ids)), counts)
        start = np.repeat(self.offsets[ids] - (np.cumsum(counts) - counts), counts)
        answer = self.answer[start + np.arange(len(row))]
        distinct, index = np.unique(self.relation[ids], return_inverse=True)
        answers, answer_index = np.unique(answer, return_inverse=True)
        return Batch(
            *map(
                torch.from_numpy,
                (self.known[ids], self.relation[ids], distinct, index, row, answer, answers, answer_index),
            )
        )

    def batches(self, batch_size: int, seed: tuple[int, ...], device: torch.device) -> Iterator[Batch]:
        """All queries in an order that `seed` alone decides; the last batch may be smaller, but never a single query.

        (A batch of one has no variance, and every scorer here normalises over the batch.)
        """
        return prefetch.ahead(self._batches(batch_size, seed, device), device)

    def _batches(self, batch_size: int, seed: tuple[int, ...], device: torch.device) -> Iterator[Batch]:
        order = np.random.default_rng(seed).permutation(len(self))
        steps = self.steps(batch_size)
        for step in range(steps):
            ids = (
                order[step * batch_size :] if step == steps - 1 else order[step * batch_size : (step + 1) * batch_size]
            )
            yield self.batch(ids).to(device)

    def steps(self, batch_size: int) -> int:
        """How many batches that makes."""
        return -(-max(len(self) - 1, 1) // batch_size)


class QueryLearner(learner.Learner):
    """A learner whose batches are queries with all their known answers."""

    def __init__(self, model: nn.Module, data: Data, settings: Any, **run: Any):
        super().__init__(model, data, settings, **run)
        self.queries = Queries(data.train, data.entities, data.relations)

    @property
    def steps_per_epoch(self) -> int:
        return self.queries.steps(self.settings.batch_size)

    def batches(self, epoch: int) -> Iterator[Batch]:
        return self.queries.batches(self.settings.batch_size, (self.seed, epoch), self.device)


@dataclass(frozen=True)
class Candidates:
    """What a batch's queries are compared with. With several processes: this one's part of it."""

    entity: Tensor | None  # (C,) int64: the drawn ones, then the batch's answers; None: all entities, in order
    row: Tensor  # (M,) int64: which query …
    answer: Tensor  # (M,) int64: … has which candidate as a known answer
    sampled: int | None  # how many of the first were drawn; None: none, all entities stand there
    drawn: Tensor | None  # (n,) int64: those that all processes have drawn together


def draw_candidates(batch: Batch, entities: int, size: int | None) -> Candidates:
    """All entities, or `size` of them drawn anew; of these each process takes a part, and their losses add up.

    The queries are the same in all processes, so that what normalises over the batch sees the whole batch.
    """
    device = batch.known.device
    if size is None or size >= entities:
        if not processes.together():
            return Candidates(None, batch.row, batch.answer, None, None)
        part = processes.part_of(entities)
        pairs, answer = _within(part, batch.answer)
        return Candidates(torch.arange(part.start, part.stop, device=device), batch.row[pairs], answer, None, None)
    drawn = without_repetition(entities, size, device=device)
    if not processes.together():
        return Candidates(torch.cat([drawn, batch.answers]), batch.row, size + batch.answer_index, size, drawn)
    chosen, mine = drawn[processes.part_of(size)], processes.part_of(len(batch.answers))
    pairs, answer = _within(mine, batch.answer_index)
    entity = torch.cat([chosen, batch.answers[mine]])
    return Candidates(entity, batch.row[pairs], len(chosen) + answer, len(chosen), drawn)


def _within(part: slice, number: Tensor) -> tuple[Tensor, Tensor]:
    """Which of `number` (M,) lie in the part, (M,) bool, and where in it these stand."""
    there = (number >= part.start) & (number < part.stop)
    return there, number[there] - part.start


def link_loss(
    query: Tensor,
    candidates: Tensor,
    row: Tensor,
    answer: Tensor,
    *,
    entities: int | Tensor,
    sampled: int | None = None,
    drawn: int | Tensor | None = None,
    rows: Tensor | None = None,
    columns: Tensor | None = None,
    smoothing: float = SMOOTHING,
) -> Tensor:
    """Mean binary cross entropy of σ(query · candidate) against the smoothed labels (1 − ε) y + 1/E, 0-d.

    With logits x, a pair costs softplus(x) − x y', so the loss needs no label matrix:
    Σ_all [softplus(x) − x/E] − (1 − ε) Σ_known x, over the number of pairs. `smoothing` ε; 0 leaves out the 1/E too.

    Shapes: `query` (B, D), `candidates` (C, D), known pairs `row` (M,), `answer` (M,), a row of `candidates` each.
    `entities` is E, the number of candidates there are. `sampled` n: the first n rows of `candidates` are a uniform
    sample of them without repetition; E/n times the sum over the sample then estimates the sum over all, without bias.
    `drawn` stands for n if these rows are only a part of the sample.
    `rows` (B,), `columns` (C,) bool leave queries and candidates out; `entities` must not count those.
    """
    rows = torch.ones(len(query), device=query.device) if rows is None else rows.float()
    columns = torch.ones(len(candidates), device=query.device) if columns is None else columns.float()
    weight = None  # how many entities one that was drawn stands for
    if sampled is not None:
        weight = entities / (columns[:sampled].sum().clamp(min=1.0) if drawn is None else drawn)
    return _LinkLoss.apply(query, candidates, row, answer, entities, sampled, weight, rows, columns, smoothing)


class _LinkLoss(torch.autograd.Function):
    """Loss and gradients in one pass over blocks of candidates, so that the (B, C) logits never exist whole."""

    @staticmethod
    def forward(ctx, query, candidates, row, answer, entities, sampled, weight, rows, columns, smoothing):
        compute = _precision(query)
        d_query = torch.zeros_like(query, dtype=torch.float32)
        d_candidates = torch.empty_like(candidates, dtype=torch.float32)
        on_cpu = query.device.type == "cpu"
        loss = torch.zeros((), dtype=torch.float64 if on_cpu else torch.float32, device=query.device)
        pair = rows / (rows.sum() * entities).clamp(min=1.0)  # one pair's share of the mean
        known = (1 - smoothing) * pair[row] * columns[answer]
        counted = len(candidates) if sampled is None else sampled
        even = 1.0 / entities if smoothing else 0.0
        if sampled is not None:
            pair = pair * weight
        d_candidates[counted:] = 0
        left, right = query.to(compute), candidates.to(compute)
        step = max(1, (BLOCK if on_cpu else BLOCK_CUDA) // len(query))
        for start in range(0, counted, step):
            stop = min(start + step, counted)
            slope = (left @ right[start:stop].T).float()
            loss += bce.cost_and_slope_(slope, pair, columns[start:stop], even)
            slope = slope.to(compute)
            add_product(d_query, slope, right[start:stop])
            set_product(d_candidates[start:stop], slope.T, left)
        q, c = query[row].float(), candidates[answer].float()
        loss -= ((q * c).sum(1) * known).sum()
        d_query.index_add_(0, row, c * -known.unsqueeze(1))
        d_candidates.index_add_(0, answer, q * -known.unsqueeze(1))
        ctx.save_for_backward(d_query, d_candidates)
        ctx.dtypes = query.dtype, candidates.dtype
        return loss.float()

    @staticmethod
    def backward(ctx, gradient):
        slopes = zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        # In place: nothing else holds them, and a second backward pass would raise, since they were changed.
        return *(slope.mul_(gradient).to(dtype) for slope, dtype in slopes), *[None] * 8


@contextlib.contextmanager
def seeded(generator: torch.Generator) -> Iterator[None]:
    """torch's global CPU generator continues from `generator` within, and from where it was after it."""
    seed = int(torch.randint(1 << 62, (), generator=generator))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _precision(like: Tensor) -> torch.dtype:
    kind = like.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else torch.float32
