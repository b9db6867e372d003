"""The filter index: which answers of a query are known facts.

Evaluation filters known answers out of a ranking (Bordes et al. 2013, section 4.1, "filtered"). It
asks many times, so the index is a few sorted arrays that live on any device, and a question about a whole batch takes a
handful of tensor operations and no loop over its rows.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import UserError

SIDES = ("head", "tail")


@dataclass(frozen=True)
class Answers:
    """Facts grouped by query: the answers of `query[i]` are `entity[offsets[i] : offsets[i + 1]]`, ascending."""

    query: Tensor  # (G,) int64, ascending: known entity * relations + relation
    offsets: Tensor  # (G + 1,) int64
    entity: Tensor  # (F,) int32

    def to(self, device: torch.device | str) -> "Answers":
        return Answers(self.query.to(device), self.offsets.to(device), self.entity.to(device))


@dataclass(frozen=True)
class FilterIndex:
    """The known facts of one graph, each counted once. Build it with `FilterIndex.build`.

    Ids given to `answers` must lie within the graph; they are not checked.
    """

    entities: int
    relations: int
    tails: Answers  # (h, r) -> tails
    heads: Answers  # (t, r) -> heads

    @classmethod
    def build(cls, triples: Tensor | np.ndarray, entities: int, relations: int) -> "FilterIndex":
        """Index `triples` (n, 3) of head, relation, tail; repeated rows count once. The index lies on the CPU.

        Raises UserError if an id lies outside the graph, or the graph is too large for 64-bit keys.
        """
        triples = torch.as_tensor(triples).to(device="cpu", dtype=torch.int64).reshape(-1, 3)
        if entities * entities * relations >= 1 << 63:
            raise UserError(f"{entities} entities and {relations} relations do not fit the 64-bit keys of the index.")
        bound = torch.tensor([entities, relations, entities])
        wrong = ((triples < 0) | (triples >= bound)).any(dim=1)
        if wrong.any():
            row = int(wrong.nonzero()[0])
            raise UserError(
                f"Triple {row} is {tuple(triples[row].tolist())}, outside a graph of {entities} entities and "
                f"{relations} relations; ingest the graph again."
            )
        head, relation, tail = triples.unbind(dim=1)
        facts = torch.unique((head * relations + relation) * entities + tail)
        reverse = torch.unique((tail * relations + relation) * entities + head)
        return cls(entities, relations, _grouped(facts, entities), _grouped(reverse, entities))

    def __len__(self) -> int:
        """Number of distinct facts."""
        return len(self.tails.entity)

    def to(self, device: torch.device | str) -> "FilterIndex":
        """The same index on another device."""
        return FilterIndex(self.entities, self.relations, self.tails.to(device), self.heads.to(device))

    def answers(self, known: Tensor, relation: Tensor, side: str) -> tuple[Tensor, Tensor]:
        """The known answers of B queries: side "tail" asks (known, relation, ?), "head" asks (?, relation, known).

        known, relation: (B,) of any integer type, on the index's device. Returns (row (M,) int64, entity (M,) int64):
        entity[i] is a known answer of query row[i]; rows ascend, and within a row the entities ascend.
        """
        index = self._side(side)
        query = known.long() * self.relations + relation.long()
        if not len(index.query):
            return query.new_zeros(0), query.new_zeros(0)
        group = torch.searchsorted(index.query, query).clamp_(max=len(index.query) - 1)
        start = index.offsets[group]
        length = torch.where(index.query[group] == query, index.offsets[group + 1] - start, 0)
        row = torch.repeat_interleave(length)
        shift = start - (length.cumsum(0) - length)
        place = torch.arange(len(row), device=row.device) + shift[row]
        return row, index.entity[place].long()

    def _side(self, side: str) -> Answers:
        if side not in SIDES:
            raise ValueError(f"side is {side!r}, not one of {SIDES}")
        return self.tails if side == "tail" else self.heads


def _grouped(keys: Tensor, entities: int) -> Answers:
    """Sorted distinct keys (query * entities + answer) as groups."""
    query, count = torch.unique_consecutive(torch.div(keys, entities, rounding_mode="floor"), return_counts=True)
    offsets = torch.cat([count.new_zeros(1), count.cumsum(0)])
    return Answers(query, offsets, (keys % entities).to(torch.int32))
