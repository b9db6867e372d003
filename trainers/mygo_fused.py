"""MyGO's two heaviest inner steps, with gradients of their own: dropout, and cross entropy over all entities."""

import torch
import torch.nn.functional as F
from torch import Tensor


def dropout(x: Tensor, p: float) -> Tensor:
    return F.dropout(x, p)


def linear_cross_entropy(query: Tensor, candidates: Tensor, target: Tensor) -> Tensor:
    """Mean cross entropy of `target` (B,) under the logits query (B, D) · candidates (E, D)ᵀ."""
    return F.cross_entropy((query @ candidates.T).float(), target)
