"""Which few tokens represent an entity: the most frequent ones over all its pictures, or in all its text.

Source: MyGO (arXiv 2404.09468), modality tokenization, with the rules of its code: of equally frequent tokens the first
to occur is taken, and those taken stand in ascending order of id.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trainers.training.data import Tokens


@dataclass(frozen=True)
class Selection:
    """The tokens chosen for every entity, and only those rows of the codebook that they use.

    Row 0 of the codebook is a zero vector: it fills the places where `absent` says that there is no token.
    """

    index: Tensor  # (E, m) int64, rows of `codebook`
    absent: Tensor  # (E, m) bool, True where there is no token; tokens come first
    codebook: Tensor  # (U + 1, W) float32


def select(tokens: Tokens, entities: int, m: int) -> Selection:
    """The `m` most frequent tokens of each of `entities` entities."""
    chosen = most_frequent(tokens, entities, m)
    used = torch.unique(chosen[chosen >= 0])
    index = torch.searchsorted(used, chosen.clamp(min=0)) + 1
    absent = chosen < 0
    zero = tokens.codebook.new_zeros(1, tokens.codebook.shape[1])
    return Selection(index.masked_fill(absent, 0), absent, torch.cat([zero, tokens.codebook[used]]))


def most_frequent(tokens: Tokens, entities: int, m: int) -> Tensor:
    """(E, m) int64: the `m` most frequent tokens of each entity as rows of `tokens.codebook`, ascending; -1 for none.

    An entity's lists count together, in the order in which they stand; ties go to the token that occurs first.
    """
    chosen = torch.full((entities, m), -1, dtype=torch.int64)
    owner = np.repeat(tokens.entity.numpy(), np.diff(tokens.offsets.numpy()))
    if not len(owner):
        return chosen
    position = _position_within(owner)
    codes, longest = len(tokens.codebook), int(position.max()) + 1
    if entities * codes * longest >= 2**63:
        raise OverflowError(f"{entities} entities x {codes} tokens x {longest} places do not fit 63 bits")
    # One number per token, sorted once: by entity, token, place. The first of each run is its first occurrence.
    place = np.sort((owner * codes + tokens.values.numpy()) * longest + position)
    pair = place // longest
    start = np.flatnonzero(np.diff(pair, prepend=-1))
    count = np.diff(start, append=len(pair))
    first, entity, token = place[start] % longest, pair[start] // codes, pair[start] % codes
    order = np.lexsort((first, -count, entity))
    order = order[_position_within(entity[order]) < m]
    order.sort()  # runs are in ascending order of (entity, token): so are those that stay
    chosen[torch.from_numpy(entity[order]), torch.from_numpy(_position_within(entity[order]))] = torch.from_numpy(
        token[order]
    )
    return chosen


def _position_within(group: np.ndarray) -> np.ndarray:
    """For ascending group numbers (n,): how many of its group stand before each element."""
    begins = np.flatnonzero(np.diff(group, prepend=-1))
    return np.arange(len(group)) - np.repeat(begins, np.diff(begins, append=len(group)))
