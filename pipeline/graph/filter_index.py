"""The index of known facts: which answers of a query are already true, and whether a triple is a fact.

Evaluation filters known answers out of a ranking (Bordes et al. 2013, section 4.1, "filtered"); training filters them
out of the drawn negatives. Both ask many times, so the index is a few sorted arrays that live on any device, and a
question about a whole batch is a handful of tensor operations with no loop over its rows.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import UserError

SIDES = ("head", "tail")
_SIEVE = 64  # slots of the sieve a fact: a negative that is no fact passes it with a chance of about 1/64
_SIEVE_BITS = 26  # and never more than 2^26 slots (64 MiB)
_SPREAD = 0x9E3779B97F4A7C15 - (1 << 64)  # 2^64 / golden ratio, as a signed number: Knuth's multiplicative hashing


@dataclass(frozen=True)
class Answers:
    """Facts grouped by query: the answers of `query[i]` are `entity[offsets[i] : offsets[i + 1]]`, ascending."""

    query: Tensor  # (G,) int64, ascending: known entity * relations + relation
    offsets: Tensor  # (G + 1,) int64
    entity: Tensor  # (F,) int32

    def to(self, device: torch.device | str) -> "Answers":
        return Answers(self.query.to(device), self.offsets.to(device), self.entity.to(device))


@dataclass(frozen=True)
class KnownFacts:
    """All known facts of one graph, each counted once. Build it with `KnownFacts.build`.

    Ids given to `answers` and `contains` must lie within the graph; they are not checked there.
    """

    entities: int
    relations: int
    tails: Answers  # (h, r) -> tails
    heads: Answers  # (t, r) -> heads
    facts: Tensor  # (F,) int64, ascending: (h * relations + r) * entities + t
    sieve: Tensor  # (2^k,) bool: False where no fact hashes to

    @classmethod
    def build(cls, triples: Tensor | np.ndarray, entities: int, relations: int) -> "KnownFacts":
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
        bits = min(_SIEVE_BITS, max(6, (len(facts) * _SIEVE).bit_length()))
        sieve = torch.zeros(1 << bits, dtype=torch.bool)
        sieve[_slot(facts, 1 << bits)] = True
        return cls(entities, relations, _grouped(facts, entities), _grouped(reverse, entities), facts, sieve)

    def __len__(self) -> int:
        """Number of distinct facts."""
        return len(self.facts)

    def to(self, device: torch.device | str) -> "KnownFacts":
        """The same index on another device."""
        parts = (self.tails.to(device), self.heads.to(device), self.facts.to(device), self.sieve.to(device))
        return KnownFacts(self.entities, self.relations, *parts)

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

    def queries(self, side: str) -> tuple[Tensor, Tensor]:
        """All queries that have an answer: (known (G,) int64, relation (G,) int64), ascending."""
        query = self._side(side).query
        return query // self.relations, query % self.relations

    def contains(self, head: Tensor, relation: Tensor, tail: Tensor) -> Tensor:
        """Whether each triple is a known fact: bool, of the shape to which the three integer tensors broadcast.

        On the CPU a hashed sieve settles nearly all questions with one look-up, and only what passes it is searched
        among the sorted facts. On a GPU all are searched: picking the few would make the host wait for the device.
        """
        key = (head.long() * self.relations + relation.long()) * self.entities + tail.long()
        if not len(self.facts):
            return torch.zeros_like(key, dtype=torch.bool)
        if key.device.type != "cpu":
            return self._searched(key)
        found = self.sieve[_slot(key, len(self.sieve))]
        passed = found.nonzero(as_tuple=True)
        found[passed] = self._searched(key[passed])
        return found

    def _searched(self, key: Tensor) -> Tensor:
        place = torch.searchsorted(self.facts, key.contiguous()).clamp_(max=len(self.facts) - 1)
        return self.facts[place] == key

    def _side(self, side: str) -> Answers:
        if side not in SIDES:
            raise ValueError(f"side is {side!r}, not one of {SIDES}")
        return self.tails if side == "tail" else self.heads


def _grouped(keys: Tensor, entities: int) -> Answers:
    """Sorted distinct keys (query * entities + answer) as groups."""
    query, count = torch.unique_consecutive(torch.div(keys, entities, rounding_mode="floor"), return_counts=True)
    offsets = torch.cat([count.new_zeros(1), count.cumsum(0)])
    return Answers(query, offsets, (keys % entities).to(torch.int32))


def _slot(key: Tensor, slots: int) -> Tensor:
    """A slot of the sieve (a power of two) for each key: the top bits of the product, sign bit masked away."""
    shift = 64 - (slots.bit_length() - 1)
    return ((key * _SPREAD) >> shift) & (slots - 1)
