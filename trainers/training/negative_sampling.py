"""What the structure-only baselines share: their settings, and a step on positives and sampled negatives.

Each model's file says the rest: its tables, and the query that a known entity and a relation make for either side. A
model offers `link_scores(positive, negatives) -> (B,), (B, K)` and `size(positive) -> 0-d` for the regulariser.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from trainers.training.data import Data
from trainers.training.optimizer import autocast, descend
from trainers.training.sampling import Negatives, NegativeSampler, own_rows, self_adversarial_loss, shuffled


@dataclass(frozen=True)
class Settings:
    """Hyperparameters of a structure-only model; widths and batch as AdaMF-MAT's, for like to be compared with like."""

    epochs: int = 500
    batch_size: int = 1024  # positives a step
    negatives: int = 128  # corrupted triples for each positive
    negative_sides: Literal["bernoulli", "uniform"] = "bernoulli"  # how often the head is replaced, how often the tail
    dimension: int = 250  # D: numbers of an entity; complex numbers in ComplEx and RotatE
    margin: float = 12.0  # distance models: score = margin − distance
    adversarial_temperature: float = 1.0  # how much harder negatives count more; 0: all alike
    learning_rate: float = 1e-3
    regularization: float = 0.0  # weight of the mean cubed modulus of the batch's rows (N3, arXiv 1806.07297)
    modalities: tuple[Literal["structure"], ...] = ("structure",)  # these models read nothing else

    def __post_init__(self) -> None:
        if tuple(self.modalities) != ("structure",):
            raise ValueError("this model reads the structure only: modalities must be [structure]")


class Learner:
    """Self-adversarial negative sampling (RotatE, arXiv 1902.10197, equations 5 and 6) with Adam."""

    def __init__(
        self,
        model: nn.Module,
        data: Data,
        settings: Settings,
        *,
        device: torch.device,
        precision: torch.dtype,
        seed: int,
    ):
        self.model = model.to(device)
        self.settings, self.device, self.precision, self.seed = settings, device, precision, seed
        self.triples = data.train.to(device)
        self.sampler = NegativeSampler(
            self.triples, entities=data.entities, relations=data.relations, sides=settings.negative_sides
        )
        self.optimizers = {"model": torch.optim.Adam(model.parameters(), lr=settings.learning_rate, fused=True)}
        self.schedulers = {}

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(len(self.triples) / self.settings.batch_size)

    def batches(self, epoch: int) -> Iterator[Tensor]:
        """Positives (B, 3) in the order of (seed, epoch)."""
        for index in shuffled(len(self.triples), self.settings.batch_size, seed=self.seed, epoch=epoch):
            yield self.triples[index.to(self.device)]

    def step(self, batch: Tensor) -> dict[str, Tensor]:
        """One step on new negatives; with several processes, on this one's part of the batch."""
        negatives = self.sampler(batch, self.settings.negatives)
        own, share = own_rows(len(batch))
        positive, negatives = batch[own], Negatives(negatives.entity[own], negatives.head[own])
        with autocast(self.device, self.precision):
            scores = self.model.link_scores(positive, negatives)
        terms = {"link": sum(self_adversarial_loss(*scores, self.settings.adversarial_temperature))}
        if self.settings.regularization:
            terms["regularization"] = self.settings.regularization * self.model.size(positive)
        descend(share * sum(terms.values()), self.model.parameters(), self.optimizers["model"])
        return {name: term.detach() for name, term in terms.items()}


def candidates(positive: Tensor, negatives: Negatives) -> tuple[Tensor, Tensor]:
    """(B, 1 + K) entities and sides: the positive's own tail first, then its negatives; True where a head stands."""
    tail = positive[:, 2:]
    head = torch.cat([torch.zeros_like(tail, dtype=torch.bool), negatives.head], dim=1)
    return torch.cat([tail, negatives.entity], dim=1), head


def products(query: Tensor, entity: Tensor, candidate: Tensor, side: Tensor) -> Tensor:
    """(B, C) inner products of each row's candidates with the query of their side.

    query (B, 2, D): for tails, for heads. entity (E, D). If the graph has not many more entities than the row has
    candidates, one product with all of them is cheaper than gathering, and so is its gradient.
    """
    if len(entity) <= 128 * candidate.shape[1]:
        every = (query.flatten(0, 1) @ entity.T).float().view(len(query), -1)  # (B, 2 E)
        return every.gather(1, candidate + side * len(entity))
    asked = torch.where(side.unsqueeze(-1), query[:, None, 1], query[:, None, 0])
    return (asked * entity[candidate]).sum(-1).float()
