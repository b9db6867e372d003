"""Scores of gathered candidates: distances Σ_j |q_j − e_j| or |q − e| (TransE), and products q · e (bilinear models).

On the CPU the C kernel visits each pair once forward and twice backward and stores nothing but the result; elsewhere,
or where it was not built, plain tensor operations gather the candidates of a block of rows at a time.
"""

import ctypes

import torch
from torch import Tensor

from trainers.kernels import address, blocks, library, loaded

PRODUCT = 3  # beside the norms 1 and 2, as in the C file


def by_kernel(query: Tensor) -> bool:
    """Whether the C kernel computes what is asked with this query."""
    return query.device.type == "cpu" and library() is not None


def distances(query: Tensor, entity: Tensor, candidate: Tensor, side: Tensor, norm: int) -> Tensor:
    """(B, C) distances by `norm` (1 or 2) of each row's candidates from the query of their side, differentiable.

    query (B, 2, D): what the tail is compared with, what the head is compared with. entity (N, D).
    candidate (B, C) int64, rows of `entity`. side (B, C) bool: False compares with query 0 (of a tail), True with 1.
    """
    return _Scores.apply(query.float(), entity.float(), candidate, side, norm)


def products(query: Tensor, entity: Tensor, candidate: Tensor, side: Tensor) -> Tensor:
    """(B, C) float32 inner products of the same."""
    return _Scores.apply(query.float(), entity.float(), candidate, side, PRODUCT)


class _Scores(torch.autograd.Function):
    """Forward keeps its inputs and its result; backward computes the differences again."""

    @staticmethod
    def forward(ctx, query: Tensor, entity: Tensor, candidate: Tensor, side: Tensor, kind: int) -> Tensor:
        query, entity, candidate, side = (part.contiguous() for part in (query, entity, candidate, side))
        rows, count = candidate.shape
        if by_kernel(query):
            out = query.new_empty(candidate.shape)
            loaded().gathered_scores(
                ctypes.c_int(kind),
                *_inputs(query, entity, candidate, side),
                *map(ctypes.c_int64, (rows, count, entity.shape[1])),
                address(out, torch.float32, rows, count),
            )
        else:
            out = _plain_scores(query, entity, candidate, side, kind)
        ctx.save_for_backward(query, entity, candidate, side, *([out] if kind == 2 else []))
        ctx.kind = kind
        return out

    @staticmethod
    def backward(ctx, weight: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        query, entity, candidate, side, *length = ctx.saved_tensors
        if length:  # equal vectors give 0, as torch.linalg.vector_norm does
            weight = weight / torch.where(length[0] == 0, 1.0, length[0])
        weight = weight.contiguous()
        if not by_kernel(query):
            return *_plain_gradients(query, entity, candidate, side, weight, ctx.kind), None, None, None
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


def _plain_scores(query: Tensor, entity: Tensor, candidate: Tensor, side: Tensor, kind: int) -> Tensor:
    out = query.new_empty(candidate.shape)
    for rows in _row_blocks(candidate, entity):
        asked, given = _pairs(query, entity, candidate, side, rows)
        if kind == PRODUCT:
            out[rows] = asked.mul_(given).sum(-1)
        else:
            out[rows] = torch.linalg.vector_norm(asked.sub_(given), kind, dim=-1)
    return out


def _plain_gradients(
    query: Tensor, entity: Tensor, candidate: Tensor, side: Tensor, weight: Tensor, kind: int
) -> tuple[Tensor, Tensor]:
    """By the query and by the entities. `weight` (B, C): the gradient by the scores; of norm 2, over the distance."""
    to_query, to_entity = torch.empty_like(query), torch.zeros_like(entity)
    for rows in _row_blocks(candidate, entity):
        asked, given = _pairs(query, entity, candidate, side, rows)
        scale = weight[rows].unsqueeze(-1)
        if kind == PRODUCT:
            by_query, by_entity = given.mul_(scale), asked.mul_(scale)
        else:
            difference = asked.sub_(given)
            by_query = (difference.sign_() if kind == 1 else difference).mul_(scale)
            by_entity = -by_query
        heads = side[rows].unsqueeze(-1)
        to_query[rows, 0] = by_query.masked_fill(heads, 0).sum(1)
        to_query[rows, 1] = by_query.masked_fill(~heads, 0).sum(1)
        to_entity.index_add_(0, candidate[rows].flatten(), by_entity.flatten(0, 1))
    return to_query, to_entity


def _pairs(query: Tensor, entity: Tensor, candidate: Tensor, side: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
    """(b, C, D) twice, new ones: the query of each candidate of the rows, and the candidate."""
    asked = query[rows, None]
    return torch.where(side[rows].unsqueeze(-1), asked[:, :, 1], asked[:, :, 0]), entity[candidate[rows]]


def _row_blocks(candidate: Tensor, entity: Tensor) -> list[slice]:
    rows = blocks.rows_at_once(entity.device, candidate.shape[1] * entity.shape[1])
    return [slice(start, start + rows) for start in range(0, len(candidate), rows)]
