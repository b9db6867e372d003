"""Perturbations of a graph, for studies: pure functions Data -> Data, each drawn from a seed alone.

A `Change` names one of them with its arguments, so that a run's fingerprint can carry it. All are nested where they
have a strength: with one seed, what a share of 0.2 takes away a share of 0.4 takes away too, so that a curve over the
shares shows the shares and not the draws. Strength 0 returns what was given. Nothing here touches dev or test.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar, overload

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import UserError
from trainers.training.data import Data, Features, Tokens

Table = TypeVar("Table", Features, Tokens)


@dataclass(frozen=True)
class Change:
    """One perturbation: a function in `CHANGES` by name, its strength, its seed, and the modalities it is done to."""

    name: str
    strength: float
    seed: int = 0
    of: tuple[str, ...] = ()

    def __call__(self, data: Data) -> Data:
        """`data` changed. Raises UserError if the name is unknown or the strength is out of bounds."""
        if self.name not in CHANGES:
            raise UserError(f"There is no perturbation {self.name!r}; known: {', '.join(CHANGES)}.")
        return CHANGES[self.name](data, self)


def missing(data: Data, change: Change) -> Data:
    """Take the modalities `of` away from a share of all entities, the same entities for each of them."""
    gone = torch.zeros(data.entities, dtype=torch.bool)
    gone[_first(data.entities, change)] = True
    return _mapped(data, change.of, lambda one: keep(one, ~gone[one.entity]))


def feature_noise(data: Data, change: Change) -> Data:
    """Add normal noise to every feature; strength is its deviation, in units of each dimension's own over entities."""
    _check(change, most=None)

    def noisy(one: Features) -> Features:
        if not len(one.matrix):
            return one
        draw = torch.randn(one.matrix.shape, generator=torch.Generator().manual_seed(change.seed))
        return Features(one.entity, one.matrix + change.strength * one.matrix.std(0, unbiased=False) * draw)

    features = {name: noisy(one) if name in change.of else one for name, one in data.features.items()}
    return replace(data, features=features)


def token_noise(data: Data, change: Change) -> Data:
    """Replace a share of all tokens, each by another row of the codebook, all others equally likely."""
    _check(change)

    def noisy(one: Tokens) -> Tokens:
        codes = len(one.codebook)
        if codes < 2 or not len(one.values):
            return one
        generator = np.random.default_rng([change.seed, codes])
        order = generator.permutation(len(one.values))
        step = torch.from_numpy(generator.integers(1, codes, len(one.values)))
        hit = torch.from_numpy(order[: _number(len(order), change.strength)])
        values = one.values.clone()
        values[hit] = (values[hit] + step[hit]) % codes
        return replace(one, values=values)

    tokens = {name: noisy(one) if name in change.of else one for name, one in data.tokens.items()}
    return replace(data, tokens=tokens)


def swapped(data: Data, change: Change) -> Data:
    """Give a share of the entities that have the modality what belongs to another of them, in a circle.

    Features and tokens move together. Which entities are wrong is nested; whose pictures they get is not.
    """
    _check(change)

    def moved(one: Table) -> Table:
        have = torch.unique(one.entity)
        order = have[torch.from_numpy(np.random.default_rng(change.seed).permutation(len(have)))]
        circle = order[: _number(len(have), change.strength)]
        owner = torch.arange(data.entities)
        owner[circle] = circle.roll(1)  # what was entity i's is now owner[i]'s; alone, one keeps its own
        return rows_of(replace(one, entity=owner[one.entity]), torch.argsort(owner[one.entity], stable=True))

    return _mapped(data, change.of, moved)


def wrong_links(data: Data, change: Change) -> Data:
    """Replace the head or the tail of a share of the train triples by a random entity.

    No new triple is a fact of any split, nor stands in train twice: what is wrong must not be right by chance, and
    test must not leak.
    """
    _check(change)
    generator = np.random.default_rng([change.seed, 3])
    train = data.train.numpy().copy()
    known = {tuple(row) for one in (data.train, data.dev, data.test) for row in one.tolist()}
    order = generator.permutation(len(train))
    for row in order[: _number(len(train), change.strength)]:
        for _ in range(1000):
            wrong = train[row].copy()
            wrong[generator.choice([0, 2])] = generator.integers(data.entities)
            if tuple(wrong.tolist()) not in known:
                break
        else:
            raise UserError(
                f"{data.name} is so dense that no wrong link could be drawn; lower the share of wrong links."
            )
        known.add(tuple(wrong.tolist()))
        train[row] = wrong
    return replace(data, train=torch.from_numpy(train))


def fewer_links(data: Data, change: Change) -> Data:
    """Remove a share of the train triples, but none that is the last of an entity or of a relation.

    Where too few can be spared, all that can are removed: what is left is counted by the caller.
    """
    _check(change)
    train = data.train.numpy()
    ends = np.bincount(train[:, [0, 2]].ravel(), minlength=data.entities)
    uses = np.bincount(train[:, 1], minlength=data.relations)
    left = np.ones(len(train), dtype=bool)
    wanted = _number(len(train), change.strength)
    for row in np.random.default_rng([change.seed, 4]).permutation(len(train)):
        if not wanted:
            break
        head, relation, tail = train[row]
        ends[head] -= 1
        ends[tail] -= 1
        uses[relation] -= 1
        if ends[head] and ends[tail] and uses[relation]:
            left[row] = False
            wanted -= 1
        else:
            ends[head] += 1
            ends[tail] += 1
            uses[relation] += 1
    return replace(data, train=data.train[torch.from_numpy(left)])


def first_pictures(data: Data, change: Change) -> Data:
    """Keep the first n lists of tokens of each entity, in the order of image_ix; n is the strength."""
    if change.strength < 1:
        raise UserError(f"An entity cannot keep {change.strength} pictures; take at least 1.")

    def fewer(one: Tokens) -> Tokens:
        position = torch.arange(len(one.entity)) - torch.searchsorted(one.entity, one.entity)
        return keep(one, position < int(change.strength))

    return replace(data, tokens={name: fewer(one) if name in change.of else one for name, one in data.tokens.items()})


CHANGES: dict[str, Callable[[Data, Change], Data]] = {
    one.__name__: one
    for one in (missing, feature_noise, token_noise, swapped, wrong_links, fewer_links, first_pictures)
}


def keep(one: Table, rows: Tensor) -> Table:
    """Only the `rows` (N,) bool of a modality."""
    return rows_of(one, rows.nonzero()[:, 0])


@overload
def rows_of(one: Features, row: Tensor) -> Features: ...
@overload
def rows_of(one: Tokens, row: Tensor) -> Tokens: ...
def rows_of(one: Features | Tokens, row: Tensor) -> Features | Tokens:
    """The rows (n,) int64 of a modality, in that order; the codebook stays whole."""
    if isinstance(one, Features):
        return Features(one.entity[row], one.matrix[row])
    length = torch.diff(one.offsets)[row]
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), length.cumsum(0)])
    place = torch.arange(int(offsets[-1])) - torch.repeat_interleave(offsets[:-1], length)
    values = one.values[torch.repeat_interleave(one.offsets[row], length) + place]
    return replace(one, entity=one.entity[row], offsets=offsets, values=values)


def covered(data: Data, name: str) -> int:
    """How many entities have the modality, by its features if they were read, else by its tokens; 0 without either."""
    one = data.features.get(name) or data.tokens.get(name)
    return 0 if one is None else len(torch.unique(one.entity))


def uncovered(data: Data) -> int:
    """How many entities stand in no train triple."""
    return data.entities - len(torch.unique(data.train[:, [0, 2]]))


def _mapped(data: Data, of: tuple[str, ...], change: Callable) -> Data:
    """Data whose features and tokens of the modalities `of` are changed."""

    def changed(kind: dict[str, Table]) -> dict[str, Table]:
        return {name: change(one) if name in of else one for name, one in kind.items()}

    return replace(data, features=changed(data.features), tokens=changed(data.tokens))


def _first(count: int, change: Change) -> Tensor:
    """The first share of 0 … count − 1 in the order of the seed."""
    _check(change)
    order = np.random.default_rng([change.seed, 1]).permutation(count)
    return torch.from_numpy(order[: _number(count, change.strength)])


def _number(count: int, share: float) -> int:
    return round(count * share)


def _check(change: Change, most: float | None = 1.0) -> None:
    if change.strength < 0 or (most is not None and change.strength > most):
        limit = "0 to 1" if most else "0 upwards"
        raise UserError(f"The perturbation {change.name} cannot have the strength {change.strength}; take {limit}.")
