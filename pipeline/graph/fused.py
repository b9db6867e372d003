"""Entities that cannot be one thing: two of the world's things under one name, found from train alone.

In DB15K "16 Blocks", a film, has instruments and a record label, and "Auburn, New York" has members of a band. What a
thing is shows in the relations that it is the head of. Two relations *meet* if at least `MEET` of the entities that
have the rarer one have both, and are *strangers* if at most `STRANGERS` do; relations of fewer than `LEAST` entities
are not judged. An entity is fused if it has two relations that meet one another, and two more that meet one another,
and each of the first two is a stranger to each of the other two. The entity itself is not counted when its relations
are judged; those found are left out, and the counting is repeated until nothing new is found.

What it cannot see: two things of one kind (two films), and a thing of which train says less than two relations. The
rule has no source; its false alarms on DB15K are counted in docs/fused.md.
"""

from dataclasses import dataclass

import numpy as np
from scipy import sparse

MEET = 0.1
STRANGERS = 0.03
LEAST = 10
ROUNDS = 20
BLOCK = 1 << 22  # numbers of a product that are held at a time


@dataclass(frozen=True)
class Fused:
    """One entity, and relations of the two things that it seems to be; ids."""

    entity: int
    one: tuple[int, int]
    other: tuple[int, int]


def fused(train: np.ndarray, entities: int, relations: int) -> list[Fused]:
    """The fused entities, by id. `train` (n, 3) holds (head, relation, tail)."""
    has = sparse.csr_array(
        (np.ones(len(train)), (train[:, 0].astype(np.int64), train[:, 1].astype(np.int64))), shape=(entities, relations)
    )
    has.sum_duplicates()
    has.data[:] = 1
    has.sort_indices()
    found: dict[int, Fused] = {}
    for _ in range(ROUNDS):
        new = _one_round(has, found)
        if not new:
            break
        found |= new
    return [found[entity] for entity in sorted(found)]


def _one_round(has: sparse.csr_array, found: dict[int, Fused]) -> dict[int, Fused]:
    """Who is fused and not in `found`, counted without those in `found`."""
    kept = np.ones(has.shape[0], dtype=bool)
    kept[list(found)] = False
    counted = has[kept]
    together = (counted.T @ counted).toarray()
    alone = together.diagonal().copy()
    least = np.minimum.outer(alone, alone)
    # With the entity itself taken away from both sides, one that is alone in having two relations joins strangers.
    strange = (least >= LEAST) & (together - 1 <= STRANGERS * (least - 1))
    new = {}
    for entity in np.flatnonzero(_joins(has, strange) & kept):
        own = has.indices[has.indptr[entity] : has.indptr[entity + 1]]
        own = own[alone[own] >= LEAST]
        grid = np.ix_(own, own)
        pairs = _parted(together[grid] - 1, least[grid] - 1)
        if pairs is not None:
            (a, b), (c, d) = pairs
            new[int(entity)] = Fused(int(entity), (int(own[a]), int(own[b])), (int(own[c]), int(own[d])))
    return new


def _joins(has: sparse.csr_array, strange: np.ndarray) -> np.ndarray:
    """(E,) whether an entity has two relations that are strangers."""
    dense, found = strange.astype(np.float32), np.zeros(has.shape[0], dtype=bool)
    rows = max(1, BLOCK // max(1, has.shape[1]))  # most relations are strangers, so the product is nearly full
    for first in range(0, has.shape[0], rows):
        part = has[first : first + rows]
        found[first : first + rows] = np.asarray(part.multiply(part @ dense).sum(axis=1)).ravel() > 0
    return found


def _parted(together: np.ndarray, least: np.ndarray) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """Two pairs of places, each of relations that meet, all of one being strangers to all of the other; None: none."""
    strange, meet = together <= STRANGERS * least, together >= MEET * least
    np.fill_diagonal(strange, False)
    first, second = np.nonzero(np.triu(meet, 1))
    to_both = strange[first] & strange[second]  # (pairs, relations)
    hits = np.argwhere(to_both[:, first] & to_both[:, second])
    if not len(hits):
        return None
    p, q = hits[0]
    return (int(first[p]), int(second[p])), (int(first[q]), int(second[q]))
