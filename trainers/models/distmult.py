"""DistMult (arXiv 1412.6575): score = Σ_j h_j r_j t_j, the same for both directions of a relation."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainers.training import negative_sampling
from trainers.training.data import Data
from trainers.training.negative_sampling import Learner, candidates, products
from trainers.training.sampling import Negatives

__all__ = ["NEEDS", "DistMult", "Learner", "Settings", "build"]

NEEDS = ()


@dataclass(frozen=True)
class Settings(negative_sampling.Settings):
    """The shared settings; there is no margin in a product."""

    margin: float = 0.0
    regularization: float = 0.01


def build(data: Data, settings: Settings, generator: torch.Generator) -> "DistMult":
    return DistMult(data.entities, data.relations, settings.dimension, generator)


class DistMult(nn.Module):
    """`entity` (E, D) and `relation` (R, D), entities start around 0, relations around 1, both with deviation 1/√D."""

    def __init__(self, entities: int, relations: int, dimension: int, generator: torch.Generator):
        super().__init__()
        scale = dimension**-0.5
        self.entity = nn.Parameter(torch.randn(entities, dimension, generator=generator) * scale)
        self.relation = nn.Parameter(1 + torch.randn(relations, dimension, generator=generator) * scale)

    def query(self, known: Tensor, relation: Tensor) -> Tensor:
        """(B, D), of which the score is the product with the answer, whichever side is asked."""
        return self.entity[known] * self.relation[relation]

    def link_scores(self, positive: Tensor, negatives: Negatives) -> tuple[Tensor, Tensor]:
        head, relation, tail = positive.unbind(1)
        query = torch.stack([self.query(head, relation), self.query(tail, relation)], dim=1)
        score = products(query, self.entity, *candidates(positive, negatives))
        return score[:, 0], score[:, 1:]

    def size(self, positive: Tensor) -> Tensor:
        """Mean cubed modulus of the batch's rows."""
        return (
            self.entity[positive[:, ::2]].abs().pow(3).sum(-1).mean()
            + self.relation[positive[:, 1]].abs().pow(3).sum(-1).mean()
        )

    @torch.inference_mode()
    def scorer(self) -> Callable[[Tensor, Tensor, str], Tensor]:
        """(known (B,), relation (B,), "tail" | "head") -> (B, E)."""

        @torch.inference_mode()
        def score(known: Tensor, relation: Tensor, side: str) -> Tensor:
            return self.query(known, relation) @ self.entity.T

        return score
