"""Coverage: which set of modalities each entity has. Groups by coverage are defined here and nowhere else."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Coverage:
    """The sets of M modalities, and the one that each of E entities has.

    Set i holds modality j if bit j of i is set, so set 0 is the empty one and the last one holds all.
    """

    labels: tuple[str, ...]  # of the modalities, (M,)
    of: np.ndarray  # (E,) int64: the entity's set

    @property
    def names(self) -> tuple[str, ...]:
        """What each of the 2**M sets is called: "neither", "text only", "picture only", "text and picture"."""
        return tuple(self._name(chosen) for chosen in self._sets())

    @property
    def short(self) -> tuple[str, ...]:
        """The same in initial letters: "–", "T", "P", "TP"."""
        return tuple("".join(label[0].upper() for label in chosen) or "–" for chosen in self._sets())

    @property
    def largest_first(self) -> list[int]:
        """The sets, those of most modalities first: the order of bars and of rows."""
        sizes = [len(chosen) for chosen in self._sets()]
        return sorted(range(len(sizes)), key=lambda one: (-sizes[one], one))

    def _sets(self) -> list[list[str]]:
        places = range(2 ** len(self.labels))
        return [[label for bit, label in enumerate(self.labels) if place >> bit & 1] for place in places]

    def _name(self, chosen: Sequence[str]) -> str:
        if not chosen:
            return "neither" if len(self.labels) == 2 else "none"
        if len(chosen) == 1:
            return f"{chosen[0]} only" if len(self.labels) > 1 else chosen[0]
        return f"{', '.join(chosen[:-1])} and {chosen[-1]}"


def coverage(has: Mapping[str, np.ndarray]) -> Coverage:
    """The coverage of E entities, given for each modality, by label, who has it, (E,) bool."""
    masks = list(has.values())
    of = sum((mask.astype(np.int64) << bit for bit, mask in enumerate(masks)), np.zeros(len(masks[0]), dtype=np.int64))
    return Coverage(tuple(has), of)
