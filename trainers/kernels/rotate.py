"""Distances between complex vectors (RotatE, arXiv 1902.10197, equation 4): Σ_j |q_j − e_j|, moduli summed.

A complex vector of width D lies as 2D real numbers: first all real parts, then all imaginary parts. On the CPU the C
kernel visits each pair once forward and twice backward and stores nothing but the result; elsewhere, or where it was
not built, the same numbers come from blocks of plain tensor operations. Neither keeps anything of size B × K × D.
"""

import ctypes

import torch
from torch import Tensor

from trainers.kernels import address, library

BLOCK = {"cpu": 1 << 22, "cuda": 1 << 27}  # numbers in one temporary of the plain path


def distances(query: Tensor, entity: Tensor, candidate: Tensor, side: Tensor) -> Tensor:
    """(B, C) distances of each row's candidates from the query of their side, differentiable in `query`, `entity`.

    query (B, 2, 2D): what the tail is compared with, what the head is compared with. entity (N, 2D).
    candidate (B, C) int64, rows of `entity`. side (B, C) bool: False compares with query 0 (of a tail), True with 1.
    """
    return _Distances.apply(query.float(), entity.float(), candidate, side)


def all_distances(query: Tensor, entity: Tensor) -> Tensor:
    """(Q, N) distances of every query (Q, 2D) to every entity (N, 2D); for evaluation, without gradients."""
    query, entity = query.contiguous(), entity.contiguous()
    width = entity.shape[1] // 2
    kernels = library() if query.device.type == "cpu" else None
    if kernels is not None:
        out = query.new_empty(len(query), len(entity))
        kernels.rotate_all_distances(
            address(query, torch.float32, len(query), 2 * width),
            _int(len(query)),
            address(entity, torch.float32, len(entity), 2 * width),
            _int(len(entity)),
            _int(width),
            address(out, torch.float32, len(query), len(entity)),
        )
        return out
    out = query.new_empty(len(query), len(entity))
    rows = max(1, _block(query) // max(1, len(query) * 2 * width))
    for start in range(0, len(entity), rows):
        out[:, start : start + rows] = _modulus(query[:, None] - entity[None, start : start + rows]).sum(-1)
    return out


def rotated(vector: Tensor, angle: Tensor) -> Tensor:
    """Complex vectors (B, 2D), real parts first, turned by `angle` (B, D)."""
    real, imaginary = vector.chunk(2, dim=-1)
    cosine, sine = angle.cos(), angle.sin()
    return torch.cat([real * cosine - imaginary * sine, real * sine + imaginary * cosine], dim=-1)


class _Distances(torch.autograd.Function):
    """Forward keeps its inputs only; backward computes the differences again."""

    @staticmethod
    def forward(ctx, query: Tensor, entity: Tensor, candidate: Tensor, side: Tensor) -> Tensor:
        query, entity, candidate, side = (part.contiguous() for part in (query, entity, candidate, side))
        ctx.save_for_backward(query, entity, candidate, side)
        kernels = library() if query.device.type == "cpu" else None
        if kernels is None:
            return _plain_forward(query, entity, candidate, side)
        out = query.new_empty(candidate.shape)
        rows, count = candidate.shape
        kernels.rotate_distances(
            *_inputs(query, entity, candidate, side),
            *map(_int, (rows, count, _width(entity))),
            address(out, torch.float32, rows, count),
        )
        return out

    @staticmethod
    def backward(ctx, weight: Tensor) -> tuple[Tensor, Tensor, None, None]:
        query, entity, candidate, side = ctx.saved_tensors
        weight = weight.contiguous()
        kernels = library() if query.device.type == "cpu" else None
        if kernels is None:
            return *_plain_backward(query, entity, candidate, side, weight), None, None
        to_query, to_entity = torch.empty_like(query), torch.empty_like(entity)
        offsets = candidate.new_empty(len(entity) + 1)
        pair = candidate.new_empty(candidate.numel())
        rows, count = candidate.shape
        kernels.rotate_gradients(
            *_inputs(query, entity, candidate, side),
            address(weight, torch.float32, rows, count),
            *map(_int, (rows, count, len(entity), _width(entity))),
            address(to_query, torch.float32, *query.shape),
            address(to_entity, torch.float32, *entity.shape),
            address(offsets, torch.int64, len(entity) + 1),
            address(pair, torch.int64, rows * count),
        )
        return to_query, to_entity, None, None


def _inputs(query: Tensor, entity: Tensor, candidate: Tensor, side: Tensor) -> list[ctypes.c_void_p]:
    rows, count = candidate.shape
    return [
        address(query, torch.float32, rows, 2, 2 * _width(entity)),
        address(entity, torch.float32, len(entity), 2 * _width(entity)),
        address(candidate, torch.int64, rows, count),
        address(side, torch.bool, rows, count),
    ]


def _plain_forward(query: Tensor, entity: Tensor, candidate: Tensor, side: Tensor) -> Tensor:
    out = [
        _modulus(_difference(query[rows], entity, candidate[rows], side[rows])).sum(-1)
        for rows in _row_blocks(candidate, entity)
    ]
    return torch.cat(out) if out else query.new_zeros(candidate.shape)


def _plain_backward(
    query: Tensor, entity: Tensor, candidate: Tensor, side: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor]:
    to_query, to_entity = torch.zeros_like(query), torch.zeros_like(entity)
    for rows in _row_blocks(candidate, entity):
        difference = _difference(query[rows], entity, candidate[rows], side[rows])
        modulus = _modulus(difference)
        scale = weight[rows].unsqueeze(-1) / torch.where(modulus == 0, 1.0, modulus)
        difference *= scale.repeat(1, 1, 2)
        heads = side[rows].unsqueeze(-1).to(difference)
        to_query[rows, 1] = (difference * heads).sum(1)
        to_query[rows, 0] = (difference * (1 - heads)).sum(1)
        to_entity.index_add_(0, candidate[rows].reshape(-1), difference.flatten(0, 1), alpha=-1)
    return to_query, to_entity


def _difference(query: Tensor, entity: Tensor, candidate: Tensor, side: Tensor) -> Tensor:
    """(B, C, 2D): each candidate's query minus the candidate."""
    asked = torch.where(side.unsqueeze(-1), query[:, None, 1], query[:, None, 0])
    return asked.sub_(entity[candidate])


def _modulus(difference: Tensor) -> Tensor:
    """(…, 2D) to (…, D)."""
    real, imaginary = difference.chunk(2, dim=-1)
    return (real.square() + imaginary.square()).sqrt_()


def _row_blocks(candidate: Tensor, entity: Tensor) -> list[slice]:
    rows = max(1, _block(entity) // max(1, candidate.shape[1] * entity.shape[1]))
    return [slice(start, start + rows) for start in range(0, len(candidate), rows)]


def _block(tensor: Tensor) -> int:
    return BLOCK.get(tensor.device.type, BLOCK["cpu"])


def _width(entity: Tensor) -> int:
    return entity.shape[1] // 2


def _int(number: int) -> ctypes.c_int64:
    return ctypes.c_int64(number)
