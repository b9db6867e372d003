"""Scores of positives and their sampled negatives, laid out for one pass over both."""

import torch
from torch import Tensor

from trainers.training.sampling import Negatives


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
