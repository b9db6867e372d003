"""The one evaluator: filtered ranks of every query over all entities, and the metrics made of them.

A triple (h, r, t) asks two queries: (h, r, ?) in the direction "tail" and (?, r, t) in the direction "head". All
entities are candidates, except other known answers of the same query (Bordes et al. 2013, "filtered"). The rank is
counted, never sorted for:

    optimistic  = 1 + rivals above the truth          (ties go to the truth)
    pessimistic = 1 + rivals above or equal to it     (ties go against it)
    realistic   = their mean, the expected rank when ties are broken by lot: the headline (Berrendorf et al. 2020)

Scores that are not finite never improve a rank:

    truth NaN, +inf or -inf    it ranks last among its candidates, in all three ranks
    rival NaN or +inf          it stands above a finite truth
    rival -inf                 it stands below a finite truth: the lowest score, as a model that masks a rival means it

So a model of nothing but NaN, or one that has overflowed, gets the worst ranks there are, and no gain is to be had by
returning NaN for what a model does not know. A truth's score is read from the row that holds its rivals' scores.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow.compute as pc
import torch
from torch import Tensor

from pipeline import tables
from pipeline.errors import UserError
from trainers.evaluation.metrics import summary

DIRECTIONS = ("tail", "head")  # the side that is asked for
RANKS = ("optimistic", "pessimistic", "realistic")

Score = Callable[[Tensor, Tensor, str], Tensor]  # known (B,), relation (B,), direction -> (B, E) float32
Ranks = dict[str, np.ndarray]  # one row per query: the columns of ranks.parquet except `split`

# Compared numbers visited at once. On a CPU they stay in cache between gathering, comparing and summing, which makes
# counting five times faster than whole (B, E) passes; a GPU wants enough of them to be busy.
_CPU_BLOCK = 1 << 18
_GPU_BLOCK = 1 << 23
# Entities in a block at most. Counts are summed in float32, which is exact up to 2**24.
_MOST_COLUMNS = 1 << 20
# Of the memory granted, a scorer's temporaries may need as much as its result.
_BYTES_A_SCORE = 8


class Filter(Protocol):
    """What the filter asks of `pipeline.graph.filter_index.FilterIndex`."""

    def answers(self, known: Tensor, relation: Tensor, side: str) -> tuple[Tensor, Tensor]:
        """Known answers of queries (B,): (row (M,) int64 ascending, entity (M,) int64)."""
        ...

    def to(self, device: torch.device | str) -> "Filter":
        """The same facts on another device."""
        ...


@dataclass(frozen=True)
class _Queries:
    """Triples in the order of their queries, on the device. Triple i asks distinct query `of[i]`."""

    order: np.ndarray  # (n,) int64: row of the caller's triples
    of: np.ndarray  # (n,) int64, ascending without gaps
    known: Tensor  # (Q,) int64
    relation: Tensor  # (Q,) int64
    answer: Tensor  # (n,) int64


def rank(
    score: Score,
    triples: Tensor | np.ndarray,
    known: Filter,
    *,
    entities: int,
    memory_bytes: int = 512 << 20,
    device: torch.device | str = "cpu",
    directions: tuple[str, ...] = DIRECTIONS,
) -> Ranks:
    """Filtered ranks of `triples` (n, 3) int64 in each of `directions`: one row per query, the first direction first.

    Each distinct query is scored once, however many of the triples ask it. `memory_bytes` bounds what a batch of
    scores and the counting may hold on `device`; the ranks do not depend on it.

    Returns columns of n · directions rows in the order of `triples`: head, relation, tail (int32), direction (str),
    optimistic, pessimistic (int32), realistic (float64), candidates (int32: the truth and the rivals left by the
    filter), score (float32: the truth's).

    Raises UserError if `memory_bytes` cannot hold one query, ValueError if a triple names an entity that does not
    exist or the scores have another shape than (B, E), TypeError if they are not float32.
    """
    device = torch.device(device)
    rows = torch.as_tensor(triples, dtype=torch.int64, device="cpu").reshape(-1, 3).numpy()
    if len(rows) and not 0 <= rows[:, [0, 2]].min() <= rows[:, [0, 2]].max() < entities:
        raise ValueError(f"a triple to be ranked names an entity that is not one of 0..{entities - 1}")
    batch = _batch_size(memory_bytes, entities)
    known = known.to(device)
    parts = []
    with torch.inference_mode():
        for side in directions:
            queries = _distinct(rows, side, device)
            counts = [_batch(score, queries, span, side, known, entities) for span in _spans(queries, batch)]
            parts.append(_columns(rows, side, queries.order, counts))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _batch_size(memory_bytes: int, entities: int) -> int:
    batch = memory_bytes // (_BYTES_A_SCORE * entities)
    if batch < 1:
        raise UserError(
            f"{memory_bytes >> 20:,} MiB of memory cannot hold one query's scores of {entities:,} entities; "
            f"set evaluate.memory to {(_BYTES_A_SCORE * entities >> 20) + 1:,} or more."
        )
    return batch


def _distinct(rows: np.ndarray, side: str, device: torch.device) -> _Queries:
    known, answer = (rows[:, 0], rows[:, 2]) if side == "tail" else (rows[:, 2], rows[:, 0])
    relations = rows[:, 1].max(initial=0) + 1
    keys, of = np.unique(known * relations + rows[:, 1], return_inverse=True)
    order = np.argsort(of, kind="stable")
    on_device = [torch.from_numpy(array).to(device) for array in (keys // relations, keys % relations, answer[order])]
    return _Queries(order, of[order], *on_device)


def _spans(queries: _Queries, batch: int) -> Iterator[tuple[int, int, int, int]]:
    """(first query, end query, first triple, end triple) of each batch of distinct queries."""
    distinct = len(queries.known)
    starts = np.arange(0, distinct, batch)
    ends = np.minimum(starts + batch, distinct)
    return zip(starts, ends, np.searchsorted(queries.of, starts), np.searchsorted(queries.of, ends), strict=True)


def _batch(
    score: Score, queries: _Queries, span: tuple[int, int, int, int], side: str, known: Filter, entities: int
) -> Tensor:
    """(4, triples of this batch) float64: optimistic, pessimistic, candidates, the truth's score."""
    first, end, start, stop = (int(bound) for bound in span)
    asked, relation = queries.known[first:end], queries.relation[first:end]
    scores = score(asked, relation, side)
    if scores.shape != (end - first, entities):
        raise ValueError(f"scores of {end - first} queries have the shape {tuple(scores.shape)}, not (B, {entities})")
    if scores.dtype != torch.float32:
        raise TypeError(f"scores are {scores.dtype}; ranks need float32, since coarser numbers tie where scores do not")
    of = queries.of[start:stop] - first
    block = max(1, (_CPU_BLOCK if scores.device.type == "cpu" else _GPU_BLOCK) // entities)
    out = torch.empty((4, stop - start), dtype=torch.float64, device=scores.device)
    for low in range(0, stop - start, block):
        here = of[low : low + block]
        row = torch.from_numpy(here).to(scores.device)
        answer = queries.answer[start + low : start + low + len(here)]
        truth = scores[row, answer]
        at_most, below = _count(scores, here, row, truth)
        filtered = known.answers(asked[row], relation[row], side)
        others, others_at_most, others_below = _count_known(scores, row, answer, truth, *filtered)
        candidates = entities - others
        # What is not "at most" the truth is above it or NaN; what is not "below" is that, equal, or the truth itself.
        optimistic = 1 + candidates - (at_most - others_at_most)
        pessimistic = candidates - (below - others_below)
        ranks = torch.stack([optimistic, pessimistic])
        ranks = torch.where(truth.isfinite(), ranks, candidates)
        out[:, low : low + len(here)] = torch.stack([*ranks, candidates, truth.double()])
    return out


def _count(scores: Tensor, of: np.ndarray, row: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """For each of T truths, how many scores of its row (row (T,) of scores (B, E)) are at most it, and below it."""
    one_each = of[-1] - of[0] == len(of) - 1  # rows ascend without gaps: no row comes twice, so none need be copied
    at_most, below = (torch.zeros(len(of), dtype=torch.float64, device=scores.device) for _ in range(2))
    for low in range(0, scores.shape[1], _MOST_COLUMNS):
        part = scores[:, low : low + _MOST_COLUMNS]
        part = part[int(of[0]) : int(of[-1]) + 1] if one_each else part.index_select(0, row)
        hit = torch.empty(part.shape, dtype=torch.float32, device=part.device)
        at_most += torch.le(part, truth[:, None], out=hit).sum(1)
        below += torch.lt(part, truth[:, None], out=hit).sum(1)
    return at_most, below


def _count_known(
    scores: Tensor, row: Tensor, answer: Tensor, truth: Tensor, of: Tensor, entity: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """For each of T truths: its other known answers, those of them scored at most as high as it, and those below.

    Known answers come as pairs (of (M,) in 0..T-1, ascending; entity (M,)). Their counts are taken back from those
    over all entities, which needs neither a copy of the scores nor a write into what belongs to the scorer.
    """
    other = entity != answer[of]
    theirs, mine = scores[row[of], entity], truth[of]
    bounds = torch.searchsorted(of, torch.arange(len(answer) + 1, device=of.device))

    def count(mask: Tensor) -> Tensor:  # sums over ascending groups: exact, and deterministic on a GPU too
        running = torch.nn.functional.pad(mask.cumsum(0), (1, 0))
        return running[bounds[1:]] - running[bounds[:-1]]

    return count(other), count(other & (theirs <= mine)), count(other & (theirs < mine))


def _columns(rows: np.ndarray, side: str, order: np.ndarray, counts: list[Tensor]) -> Ranks:
    """The counts of all batches, back in the order of the caller's triples, as the columns of one direction."""
    found = np.empty((4, len(rows)))
    if counts:
        found[:, order] = torch.cat(counts, dim=1).cpu().numpy()
    optimistic, pessimistic, candidates, score = found
    return {
        **{name: rows[:, column].astype(np.int32) for column, name in enumerate(("head", "relation", "tail"))},
        "direction": np.full(len(rows), side),
        "optimistic": optimistic.astype(np.int32),
        "pessimistic": pessimistic.astype(np.int32),
        "realistic": (optimistic + pessimistic) / 2,
        "candidates": candidates.astype(np.int32),
        "score": score.astype(np.float32),
    }


def metrics(ranks: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The metrics of `ranks`, shares as fractions of 1: what dev.json and test.json hold.

    At the top level: `queries`, `not_finite` (truths whose score was NaN or infinite) and, of the realistic rank in
    both directions together, every metric of `trainers.evaluation.metrics.METRICS`. The same under "optimistic" and
    "pessimistic", and of the realistic rank under "tail" and "head", the directions.

    Raises ValueError if there is no query at all.
    """
    if not len(ranks["realistic"]):
        raise ValueError("there are no queries, so there are no metrics")
    found: dict[str, object] = {
        "queries": len(ranks["realistic"]),
        "not_finite": int((~np.isfinite(ranks["score"])).sum()),
        **summary(ranks["realistic"], ranks["candidates"]),
    }
    for kind in ("optimistic", "pessimistic"):
        found[kind] = summary(ranks[kind], ranks["candidates"])
    for side in DIRECTIONS:
        mask = np.asarray(ranks["direction"]) == side
        if mask.any():
            part = summary(ranks["realistic"][mask], ranks["candidates"][mask])
            found[side] = {"queries": int(mask.sum()), **part}
    return found


def write(path: str | Path, splits: Mapping[str, Mapping[str, np.ndarray]], provenance: Mapping[str, object]) -> None:
    """Write ranks.parquet: the ranks of each split ("dev", "test"), one below the other.

    Raises UserError when the disk is full or the folder cannot be written.
    """
    with tables.TableWriter(path, "ranks", provenance) as writer:
        for split, ranks in splits.items():
            writer.write({**ranks, "split": [split] * len(ranks["realistic"])})


def read(path: str | Path, split: str | None = None) -> Ranks:
    """The columns of a ranks.parquet, with `split`; only the rows of one split if it is named.

    Raises UserError if the file is missing, damaged, no such table, or has no row of that split.
    """
    table = tables.read(path, "ranks")
    if split is not None:
        table = table.filter(pc.equal(table["split"], split))
        if not table.num_rows:
            raise UserError(f"{path} holds no ranks of the split {split!r}; evaluate that split first.")
    return {name: table[name].to_numpy(zero_copy_only=False) for name in table.column_names}
