"""RotatE (arXiv 1902.10197): relations turn complex entities; score = margin − Σ |h_j e^{iθ_j} − t_j| (equation 4)."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainers.about import About
from trainers.kernels import rotate
from trainers.kernels.rotate import rotated
from trainers.parts.scorer import ScoringModel
from trainers.training import structure
from trainers.training.data import Data
from trainers.training.negative_sampling import candidates
from trainers.training.sampling import Negatives, uniform_
from trainers.training.structure import Learner

__all__ = ["ABOUT", "Learner", "RotatE", "Settings", "build"]

ABOUT = About(name="RotatE", papers=("sun2019rotate",))
EPSILON = 2.0  # the tables start uniform in ±(margin + 2) / D, as in the authors' code


@dataclass(frozen=True, kw_only=True)
class Settings(structure.Settings):
    """The shared settings; `dimension` counts complex numbers."""

    def __post_init__(self) -> None:
        super().__post_init__()
        # A sum of moduli is no product, so that comparing with all entities would cost a hundred times as much.
        structure.only(
            self, objective=("negative_sampling",), regularizer=("n3",), relation_prediction=(0.0,),
            reciprocal=(False,), dropout=(0.0,), strangers=("own",),
        )  # fmt: skip


def build(data: Data, settings: Settings, generator: torch.Generator) -> "RotatE":
    return RotatE(data.entities, data.relations, settings.dimension, settings.margin, generator)


class RotatE(ScoringModel):
    """`entity` (E, 2D): real parts, then imaginary parts. `relation` (R, D): angles, scaled to start in ±π."""

    def __init__(self, entities: int, relations: int, dimension: int, margin: float, generator: torch.Generator):
        super().__init__()
        self.margin = margin
        self.range = (margin + EPSILON) / dimension
        self.entity = nn.Parameter(uniform_(torch.empty(entities, 2 * dimension), self.range, generator))
        self.relation = nn.Parameter(uniform_(torch.empty(relations, dimension), self.range, generator))

    def query(self, known: Tensor, relation: Tensor, side: str) -> Tensor:
        """(B, 2D): where the answer of (h, r, ?) ("tail") or (?, r, t) ("head") should lie."""
        angle = self.relation[relation] * (math.pi / self.range)
        return rotated(self.entity[known], angle if side == "tail" else -angle)

    def link_scores(self, positive: Tensor, negatives: Negatives) -> tuple[Tensor, Tensor]:
        head, relation, tail = positive.unbind(1)
        query = torch.stack([self.query(head, relation, "tail"), self.query(tail, relation, "head")], dim=1)
        score = self.margin - rotate.distances(query, self.entity, *candidates(positive, negatives))
        return score[:, 0], score[:, 1:]

    def n3(self, known: Tensor, relation: Tensor, row: Tensor, answer: Tensor) -> Tensor:
        """Mean cubed modulus of the triples' entities (see trainers/training/structure.py)."""
        real, imaginary = self.entity[torch.cat([known[row], answer])].chunk(2, dim=-1)
        return (real.square() + imaginary.square() + 1e-12).pow(1.5).mean()

    def score(self, prepared: None, known: Tensor, relation: Tensor, side: str) -> Tensor:
        return rotate.all_distances(self.query(known, relation, side), self.entity).neg_().add_(self.margin)
