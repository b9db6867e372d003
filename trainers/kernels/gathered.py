"""Scores of gathered candidates: distances Σ_j |q_j − e_j| or |q − e| (TransE), and products q · e (bilinear models).

On the CPU the C kernel visits each pair once forward and twice backward and stores nothing but the result; elsewhere,
or where it was not built, plain tensor operations gather (B, C, D) numbers.
"""

import ctypes

import torch
from torch import Tensor

from trainers.kernels import address, library, loaded

PRODUCT = 3  # beside the norms 1 and 2, as in the C file


def by_kernel(query: Tensor) -> bool:
    """Whether the C kernel computes what is asked with this query."""
    return query.device.type == "cpu" and library() is not None


def distances(query: Tensor, entity: Tensor, candidate: Tensor, side: Tensor, norm: int) -> Tensor:
    """(B, C) distances by `norm` (1 or 2) of each row's candidates from the query of their side, differentiable.

    query (B, 2, D): what the tail is compared with, what the head is compared with. entity (N, D).
    candidate (B, C) int64, rows of `entity`. side (B, C) bool: False compares with query 0 (of a tail), True with 1.
    """
    if by_kernel(query):
        return _Scores.apply(query.float(), entity.float(), candidate, side, norm)
    return torch.linalg.vector_norm(_asked(query, side) - entity[candidate], norm, dim=-1)


def products(query: Tensor, entity: Tensor, candidate: Tensor, side: Tensor) -> Tensor:
    """(B, C) float32 inner products of the same."""
    if by_kernel(query):
        return _Scores.apply(query.float(), entity.float(), candidate, side, PRODUCT)
    return (_asked(query, side) * entity[candidate]).sum(-1).float()


def _asked(query: Tensor, side: Tensor) -> Tensor:
    """(B, C, D): the query of each candidate."""
    return torch.where(side.unsqueeze(-1), query[:, None, 1], query[:, None, 0])


class _Scores(torch.autograd.Function):
    """Forward keeps its inputs and its result; backward computes the differences again."""

    @staticmethod
    def forward(ctx, query: Tensor, entity: Tensor, candidate: Tensor, side: Tensor, kind: int) -> Tensor:
        query, entity, candidate, side = (part.contiguous() for part in (query, entity, candidate, side))
        out = query.new_empty(candidate.shape)
        rows, count = candidate.shape
        loaded().gathered_scores(
            ctypes.c_int(kind),
            *_inputs(query, entity, candidate, side),
            *map(ctypes.c_int64, (rows, count, entity.shape[1])),
            address(out, torch.float32, rows, count),
        )
        ctx.save_for_backward(query, entity, candidate, side, *([out] if kind == 2 else []))
        ctx.kind = kind
        return out

    @staticmethod
    def backward(ctx, weight: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        query, entity, candidate, side, *length = ctx.saved_tensors
        if length:  # equal vectors give 0, as torch.linalg.vector_norm does
            weight = weight / torch.where(length[0] == 0, 1.0, length[0])
        weight = weight.contiguous()
        to_query, to_entity = torch.empty_like(query), torch.empty_like(entity)
        offsets, pair = candidate.new_empty(len(entity) + 1), candidate.new_empty(candidate.numel())
        rows, count = candidate.shape
        loaded().gathered_gradients(
            ctypes.c_int(ctx.kind),
            *_inputs(query, entity, candidate, side),
            address(weight, torch.float32, rows, count),
            *map(ctypes.c_int64, (rows, count, *entity.shape)),
            address(to_query, torch.float32, *query.shape),
            address(to_entity, torch.float32, *entity.shape),
            address(offsets, torch.int64, len(entity) + 1),
            address(pair, torch.int64, rows * count),
        )
        return to_query, to_entity, None, None, None


def _inputs(query: Tensor, entity: Tensor, candidate: Tensor, side: Tensor) -> list[ctypes.c_void_p]:
    (rows, count), width = candidate.shape, entity.shape[1]
    return [
        address(query, torch.float32, rows, 2, width),
        address(entity, torch.float32, len(entity), width),
        address(candidate, torch.int64, rows, count),
        address(side, torch.bool, rows, count),
    ]
