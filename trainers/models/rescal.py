"""RESCAL (Nickel et al. 2011): score = hᵀ M_r t, with a full matrix M_r for each relation."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from trainers.about import About
from trainers.parts.bilinear import Bilinear, normal
from trainers.training import structure
from trainers.training.data import Data
from trainers.training.one_vs_all import ByRelation
from trainers.training.prefetch import on_device
from trainers.training.structure import Learner

__all__ = ["ABOUT", "RESCAL", "Learner", "Settings", "build"]

ABOUT = About(name="RESCAL", papers=("nickel2011rescal", "zhang2020dura"))


@dataclass(frozen=True)
class Settings(structure.Settings):
    """The shared settings; there is no margin in a product. A relation has D² numbers."""


def build(data: Data, settings: Settings, generator: torch.Generator) -> "RESCAL":
    """By default entities start with deviation 1/√D, matrices with 1/D: a query then is as long as an entity."""
    entity = normal(data.entities, settings.dimension, settings.init_scale, generator)
    stored = data.relations * (2 if settings.reciprocal else 1)
    relation = normal(stored, settings.dimension**2, settings.init_scale, generator)
    return RESCAL(entity, relation, data, settings)


class RESCAL(Bilinear):
    """`entity` (E, D) and `relation` (R or 2R, D²): matrices, row by row."""

    by_relation = True

    def turn(self, x: Tensor, r: Tensor) -> Tensor:
        """xᵀ M."""
        return torch.einsum("bi,bij->bj", x, r.unflatten(1, (x.shape[1], -1)))

    def turn_back(self, x: Tensor, r: Tensor) -> Tensor:
        """M x."""
        return torch.einsum("bj,bij->bi", x, r.unflatten(1, (x.shape[1], -1)))

    def pair(self, x: Tensor, answer: Tensor) -> Tensor:
        return torch.einsum("bi,bj->bij", x, answer).flatten(1)

    def _directed(
        self, x: Tensor, relation: Tensor, forth: Callable, back: Callable, rows: ByRelation | None
    ) -> Tensor:
        """Relation by relation, so that no matrix is copied for each of its queries."""
        if rows is None:  # in evaluation: a GPU is waited for
            rows = on_device(ByRelation.of(relation.cpu().numpy()), relation.device)
        turned = []
        for number, part in zip(rows.relations, x[rows.order].split(rows.counts), strict=True):
            way = forth if self.reciprocal or number < self.relations else back
            matrix = self.relation[number % len(self.relation)].view(x.shape[1], -1)
            turned.append(part @ (matrix if way == self.turn else matrix.T))
        return torch.cat(turned)[rows.back] if turned else x
