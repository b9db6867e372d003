"""TuckER's product x_b · dropout(Σ_k r_k W_k), with a dropout mask (D, D) per query that is drawn, never stored."""

import ctypes

import torch
import torch.nn.functional as F
from torch import Tensor

from trainers.kernels import address, library, loaded
from trainers.kernels.dropout import fresh_seed, threshold

BLOCK = 1 << 22  # numbers of the relations' matrices made at a time: 16 MB, read again while they are in cache
KEEP = 1 << 27  # bytes of them kept for the backward pass; the rest is made again there, a tenth of a step more


def contract(x: Tensor, relation: Tensor, core: Tensor, index: Tensor | None, p: float) -> Tensor:
    """x_b · dropout(Σ_k r_k W_k) for every query b: (B, D).

    Shapes: `x` (B, D), `relation` (U, D_r), `core` W (D_r, D, D), `index` (B,) rows of `relation`; None: row b (U = B).
    """
    if x.device.type == "cpu" and library() is not None:
        return _Contract.apply(x, relation, core, index, p, fresh_seed() if p else 0, torch.is_grad_enabled())
    matrix = (relation @ core.flatten(1)).unflatten(1, core.shape[1:])
    if index is not None:
        matrix = matrix[index]
    return torch.bmm(x.to(matrix).unsqueeze(1), F.dropout(matrix, p)).squeeze(1)


class _Contract(torch.autograd.Function):
    """Blocks of rows i of all matrices at once: each block is one matrix product and one visit by the kernel."""

    @staticmethod
    def forward(ctx, x, relation, core, index, p, seed, trains):
        ctx.dtypes = x.dtype, relation.dtype
        ctx.compute = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32
        x, relation = x.float().contiguous(), relation.float()
        groups, width = _Groups(index, len(relation), len(x)), core.shape[2]
        bound, scale = threshold(p)
        out = torch.zeros_like(x)
        kept = []
        keep = trains and len(relation) * core[0].numel() * 4 <= KEEP
        for first, rows in _blocks(core, len(relation)):
            matrix = _matrix(relation, core, first, rows, ctx.compute)
            loaded().tucker_forward(
                address(x, torch.float32, len(x), width),
                address(matrix, torch.float32, len(relation), rows * width),
                address(groups.order, torch.int64, len(x)),
                address(groups.index, torch.int64, len(x)),
                *map(ctypes.c_int64, (len(x), x.shape[1], first, rows)),
                ctypes.c_uint64(seed),
                ctypes.c_uint32(bound),
                ctypes.c_float(scale),
                address(out, torch.float32, len(x), width),
            )
            if keep:
                kept.append(matrix)
        ctx.save_for_backward(x, relation, core)
        ctx.groups, ctx.kept, ctx.seed, ctx.p = groups, kept, seed, p
        return out

    @staticmethod
    def backward(ctx, gradient):
        x, relation, core = ctx.saved_tensors
        gradient, width = gradient.float().contiguous(), core.shape[2]
        bound, scale = threshold(ctx.p)
        d_x, d_relation, d_core = torch.empty_like(x), torch.zeros_like(relation), torch.empty_like(core)
        for block, (first, rows) in enumerate(_blocks(core, len(relation))):
            matrix = ctx.kept[block] if ctx.kept else None
            if matrix is None:
                matrix = _matrix(relation, core, first, rows, ctx.compute)
            d_matrix = torch.empty_like(matrix)
            loaded().tucker_backward(
                address(x, torch.float32, len(x), width),
                address(matrix, torch.float32, len(relation), rows * width),
                address(ctx.groups.order, torch.int64, len(x)),
                address(ctx.groups.offsets, torch.int64, len(relation) + 1),
                ctypes.c_int64(len(relation)),
                address(gradient, torch.float32, len(x), width),
                *map(ctypes.c_int64, (x.shape[1], first, rows)),
                ctypes.c_uint64(ctx.seed),
                ctypes.c_uint32(bound),
                ctypes.c_float(scale),
                address(d_x, torch.float32, len(x), width),
                address(d_matrix, torch.float32, len(relation), rows * width),
            )
            part, into = _slice(core, first, rows), _slice(d_core, first, rows)
            if ctx.compute == torch.float32:
                d_relation.addmm_(d_matrix, part.T)
                torch.mm(relation.T, d_matrix, out=into)
            else:
                d_matrix = d_matrix.to(ctx.compute)
                d_relation += d_matrix @ part.T.to(ctx.compute)
                into.copy_(relation.T.to(ctx.compute) @ d_matrix)
            if ctx.kept:
                ctx.kept[block] = None  # its memory is needed for the gradients
        return d_x.to(ctx.dtypes[0]), d_relation.to(ctx.dtypes[1]), d_core, None, None, None, None


class _Groups:
    """Queries ordered by their matrix: order (B,), and offsets (U + 1,) of each matrix's queries in it."""

    def __init__(self, index: Tensor | None, matrices: int, queries: int):
        self.index = torch.arange(queries) if index is None else index.contiguous()
        self.order = torch.argsort(self.index, stable=True)
        self.offsets = F.pad(torch.bincount(self.index, minlength=matrices).cumsum(0), (1, 0))


def _blocks(core: Tensor, matrices: int) -> list[tuple[int, int]]:
    """(first row, rows) of each block."""
    width = core.shape[1]
    rows = min(width, max(1, BLOCK // (matrices * width)))
    return [(first, min(rows, width - first)) for first in range(0, width, rows)]


def _slice(core: Tensor, first: int, rows: int) -> Tensor:
    """Rows `first` … of every W_k: (D_r, rows · D), a view."""
    width = core.shape[2]
    return core.flatten(1)[:, first * width : (first + rows) * width]


def _matrix(relation: Tensor, core: Tensor, first: int, rows: int, compute: torch.dtype) -> Tensor:
    """(U, rows · D) float32 of Σ_k r_k W_k."""
    return (relation.to(compute) @ _slice(core, first, rows).to(compute)).float()
