"""TuckER's product x_b · dropout(Σ_k r_k W_k), with a dropout mask (D, D) per query that is drawn, never stored."""

import ctypes
import functools
import operator

import torch
import torch.nn.functional as F
from torch import Tensor

from trainers import room
from trainers.kernels import address, blocks, library, loaded
from trainers.kernels.dropout import dropout, fresh_seed, threshold
from trainers.matmul import add_product, set_product

BLOCK = 1 << 22  # numbers of the relations' matrices made at a time: 16 MB, read again while they are in cache


def contract(
    x: Tensor, relation: Tensor, core: Tensor, index: Tensor | None, p: float, kept: Tensor | None = None
) -> Tensor:
    """x_b · dropout(Σ_k r_k W_k) for every query b: (B, D).

    Shapes: `x` (B, D), `relation` (U, D_r), `core` W (D_r, D, D), `index` (B,) rows of `relation`; None: row b (U = B).
    `kept` (B, D) bool may say which numbers of `x` its dropout has left, all others being 0: rows of a query's own
    matrix that meet a dropped number are not made, and its gradient, which the dropout drops as well, is 0.

    In plain torch, as on a GPU, rows i of all matrices are made in blocks (trainers/kernels/blocks.py).
    """
    if x.device.type == "cpu" and library() is not None:
        kept = None if index is not None else kept
        return _Contract.apply(x, relation, core, index, p, fresh_seed() if p else 0, torch.is_grad_enabled(), kept)
    queries, width = max(len(x), len(relation)), core.shape[2]
    rows = blocks.rows_at_once(x.device, queries * width)
    pairs = zip(x.split(rows, 1), core.split(rows, 1), strict=True)
    parts = [(some, relation, block, index, p) for some, block in pairs]
    # What a block keeps: its matrices after dropout, and a byte for each of their numbers, the mask.
    found = blocks.in_turn(_plain, parts, x.device, queries * min(rows, width) * width * (core.element_size() + 1))
    return functools.reduce(operator.add, found)


def _plain(x: Tensor, relation: Tensor, core: Tensor, index: Tensor | None, p: float) -> Tensor:
    """What the rows i of all matrices that are given give, (B, D): `x` (B, rows), `core` (D_r, rows, D)."""
    matrix = (relation @ core.flatten(1)).unflatten(1, core.shape[1:])
    if index is not None:
        matrix = matrix[index]
    out = torch.bmm(x.to(matrix).unsqueeze(1), dropout(matrix, p)).squeeze(1)
    return out.to(torch.promote_types(out.dtype, torch.float32))  # blocks are added in at least float32


class _Contract(torch.autograd.Function):
    """Blocks of rows i of all matrices at once: each block is one visit by the kernel."""

    @staticmethod
    def forward(ctx, x, relation, core, index, p, seed, trains, kept=None):
        ctx.dtypes = x.dtype, relation.dtype
        compute = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32
        x, relation = x.float().contiguous(), relation.float()
        groups, width = _Groups(index, len(relation), len(x)), core.shape[2]
        bound, scale = threshold(p)
        out = torch.zeros_like(x)
        matrices, room_left = {}, room.may_keep() if trains else 0
        for first, rows in _blocks(core, len(relation)):
            part = _Part(relation, core, first, rows, compute, kept)
            matrix = part.matrix()
            loaded().tucker_forward(
                address(x, torch.float32, len(x), width),
                address(matrix, torch.float32, part.rows, width),
                part.place_address(len(x)),
                address(groups.order, torch.int64, len(x)),
                address(groups.index, torch.int64, len(x)),
                *map(ctypes.c_int64, (len(x), x.shape[1], first, rows)),
                ctypes.c_uint64(seed),
                ctypes.c_uint32(bound),
                ctypes.c_float(scale),
                address(out, torch.float32, len(x), width),
            )
            room_left -= matrix.numel() * 4
            if room_left >= 0:
                matrices[first] = matrix
        ctx.save_for_backward(x, relation, core)
        ctx.groups, ctx.matrices, ctx.seed, ctx.p, ctx.compute, ctx.kept = groups, matrices, seed, p, compute, kept
        return out

    @staticmethod
    def backward(ctx, gradient):
        x, relation, core = ctx.saved_tensors
        gradient, width = gradient.float().contiguous(), core.shape[2]
        bound, scale = threshold(ctx.p)
        d_x, d_relation, d_core = torch.empty_like(x), torch.zeros_like(relation), torch.empty_like(core)
        for first, rows in _blocks(core, len(relation)):
            part = _Part(relation, core, first, rows, ctx.compute, ctx.kept)
            matrix = ctx.matrices.pop(first, None)  # popped: its memory is needed for the gradients
            matrix = part.matrix() if matrix is None else matrix
            d_matrix = torch.empty_like(matrix)
            loaded().tucker_backward(
                address(x, torch.float32, len(x), width),
                address(matrix, torch.float32, part.rows, width),
                part.place_address(len(x)),
                address(ctx.groups.order, torch.int64, len(x)),
                address(ctx.groups.offsets, torch.int64, len(relation) + 1),
                ctypes.c_int64(len(relation)),
                address(gradient, torch.float32, len(x), width),
                *map(ctypes.c_int64, (x.shape[1], first, rows)),
                ctypes.c_uint64(ctx.seed),
                ctypes.c_uint32(bound),
                ctypes.c_float(scale),
                address(d_x, torch.float32, len(x), width),
                address(d_matrix, torch.float32, part.rows, width),
            )
            part.add_gradients(d_matrix, d_relation, d_core)
        return d_x.to(ctx.dtypes[0]), d_relation.to(ctx.dtypes[1]), d_core, *[None] * 5


class _Part:
    """The rows `first` … of all matrices Σ_k r_k W_k: how they are made, and what their gradients are gradients of.

    They lie as (U, rows, D); or, where `kept` (U, D) says which of them are needed, as those alone, row after row.
    """

    def __init__(
        self, relation: Tensor, core: Tensor, first: int, rows: int, compute: torch.dtype, kept: Tensor | None
    ):
        self.relation, self.core, self.compute = relation, core, compute
        self.first, self.last = first, first + rows
        self.rows, self.place, self.queries = len(relation) * rows, None, []
        if kept is not None:
            needed = kept[:, first : self.last].T  # (rows, U)
            self.queries = [row.nonzero().squeeze(1) for row in needed]
            self.rows = sum(map(len, self.queries))
            place = torch.full(needed.shape, -1)
            place[needed] = torch.arange(self.rows)
            self.place = place.T.contiguous()

    def place_address(self, queries: int) -> ctypes.c_void_p | None:
        """Where the kernel finds the row of each matrix and i, -1 for none; None: they lie in order."""
        if self.place is None:
            return None
        return address(self.place, torch.int64, queries, self.last - self.first)

    def matrix(self) -> Tensor:
        """(rows, D) float32."""
        relation, width = self.relation.to(self.compute), self.core.shape[2]
        if self.place is None:
            return (relation @ self._slice(self.core).to(self.compute)).float().view(self.rows, width)
        out, start = torch.empty(self.rows, width), 0
        for row, queries in enumerate(self.queries, start=self.first):
            into = out[start : start + len(queries)]
            set_product(into, relation[queries], self.core[:, row].to(self.compute))
            start += len(queries)
        return out

    def add_gradients(self, d_matrix: Tensor, d_relation: Tensor, d_core: Tensor) -> None:
        """Add to d_relation (U, D_r), and write these rows of d_core, given the gradient of `matrix`."""
        relation, d_matrix = self.relation.to(self.compute), d_matrix.to(self.compute)
        if self.place is None:
            d_matrix = d_matrix.view(len(relation), -1)
            add_product(d_relation, d_matrix, self._slice(self.core).T.to(self.compute))
            set_product(self._slice(d_core), relation.T, d_matrix)
            return
        start = 0
        for row, queries in enumerate(self.queries, start=self.first):
            slope = d_matrix[start : start + len(queries)]
            d_relation.index_add_(0, queries, (slope @ self.core[:, row].T.to(self.compute)).float())
            set_product(d_core[:, row], relation[queries].T, slope)
            start += len(queries)

    def _slice(self, core: Tensor) -> Tensor:
        """These rows of every W_k: (D_r, rows · D), a view."""
        width = core.shape[2]
        return core.flatten(1)[:, self.first * width : self.last * width]


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
