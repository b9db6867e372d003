"""Binary cross entropy from logits, cost and slope in one pass over them."""

import ctypes

import torch
import torch.nn.functional as F
from torch import Tensor

from trainers.kernels import address, library


def cost_and_slope_(logits: Tensor, row: Tensor, column: Tensor, target: float) -> Tensor:
    """Σ_bc row_b · column_c · (softplus(x_bc) − target · x_bc), 0-d; `logits` (B, C) float32 become its gradient.

    That is the cross entropy of σ(x) against a label `target` that all pairs share, and its slope
    row_b · column_c · (σ(x_bc) − target). Weights `row` (B,), `column` (C,) float32. The sum is float64 on the CPU.
    """
    kernels = library() if logits.device.type == "cpu" else None
    if kernels is not None:
        cost = torch.empty(len(logits), dtype=torch.float64)
        kernels.bce_cost_and_slope(
            address(logits),
            address(row),
            address(column),
            *map(ctypes.c_int64, logits.shape),
            ctypes.c_float(target),
            address(cost),
        )
        return cost.sum()
    exact = torch.float64 if logits.device.type == "cpu" else torch.float32
    cost = (F.softplus(logits) - target * logits).mul_(column).sum(1, dtype=exact)
    logits.sigmoid_().sub_(target).mul_(row.unsqueeze(1)).mul_(column)
    return cost @ row.to(exact)
