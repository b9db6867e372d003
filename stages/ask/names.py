"""What is offered while a question is typed: entities by what their names hold, the relations that suit one first."""

import bisect
import heapq
from collections import Counter
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from trainers.answers.ask import World

OFFERED = 12
_SCANNED = 5000  # names with the same start that are compared
_FEWEST_LETTERS = 3  # from which on names are offered that only hold what was typed: it takes a look at each


@dataclass(frozen=True)
class Offer:
    """A name that is understood as it stands, and what it is."""

    name: str
    says: str


@dataclass(frozen=True)
class Offers:
    """The relations that are offered for an entity: those that suit it, best first, and all others."""

    likely: list[Offer]
    others: list[Offer]


class TypeAhead:
    """Finds entities by names; of many the ones with most facts come first."""

    def __init__(self, world: World):
        self.names = world.entities
        self.degree = _degrees(world)
        levels = self.names.levels[len(self.names.levels) // 2 :]  # keys, labels and aliases in lower case
        self.folded = sorted((name, one) for level in levels for name, ids in level.items() for one in ids)
        self._times = Counter(label.casefold() for label in self.names.label)

    def __call__(self, typed: str, most: int = OFFERED) -> list[Offer]:
        """Offers for what was typed: names that start with it, then names that hold it."""
        typed = typed.strip().casefold()
        if not typed:
            return []
        start = bisect.bisect_left(self.folded, (typed, -1))
        found: dict[int, None] = {}
        beginning = []
        for name, entity in self.folded[start : start + _SCANNED]:
            if not name.startswith(typed):
                break
            beginning.append((name != typed, -self.degree[entity], entity))
        found.update((entity, None) for *_, entity in heapq.nsmallest(2 * most, beginning))
        if len(found) < most and len(typed) >= _FEWEST_LETTERS:
            word = f" {typed}"  # what begins a word goes before what stands within one
            within = ((word not in name, -self.degree[one], one) for name, one in self.folded if typed in name)
            found.update((entity, None) for *_, entity in heapq.nsmallest(2 * most, within))
        return [self.offer(entity) for entity in list(found)[:most]]

    def offer(self, entity: int) -> Offer:
        """An entity by its label, or by its key if the label is the name of several."""
        label, key = self.names.label[entity], self.names.key[entity]
        alone = self._times[label.casefold()] == 1 and self.names.levels[0].get(label, [entity]) == [entity]
        said = (self.names.description[entity] or "").strip()
        return Offer(label if alone else key, said if alone else f"{label}: {said}".rstrip(": "))


class Plausible:
    """Which relations suit an entity: those that train facts of entities with the same relations have.

    Entity e has the properties P(e), (relation, side) pairs of its train facts. A property q suits it by the mean over
    its properties p of the share of entities with p that have q too; its own ones come first.
    """

    def __init__(self, world: World):
        self.relations = world.relations
        count, number = len(world.entities.key), len(world.relations.key)
        columns = []
        for side, offset in (("tail", 0), ("head", number)):
            query = (world.facts["train"].tails if side == "tail" else world.facts["train"].heads).query.numpy()
            columns.append((query // number, query % number + offset))
        row, column = (np.concatenate(parts) for parts in zip(*columns, strict=True))
        self.has = sp.csr_matrix((np.ones(len(row)), (row, column)), shape=(count, 2 * number))
        together = (self.has.T @ self.has).tocsr()
        self.share = sp.diags(1 / np.maximum(1.0, together.diagonal())) @ together

    def __call__(self, entity: int | None, side: str) -> Offers:
        """The relations of which `entity` may be the known end, of questions for the `side`."""
        number = len(self.relations.key)
        order = np.argsort([label.casefold() for label in self.relations.label], kind="stable").tolist()
        if entity is None:
            return Offers([], [self.offer(one) for one in order])
        own = self.has[[entity]]
        part = slice(0, number) if side == "tail" else slice(number, 2 * number)
        scores = (own @ self.share).toarray()[0, part] / max(1, own.nnz)
        has = own.toarray()[0, part] > 0
        likely = sorted((one for one in order if scores[one] > 0), key=lambda one: (not has[one], -scores[one]))
        return Offers([self.offer(one) for one in likely], [self.offer(one) for one in order if not scores[one]])

    def offer(self, relation: int) -> Offer:
        """A relation by its key, which is never the name of two."""
        return Offer(self.relations.key[relation], self.relations.label[relation])


def _degrees(world: World) -> list[int]:
    """How many train queries each entity is the known end of."""
    number = len(world.relations.key)
    counts = np.zeros(len(world.entities.key), dtype=np.int64)
    for ends in (world.facts["train"].tails, world.facts["train"].heads):
        np.add.at(counts, ends.query.numpy() // number, 1)
    return counts.tolist()
