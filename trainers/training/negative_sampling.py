"""Scores of positives and their sampled negatives, laid out for one pass over both."""

import torch
from torch import Tensor

from trainers.kernels import gathered
from trainers.training.sampling import Negatives

# Entities per candidate of a row up to which one product is cheaper, by whether the C kernel gathers: measured on one
# core at widths of 100 to 500. Without the kernel gathering writes and reads B × C × D numbers several times.
ALL_AT_ONCE = {True: 3, False: 128}


def candidates(positive: Tensor, negatives: Negatives) -> tuple[Tensor, Tensor]:
    """(B, 1 + K) entities and sides: the positive's own tail first, then its negatives; True where a head stands."""
    tail = positive[:, 2:]
    head = torch.cat([torch.zeros_like(tail, dtype=torch.bool), negatives.head], dim=1)
    return torch.cat([tail, negatives.entity], dim=1), head


def products(query: Tensor, entity: Tensor, candidate: Tensor, side: Tensor) -> Tensor:
    """(B, C) inner products of each row's candidates with the query of their side.

    query (B, 2, D): for tails, for heads. entity (E, D). One product with all entities and its gradient are cheaper
    than gathering where a row has not many fewer candidates than there are entities.
    """
    if len(entity) <= ALL_AT_ONCE[gathered.by_kernel(query)] * candidate.shape[1]:
        every = (query.flatten(0, 1) @ entity.T).float().view(len(query), -1)  # (B, 2 E)
        return every.gather(1, candidate + side * len(entity))
    return gathered.products(query, entity, candidate, side)
