"""1-vs-all training (Lacroix et al. 2018, arXiv 1806.07297): cross entropy of each answer among all entities.

Every triple asks for its tail and, by relations below 2R from R on, for its head. Triples that share a query share its
row of scores. The scores become their own gradient block by block, so that memory holds a block of them and no more.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trainers.training import prefetch, processes
from trainers.training.prefetch import on_device
from trainers.training.sampling import counts, without_repetition

BLOCK = {"cpu": 1 << 22, "cuda": 1 << 27}  # scores made at a time: 16 MB, which malloc keeps between steps


@dataclass(frozen=True)
class Candidates:
    """What the queries of a batch are compared with where that is not all entities."""

    entity: Tensor  # (C,) int64 ascending: the batch's answers and those that were drawn
    offset: Tensor  # (C,) float32: how many entities each stands for, as a logarithm
    answer: Tensor  # (M,) int64: the pairs' answers as places in `entity`


@dataclass(frozen=True)
class ByRelation:
    """Rows, those of a relation together. What has a size or a number of its own stands on the host."""

    order: Tensor  # (n,) int64: the rows by their relations, ascending
    back: Tensor  # (n,) int64: where in that order each row stands
    relations: tuple[int, ...]  # the distinct ones, ascending, …
    counts: tuple[int, ...]  # … and how many rows each has

    @classmethod
    def of(cls, relation: np.ndarray) -> "ByRelation":
        """Rows of `relation` (n,)."""
        order = np.argsort(relation, kind="stable")
        distinct, counts = np.unique(relation, return_counts=True)
        back = np.argsort(order)
        return cls(torch.from_numpy(order), torch.from_numpy(back), tuple(distinct.tolist()), tuple(counts.tolist()))


@dataclass(frozen=True)
class Batch:
    """Queries, and pairs of a query with one of its answers."""

    known: Tensor  # (B,) int64
    relation: Tensor  # (B,) int64, 0 … 2R − 1
    row: Tensor  # (M,) int64 ascending: which query …
    answer: Tensor  # (M,) int64: … has which answer
    pairs: int  # M of the whole batch, of which other processes may hold a part
    starts: tuple[int, ...]  # (B + 1): where in `row` each query's pairs begin, on the host
    candidates: Candidates | None = None  # None: all entities
    queries_by_relation: ByRelation | None = None  # the queries and the pairs by relation, …
    pairs_by_relation: ByRelation | None = None  # … for models that ask for it


def in_both_directions(triples: Tensor, relations: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Known, relation and answer (2n,) each of (n, 3) triples: all tails are asked for, then all heads."""
    head, relation, tail = triples.cpu().numpy().T
    return np.r_[head, tail], np.r_[relation, relation + relations], np.r_[tail, head]


class Rows:
    """The training triples in both directions, as queries with up to `answers_per_row` of their answers."""

    def __init__(self, triples: Tensor, entities: int, relations: int, answers_per_row: int):
        self.known, self.relation, self.answer = in_both_directions(triples, relations)
        self.query = np.unique(self.relation * entities + self.known, return_inverse=True)[1]
        self.entities, self.answers_per_row = entities, answers_per_row
        self.rows = int((-(-np.bincount(self.query, minlength=1) // answers_per_row)).sum())

    def steps(self, batch_size: int) -> int:
        """How many batches of `batch_size` rows an epoch has."""
        return math.ceil(self.rows / batch_size)

    def batches(
        self, batch_size: int, seed: tuple[int, ...], device: torch.device, *, candidates: int | None = None,
        by_relation: bool = False,
    ) -> Iterator[Batch]:  # fmt: skip
        """All rows in an order, and with answers grouped in a way, that `seed` alone decides.

        Each with so many `candidates` drawn anew, where there are more entities, and sorted `by_relation` on wish.
        """
        size = candidates if candidates is not None and candidates < self.entities else None
        chosen = prefetch.draws(seed, device)

        def whole() -> Iterator[Batch]:
            for known, relation, row, answer, pairs in self._arrays(batch_size, seed):
                starts = np.searchsorted(row, np.arange(len(known) + 1))
                asked = torch.from_numpy(known), torch.from_numpy(relation)
                told = torch.from_numpy(row), torch.from_numpy(answer)
                batch = Batch(
                    *asked, *told, pairs, tuple(starts.tolist()),
                    None if size is None else draw_candidates(answer, self.entities, size, chosen),
                    ByRelation.of(relation) if by_relation else None,
                    ByRelation.of(relation[row]) if by_relation else None,
                )  # fmt: skip
                yield on_device(batch, device)

        return prefetch.ahead(whole(), device)

    def _arrays(
        self, batch_size: int, seed: tuple[int, ...]
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int]]:
        """Known, relation, row, answer and pairs of each batch, as in `Batch`."""
        generator = np.random.default_rng(seed)
        order = generator.permutation(len(self.query))
        order = order[np.argsort(self.query[order], kind="stable")]
        query = self.query[order]
        first = np.r_[True, query[1:] != query[:-1]]
        place = np.arange(len(query)) - np.maximum.accumulate(np.where(first, np.arange(len(query)), 0))
        row = np.cumsum(first | (place % self.answers_per_row == 0)) - 1
        starts = np.append(np.searchsorted(row, np.arange(self.rows)), len(row))
        for ids in np.array_split(generator.permutation(self.rows), self.steps(batch_size)):
            own = processes.part_of(len(ids))  # the parts' losses add up, so no row may be in two
            counts = starts[ids + 1] - starts[ids]
            pairs, ids, counts = int(counts.sum()), ids[own], counts[own]
            of = np.repeat(np.arange(len(ids)), counts)
            offset = np.arange(len(of)) - np.repeat(np.cumsum(counts) - counts, counts)
            triple, leading = order[starts[ids][of] + offset], order[starts[ids]]
            yield self.known[leading], self.relation[leading], of, self.answer[triple], pairs


def draw_candidates(answer: np.ndarray, entities: int, size: int, generator: torch.Generator | None) -> Candidates:
    """The answers (M,) of a batch and `size` entities drawn anew, from `generator` or torch's own; on the CPU.

    An entity that was drawn stands for all that are no answers here: Σ_c weight_c exp s_c then estimates the sum over
    all entities without bias (Bengio and Senécal 2008, section 3).
    """
    answers = np.unique(answer)
    others = np.setdiff1d(without_repetition(entities, size, generator).numpy(), answers)
    entity = np.union1d(answers, others)
    offset = np.zeros(len(entity), np.float32)
    offset[np.searchsorted(entity, others)] = math.log(max(1, entities - len(answers)) / max(1, len(others)))
    return Candidates(*map(torch.from_numpy, (entity, offset, np.searchsorted(entity, answer))))


def cross_entropy(
    query: Tensor, answers: Tensor, row: Tensor, answer: Tensor, *, pairs: int, starts: Sequence[int],
    smoothing: float = 0.0, euclidean: bool = False, offset: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """1/pairs · Σ_m [log Σ_e exp s(row_m, e) − s(row_m, answer_m)], 0-d float32, differentiable in the first two.

    `query` (B, D) and `answers` (E, D) make the scores s (B, E): inner products or, if `euclidean`, negative distances.
    Pairs `row` (M,) ascending, those of each query from `starts` (B + 1) on, `answer` (M,). `smoothing` ε spreads that
    share of each target evenly over all entities.
    `offset` (E,), if given, is added to every row of scores. Products are computed in autocast's precision.
    """
    return _CrossEntropy.apply(query, answers, row, answer, pairs, starts, smoothing, euclidean, offset)


class _CrossEntropy(torch.autograd.Function):
    """Forward computes the gradients too; backward only scales them."""

    @staticmethod
    def forward(ctx, query, answers, row, answer, pairs, starts, smoothing, euclidean, offset):
        kind = query.device.type
        compute = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else torch.float32
        ctx.dtypes = query.dtype, answers.dtype
        left, right = query.to(compute), answers.to(compute)
        d_query, d_answers = torch.empty_like(left), torch.zeros(right.shape, device=right.device)
        weight = counts(row, len(query)) / pairs
        cost = torch.zeros((), dtype=torch.float64 if kind == "cpu" else torch.float32, device=query.device)
        rows = max(1, BLOCK.get(kind, BLOCK["cpu"]) // len(answers))
        for first in range(0, len(query), rows):
            part = slice(first, min(first + rows, len(query)))
            begin, end = starts[part.start], starts[part.stop]
            scores, distance = _scores(left[part], right, euclidean)
            if offset is not None:
                scores += offset
            pair = row[begin:end] - part.start, answer[begin:end]
            paid, slope = _cost_and_slope(scores, weight[part], pair, 1 / pairs, smoothing)
            cost += paid
            _add_gradients(slope, distance, left[part], right, d_query[part], d_answers)
        ctx.save_for_backward(d_query, d_answers)
        return cost.float()

    @staticmethod
    def backward(ctx, gradient):
        slopes = zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        # In place: nothing else holds them, and a second backward pass would raise, since they were changed.
        return *(slope.mul_(gradient).to(dtype) for slope, dtype in slopes), *[None] * 7


def _scores(query: Tensor, answers: Tensor, euclidean: bool) -> tuple[Tensor, Tensor | None]:
    """(b, E) float32 scores and, if they are negative distances, the distances, kept off zero."""
    product = (query @ answers.T).float()
    if not euclidean:
        return product, None
    sizes = query.float().square().sum(1)[:, None] + answers.float().square().sum(1)
    distance = product.mul_(-2).add_(sizes).clamp_(min=1e-6).sqrt_()
    return -distance, distance


def _cost_and_slope(
    scores: Tensor, weight: Tensor, pair: tuple[Tensor, Tensor], share: float, smoothing: float
) -> tuple[Tensor, Tensor]:
    """The rows' cost, 0-d, and its gradient by their scores (b, E); `weight` (b,): a row's pairs · share."""
    slope = torch.softmax(scores, dim=1)
    # log Σ exp s: from the largest score, whose probability is never too small for a logarithm.
    total = scores.amax(1) - slope.amax(1).log()
    known = (1 - smoothing) * share
    cost = (weight * total).sum() - known * scores[pair].sum()
    slope *= weight[:, None]
    slope.index_put_(pair, slope.new_full((), -known), accumulate=True)  # a number that is copied would be waited for
    if smoothing:
        even = smoothing * weight / scores.shape[1]
        cost -= (even * scores.sum(1)).sum()
        slope -= even[:, None]
    return cost, slope


def _add_gradients(
    slope: Tensor, distance: Tensor | None, query: Tensor, answers: Tensor, d_query: Tensor, d_answers: Tensor
) -> None:
    """Set a block's gradient by its queries, and add to that by the answers."""
    if distance is not None:  # of −|q − e|: (e − q) / |q − e| by q, and the opposite by e
        slope = slope / distance
    low = slope.to(answers.dtype)
    torch.mm(low, answers, out=d_query)
    if low.dtype == torch.float32:
        d_answers.addmm_(low.T, query)
    else:
        d_answers += low.T @ query
    if distance is not None:
        d_query -= (slope.sum(1, keepdim=True) * query).to(d_query.dtype)
        d_answers -= slope.sum(0).unsqueeze(1) * answers.float()
