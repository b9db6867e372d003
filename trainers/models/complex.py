"""ComplEx (arXiv 1606.06357): score = Re Σ_j h_j r_j conj(t_j) of complex vectors (equation 11)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from trainers.about import About
from trainers.parts.bilinear import Bilinear, normal
from trainers.training import structure
from trainers.training.data import Data
from trainers.training.structure import Learner

__all__ = ["ABOUT", "ComplEx", "Learner", "Settings", "build"]

ABOUT = About(name="ComplEx", papers=("trouillon2016complex", "lacroix2018cp", "zhang2020dura"))


@dataclass(frozen=True)
class Settings(structure.Settings):
    """The shared settings; `dimension` counts complex numbers, and there is no margin in a product."""


def build(data: Data, settings: Settings, generator: torch.Generator) -> "ComplEx":
    """By default both tables start with deviation 1/√2D, entities around 0, relations around 1."""
    width, stored = 2 * settings.dimension, data.relations * (2 if settings.reciprocal else 1)
    entity = normal(data.entities, width, settings.init_scale, generator)
    relation = normal(stored, width, settings.init_scale, generator)
    if settings.init_scale is None:
        relation[:, : settings.dimension] += 1
    return ComplEx(entity, relation, data, settings)


class ComplEx(Bilinear):
    """`entity` (E, 2D) and `relation` (R or 2R, 2D): real parts, then imaginary parts."""

    def turn(self, x: Tensor, r: Tensor) -> Tensor:
        """x r, whose real product with an answer is the score."""
        (a, b), (c, d) = x.chunk(2, dim=-1), r.chunk(2, dim=-1)
        return torch.cat([a * c - b * d, a * d + b * c], dim=-1)

    def turn_back(self, x: Tensor, r: Tensor) -> Tensor:
        """x conj(r)."""
        (a, b), (c, d) = x.chunk(2, dim=-1), r.chunk(2, dim=-1)
        return torch.cat([a * c + b * d, b * c - a * d], dim=-1)

    def pair(self, x: Tensor, answer: Tensor) -> Tensor:
        """conj(x) answer."""
        return self.turn_back(answer, x)

    def modulus(self, rows: Tensor) -> Tensor:
        real, imaginary = rows.chunk(2, dim=-1)
        return (real.square() + imaginary.square() + 1e-12).sqrt()
