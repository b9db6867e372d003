"""The logistic function over many logits: binary cross entropy with its slope, and sums of probabilities."""

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


def add_sigmoid_(total: Tensor, logits: Tensor, share: Tensor | float) -> None:
    """total += share · σ(logits), all (B, C); `total` may be a slice of columns, `logits` may be overwritten."""
    kernels = library() if logits.device.type == "cpu" and not isinstance(share, Tensor) else None
    if kernels is None:
        total += logits.sigmoid_() * share
        return
    kernels.bce_add_sigmoid(
        address(logits),
        *map(ctypes.c_int64, (*logits.shape, total.stride(0))),
        ctypes.c_float(share),
        ctypes.c_void_p(total.data_ptr()),
    )
