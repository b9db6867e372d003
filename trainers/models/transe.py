"""TransE (Bordes et al. 2013): a relation is a step from head to tail; score = margin − ‖h + r − t‖_p."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainers.about import About
from trainers.kernels import gathered
from trainers.parts.scorer import ScoringModel
from trainers.training import structure
from trainers.training.data import Data
from trainers.training.negative_sampling import candidates
from trainers.training.sampling import Negatives, uniform_
from trainers.training.structure import Learner

__all__ = ["ABOUT", "Learner", "Settings", "TransE", "build"]

# Equal steps never close a circle.
ABOUT = About(name="TransE", papers=("bordes2013transe",), memorises=0.6)
EPSILON = 2.0  # the tables start uniform in ±(margin + 2) / D, so that distances start near the margin


@dataclass(frozen=True, kw_only=True)
class Settings(structure.Settings):
    """The shared settings, and the norm."""

    norm: Literal[1, 2]  # p of the distance

    def __post_init__(self) -> None:
        super().__post_init__()
        objectives = ("negative_sampling", "one_vs_all") if self.norm == 2 else ("negative_sampling",)
        structure.only(self, objective=objectives, regularizer=("n3",), relation_prediction=(0.0,), strangers=("own",))


def build(data: Data, settings: Settings, generator: torch.Generator) -> "TransE":
    return TransE(data.entities, data.relations, settings, generator)


class TransE(ScoringModel):
    """`entity` (E, D) and `relation` (R or 2R, D)."""

    euclidean = True  # as 1-vs-all compares queries with answers; the norm is 2 there

    def __init__(self, entities: int, relations: int, settings: Settings, generator: torch.Generator):
        super().__init__()
        self.margin, self.norm, self.dropout = settings.margin, settings.norm, settings.dropout
        self.relations, self.reciprocal = relations, settings.reciprocal
        bound = settings.init_scale or (settings.margin + EPSILON) / settings.dimension
        shapes = (entities, settings.dimension), (relations * (2 if settings.reciprocal else 1), settings.dimension)
        self.entity, self.relation = (nn.Parameter(uniform_(torch.empty(shape), bound, generator)) for shape in shapes)

    @property
    def answers(self) -> Tensor:
        """(E, D): what queries are compared with."""
        return self.entity

    def known(self, entity: Tensor) -> Tensor:
        """(B, D) vectors of the entities that are known in queries, with dropout in training."""
        return F.dropout(self.entity[entity], self.dropout, self.training)

    def rows(self, table: Tensor, entity: Tensor) -> Tensor:
        """(B, D) rows of a table of entities."""
        return table[entity]

    def ask(self, x: Tensor, relation: Tensor) -> Tensor:
        """(B, D): where the answer should lie, of entities (B, D) under relations (B,), from R on those of heads.

        x + r, or x − r for heads if relations are not reciprocal.
        """
        if self.reciprocal:
            return x + self.relation[relation]
        sign = torch.where(relation < self.relations, 1.0, -1.0).unsqueeze(1)
        return x + sign * self.relation[relation % self.relations]

    def link_scores(self, positive: Tensor, negatives: Negatives) -> tuple[Tensor, Tensor]:
        head, relation, tail = positive.unbind(1)
        sides = self.ask(self.known(head), relation), self.ask(self.known(tail), relation + self.relations)
        query = torch.stack(sides, dim=1)
        score = self.margin - gathered.distances(query, self.entity, *candidates(positive, negatives), self.norm)
        return score[:, 0], score[:, 1:]

    def n3(self, known: Tensor, relation: Tensor, row: Tensor, answer: Tensor) -> Tensor:
        """Mean cubed size of the numbers of the triples' entities (see trainers/training/structure.py)."""
        return self.entity[torch.cat([known[row], answer])].abs().pow(3).mean()

    def sizes(self) -> tuple[int, int]:
        return len(self.entity), self.relations

    def score(self, prepared: None, known: Tensor, relation: Tensor, side: str) -> Tensor:
        query = self.ask(self.entity[known], relation + self.relations if side == "head" else relation)
        # Without products: those of large vectors lose the digits that ranks depend on.
        plain = "donot_use_mm_for_euclid_dist"
        return self.margin - torch.cdist(query, self.entity, p=float(self.norm), compute_mode=plain)
