"""ComplEx (arXiv 1606.06357): score = Re Σ_j h_j r_j conj(t_j) of complex vectors (equation 11)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainers.training import negative_sampling
from trainers.training.data import Data
from trainers.training.negative_sampling import Learner, candidates, products
from trainers.training.sampling import Negatives

__all__ = ["NEEDS", "ComplEx", "Learner", "Settings", "build"]

NEEDS = ()


@dataclass(frozen=True)
class Settings(negative_sampling.Settings):
    """The shared settings; `dimension` counts complex numbers, and there is no margin in a product."""

    margin: float = 0.0
    regularization: float = 0.01


def build(data: Data, settings: Settings, generator: torch.Generator) -> "ComplEx":
    return ComplEx(data.entities, data.relations, settings.dimension, generator)


class ComplEx(nn.Module):
    """`entity` (E, 2D) and `relation` (R, 2D): real parts, then imaginary parts."""

    def __init__(self, entities: int, relations: int, dimension: int, generator: torch.Generator):
        super().__init__()
        scale = (2 * dimension) ** -0.5
        self.entity = nn.Parameter(torch.randn(entities, 2 * dimension, generator=generator) * scale)
        self.relation = nn.Parameter(torch.randn(relations, 2 * dimension, generator=generator) * scale)
        with torch.no_grad():
            self.relation[:, :dimension] += 1

    def query(self, known: Tensor, relation: Tensor, side: str) -> Tensor:
        """(B, 2D), of which the score is the real product with the answer: h r for tails, conj(r) t for heads."""
        a, b = self.entity[known].chunk(2, dim=-1)
        c, d = self.relation[relation].chunk(2, dim=-1)
        if side == "head":
            d = -d
        return torch.cat([a * c - b * d, a * d + b * c], dim=-1)

    def link_scores(self, positive: Tensor, negatives: Negatives) -> tuple[Tensor, Tensor]:
        head, relation, tail = positive.unbind(1)
        query = torch.stack([self.query(head, relation, "tail"), self.query(tail, relation, "head")], dim=1)
        score = products(query, self.entity, *candidates(positive, negatives))
        return score[:, 0], score[:, 1:]

    def size(self, positive: Tensor) -> Tensor:
        """Mean cubed modulus of the batch's rows, summed over components."""
        return _cubed(self.entity[positive[:, ::2]]) + _cubed(self.relation[positive[:, 1]])

    @torch.inference_mode()
    def scorer(self) -> Callable[[Tensor, Tensor, str], Tensor]:
        """(known (B,), relation (B,), "tail" | "head") -> (B, E)."""

        @torch.inference_mode()
        def score(known: Tensor, relation: Tensor, side: str) -> Tensor:
            return self.query(known, relation, side) @ self.entity.T

        return score


def _cubed(rows: Tensor) -> Tensor:
    real, imaginary = rows.chunk(2, dim=-1)
    return (real.square() + imaginary.square() + 1e-12).pow(1.5).sum(-1).mean()
