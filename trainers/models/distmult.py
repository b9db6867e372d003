"""DistMult (arXiv 1412.6575): score = Σ_j h_j r_j t_j, the same for both directions of a relation."""

from dataclasses import dataclass

import torch
from torch import Tensor

from trainers.about import About
from trainers.parts.bilinear import Bilinear, normal
from trainers.training import structure
from trainers.training.data import Data
from trainers.training.structure import Learner

__all__ = ["ABOUT", "DistMult", "Learner", "Settings", "build"]

# The score is the same in both directions, so it cannot tell the entity before from the one after.
ABOUT = About(name="DistMult", papers=("yang2015distmult",), memorises=0.4)


@dataclass(frozen=True)
class Settings(structure.Settings):
    """The shared settings; there is no margin in a product."""


def build(data: Data, settings: Settings, generator: torch.Generator) -> "DistMult":
    """By default both tables start with deviation 1/√D, entities around 0, relations around 1."""
    entity = normal(data.entities, settings.dimension, settings.init_scale, generator)
    stored = data.relations * (2 if settings.reciprocal else 1)
    relation = normal(stored, settings.dimension, settings.init_scale, generator)
    if settings.init_scale is None:
        relation += 1
    return DistMult(entity, relation, data, settings)


class DistMult(Bilinear):
    """`entity` (E, D) and `relation` (R or 2R, D)."""

    def turn(self, x: Tensor, r: Tensor) -> Tensor:
        return x * r

    def turn_back(self, x: Tensor, r: Tensor) -> Tensor:
        return x * r

    def pair(self, x: Tensor, answer: Tensor) -> Tensor:
        return x * answer
