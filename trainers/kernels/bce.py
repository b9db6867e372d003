"""The logistic function over many logits: binary cross entropy with its slope, and sums of probabilities."""

import ctypes

import torch
import torch.nn.functional as F
from torch import Tensor

from trainers.kernels import address, library


def cost_and_slope_(logits: Tensor, row: Tensor, column: Tensor, target: float) -> Tensor:
    """Σ_bc row_b · column_c · (softplus(x_bc) − target · x_bc), 0-d; `logits` (B, C) float32 become its gradient.

    That is the cross entropy of σ(x) against one label `target` for all pairs, and its slope
    row_b · column_c · (σ(x_bc) − target). Weights `row` (B,), `column` (C,) float32. The sum is float64 on the CPU.
    """
    kernels = library() if logits.device.type == "cpu" else None
    if kernels is not None:
        rows, columns = logits.shape
        cost = torch.empty(rows, dtype=torch.float64)
        kernels.bce_cost_and_slope(
            address(logits, torch.float32, rows, columns),
            address(row, torch.float32, rows),
            address(column, torch.float32, columns),
            *map(ctypes.c_int64, (rows, columns)),
            ctypes.c_float(target),
            address(cost, torch.float64, rows),
        )
        return cost.sum()
    exact = torch.float64 if logits.device.type == "cpu" else torch.float32
    cost = (F.softplus(logits) - target * logits).mul_(column).sum(1, dtype=exact)
    logits.sigmoid_().sub_(target).mul_(row.unsqueeze(1)).mul_(column)
    return cost @ row.to(exact)


def add_sigmoid_(total: Tensor, logits: Tensor, share: Tensor | float) -> None:
    """total += share · σ(logits), all (B, C); `total` may be a slice of columns, `logits` may be overwritten."""
    kernels = library() if logits.device.type == total.device.type == "cpu" else None
    if kernels is None or isinstance(share, Tensor):
        total += logits.sigmoid_() * share
        return
    rows, columns = logits.shape
    if total.shape != logits.shape or total.dtype != torch.float32 or total.stride(1) != 1:
        raise ValueError("the sigmoids are added to float32 numbers of their shape, or to a slice of columns of such")
    kernels.bce_add_sigmoid(
        address(logits, torch.float32, rows, columns),
        *map(ctypes.c_int64, (rows, columns, total.stride(0))),
        ctypes.c_float(share),
        ctypes.c_void_p(total.data_ptr()),
    )
