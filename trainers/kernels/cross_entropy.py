"""Cross entropy of one hidden entity among all of them, without keeping the (B, E) scores."""

import ctypes

import torch
import torch.nn.functional as F
from torch import Tensor

from trainers.kernels import address, library

BLOCK = {"cpu": 1 << 22, "cuda": 1 << 28}  # scores made at a time: 16 MB, which stay in cache; 1 GB


def linear_cross_entropy(query: Tensor, candidates: Tensor, target: Tensor) -> Tensor:
    """Mean cross entropy of `target` (B,) int64 under the scores query (B, D) · candidates (E, D)ᵀ, a 0-d float32.

    The scores are made block by block, and each block becomes its own gradient while it is in cache.
    """
    return _LinearCrossEntropy.apply(query, candidates, target)


class _LinearCrossEntropy(torch.autograd.Function):
    """Forward computes the gradients too; backward only scales them."""

    @staticmethod
    def forward(ctx, query, candidates, target):
        kind = query.device.type
        compute = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else torch.float32
        ctx.dtypes = query.dtype, candidates.dtype
        query, candidates = query.to(compute), candidates.to(compute)
        d_query = torch.empty_like(query)
        d_candidates = torch.zeros(candidates.shape, device=candidates.device)
        cost = torch.zeros((), dtype=torch.float64 if kind == "cpu" else torch.float32, device=query.device)
        rows = max(1, BLOCK.get(kind, BLOCK["cpu"]) // len(candidates))
        for start in range(0, len(query), rows):
            part = slice(start, start + rows)
            scores = (query[part] @ candidates.T).float()
            cost += cost_and_slope_(scores, target[part], 1 / len(query))
            slope = scores.to(compute)
            torch.mm(slope, candidates, out=d_query[part])
            if compute == torch.float32:
                d_candidates.addmm_(slope.T, query[part])
            else:
                d_candidates += slope.T @ query[part]
        ctx.save_for_backward(d_query, d_candidates)
        return cost.float()

    @staticmethod
    def backward(ctx, gradient):
        d_query, d_candidates = ctx.saved_tensors
        return (d_query * gradient).to(ctx.dtypes[0]), (d_candidates * gradient).to(ctx.dtypes[1]), None


def cost_and_slope_(scores: Tensor, target: Tensor, weight: float) -> Tensor:
    """weight · Σ_b (log Σ_e exp s_be − s_b,target(b)), 0-d; `scores` (B, E) float32 become its gradient."""
    kernels = library() if scores.device.type == "cpu" else None
    if kernels is not None:
        rows, columns = scores.shape
        cost, target = torch.empty(rows, dtype=torch.float64), target.contiguous()
        kernels.softmax_cost_and_slope(
            address(scores, torch.float32, rows, columns),
            address(target, torch.int64, rows),
            *map(ctypes.c_int64, (rows, columns)),
            ctypes.c_float(weight),
            address(cost, torch.float64, rows),
        )
        return cost.sum() * weight
    cost = F.cross_entropy(scores, target, reduction="sum") * weight
    own = torch.arange(len(scores), device=scores.device)
    scores.copy_(scores.softmax(1))
    scores[own, target] -= 1
    scores.mul_(weight)
    return cost
