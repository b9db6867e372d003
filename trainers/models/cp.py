"""CP (Hitchcock 1927; arXiv 1806.07297): score = Σ_j h_j r_j t′_j, an entity having one vector as the known one and
another as the answer. Without reciprocal relations the two would hardly meet, so it always has them (section 3).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainers.about import About
from trainers.parts.bilinear import Bilinear, normal
from trainers.training import structure
from trainers.training.data import Data
from trainers.training.structure import Learner

__all__ = ["ABOUT", "CP", "Learner", "Settings", "build"]

ABOUT = About(name="CP", papers=("lacroix2018cp", "zhang2020dura"))


@dataclass(frozen=True, kw_only=True)
class Settings(structure.Settings):
    """The shared settings; there is no margin in a product."""

    def __post_init__(self) -> None:
        super().__post_init__()
        structure.only(self, reciprocal=(True,))


def build(data: Data, settings: Settings, generator: torch.Generator) -> "CP":
    entity, answer, relation = (
        normal(rows, settings.dimension, settings.init_scale, generator)
        for rows in (data.entities, data.entities, 2 * data.relations)
    )
    return CP(entity, answer, relation, data, settings)


class CP(Bilinear):
    """`entity` (E, D) the known ones, `answer` (E, D) the answers, `relation` (2R, D)."""

    def __init__(self, entity: Tensor, answer: Tensor, relation: Tensor, data: Data, settings: Settings):
        super().__init__(entity, relation, data, settings)
        self.answer = nn.Parameter(answer)

    @property
    def answers(self) -> Tensor:
        return self.answer

    def turn(self, x: Tensor, r: Tensor) -> Tensor:
        return x * r

    def turn_back(self, x: Tensor, r: Tensor) -> Tensor:
        return x * r

    def pair(self, x: Tensor, answer: Tensor) -> Tensor:
        return x * answer
