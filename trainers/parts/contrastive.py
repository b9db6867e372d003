"""Contrastive losses."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def info_nce(anchors: Tensor, views: Tensor, present: Tensor, temperature: float) -> Tensor:
    """Cross entropy of each anchor (n, D) finding its own view (n, D) by cosine among all that are `present` (n,).

    Rows that are not present take no part; 0 if none is.
    """
    similar = F.normalize(anchors.float(), dim=1, eps=1e-8) @ F.normalize(views.float(), dim=1, eps=1e-8).T
    logits = (similar / temperature).masked_fill(~present, -math.inf)
    own = torch.arange(len(logits), device=logits.device).masked_fill(~present, -100)
    return F.cross_entropy(logits, own, ignore_index=-100, reduction="sum") / present.sum().clamp(min=1)
