"""TransE (Bordes et al. 2013): a relation is a step from head to tail; score = margin − ‖h + r − t‖_p."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from trainers.training import negative_sampling
from trainers.training.data import Data
from trainers.training.negative_sampling import Learner, candidates
from trainers.training.sampling import Negatives, uniform_

__all__ = ["NEEDS", "Learner", "Settings", "TransE", "build"]

NEEDS = ()
EPSILON = 2.0  # the tables start uniform in ±(margin + 2) / D, so that distances start near the margin


@dataclass(frozen=True)
class Settings(negative_sampling.Settings):
    """The shared settings, and the norm."""

    norm: Literal[1, 2] = 1  # p of the distance


def build(data: Data, settings: Settings, generator: torch.Generator) -> "TransE":
    return TransE(data.entities, data.relations, settings.dimension, settings.margin, settings.norm, generator)


class TransE(nn.Module):
    """`entity` (E, D) and `relation` (R, D)."""

    def __init__(
        self, entities: int, relations: int, dimension: int, margin: float, norm: int, generator: torch.Generator
    ):
        super().__init__()
        self.margin, self.norm = margin, norm
        bound = (margin + EPSILON) / dimension
        self.entity = nn.Parameter(uniform_(torch.empty(entities, dimension), bound, generator))
        self.relation = nn.Parameter(uniform_(torch.empty(relations, dimension), bound, generator))

    def query(self, known: Tensor, relation: Tensor, side: str) -> Tensor:
        """(B, D): where the answer should lie, h + r for tails and t − r for heads."""
        step = self.relation[relation]
        return self.entity[known] + (step if side == "tail" else -step)

    def link_scores(self, positive: Tensor, negatives: Negatives) -> tuple[Tensor, Tensor]:
        head, relation, tail = positive.unbind(1)
        query = torch.stack([self.query(head, relation, "tail"), self.query(tail, relation, "head")], dim=1)
        candidate, side = candidates(positive, negatives)
        asked = query[torch.arange(len(positive), device=side.device)[:, None], side.long()]
        score = self.margin - torch.linalg.vector_norm(asked - self.entity[candidate], self.norm, dim=-1)
        return score[:, 0], score[:, 1:]

    def size(self, positive: Tensor) -> Tensor:
        """Mean cubed size of the numbers of the batch's entities."""
        return self.entity[positive[:, ::2]].abs().pow(3).mean()

    @torch.inference_mode()
    def scorer(self) -> Callable[[Tensor, Tensor, str], Tensor]:
        """(known (B,), relation (B,), "tail" | "head") -> (B, E)."""

        @torch.inference_mode()
        def score(known: Tensor, relation: Tensor, side: str) -> Tensor:
            query = self.query(known, relation, side)
            # Without products: those of large vectors lose the digits that ranks depend on.
            plain = "donot_use_mm_for_euclid_dist"
            return self.margin - torch.cdist(query, self.entity, p=float(self.norm), compute_mode=plain)

        return score
