"""The training facts as a graph in compressed lists, read in both directions.

Relation r leads from head to tail, relation r + R back; so every question is (known, relation, ?), with 2R relations.
"""

import itertools
from functools import cached_property
from typing import TypeVar

import numpy as np
from scipy import sparse
from torch import Tensor

Ids = TypeVar("Ids", int, np.ndarray, Tensor)


class Facts:
    """Distinct edges, sorted by (source, relation, target).

    Edges of one source and one relation stand next to one another: a group. Group g is of `group_key[g]` = source · 2R
    + relation and holds the edges `group_start[g] : group_start[g + 1]`.
    """

    def __init__(self, triples: np.ndarray, entities: int, relations: int):
        """`triples` (n, 3) int64: head, relation, tail."""
        head, relation, tail = np.asarray(triples, dtype=np.int64).reshape(-1, 3).T
        rows = np.stack([np.r_[head, tail], np.r_[relation, relation + relations], np.r_[tail, head]], axis=1)
        rows = np.unique(rows, axis=0)
        self.entities, self.relations = entities, 2 * relations
        self.source, self.relation, self.target = np.ascontiguousarray(rows.T)
        keys = self.source * self.relations + self.relation
        start = np.flatnonzero(np.diff(keys, prepend=-1))
        self.group_key, self.group_start = keys[start], np.append(start, len(keys))
        self.first_group = np.searchsorted(self.group_key, np.arange(entities + 1) * self.relations)
        self.first_edge = np.searchsorted(self.source, np.arange(entities + 1))
        order = np.argsort(self.source * entities + self.target, kind="stable")
        self._pair, self._pair_relation = (self.source * entities + self.target)[order], self.relation[order]

    def back(self, relation: Ids) -> Ids:
        """The relations that lead the other way."""
        return (relation + self.relations // 2) % self.relations

    def between(self, source: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """All relations that lead from source (n,) to target (n,): (which of the n (m,), relation (m,))."""
        key = source * self.entities + target
        which, place = expand(*(np.searchsorted(self._pair, key, side) for side in ("left", "right")))
        return which, self._pair_relation[place]

    @cached_property
    def matrices(self) -> list[sparse.csr_array]:
        """For each relation (E, E) float32, 1 where it leads from the row to the column."""
        order = np.argsort(self.relation, kind="stable")
        bounds = np.searchsorted(self.relation[order], np.arange(self.relations + 1))
        found = []
        for start, stop in itertools.pairwise(bounds):
            edges = order[start:stop]
            ones = np.ones(len(edges), dtype=np.float32)
            where = (ones, (self.source[edges], self.target[edges]))
            found.append(sparse.csr_array(where, shape=(self.entities, self.entities)))
        return found

    @cached_property
    def links(self) -> sparse.csr_array:
        """(E, E) float32: how many edges lead from the row to the column, by any relation."""
        ones = np.ones(len(self.source), dtype=np.float32)
        return sparse.csr_array((ones, (self.source, self.target)), shape=(self.entities, self.entities))

    @cached_property
    def answered(self) -> sparse.csr_array:
        """(2R, E) float32: how often an entity stands as the answer of a relation."""
        ones = np.ones(len(self.relation), dtype=np.float32)
        return sparse.csr_array((ones, (self.relation, self.target)), shape=(self.relations, self.entities))

    @cached_property
    def has(self) -> sparse.csr_array:
        """(2R, E) float32: 1 where an entity has an edge of a relation."""
        source, relation = self.group_key // self.relations, self.group_key % self.relations
        ones = np.ones(len(source), dtype=np.float32)
        return sparse.csr_array((ones, (relation, source)), shape=(self.relations, self.entities))

    @cached_property
    def askers(self) -> list[np.ndarray]:
        """For each relation the entities that have it, ascending."""
        return np.split(self.has.indices, self.has.indptr[1:-1])

    @cached_property
    def degree(self) -> np.ndarray:
        """(E,) int64: edges that leave an entity, which are as many as arrive."""
        return np.diff(self.first_edge)


def expand(first: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whole numbers of the ranges [first, last) (n,) each, end to end: (which range (m,), number (m,))."""
    length = last - first
    which = np.repeat(np.arange(len(first)), length)
    shift = first - (np.cumsum(length) - length)
    return which, np.arange(len(which)) + shift[which]
