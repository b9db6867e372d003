"""Attention of one query, the same for every sequence, on sequences gathered from tables (MyGO's first pass).

The keys' projection folds into the query: logits are y·(W_kᵀ q), and mixing comes before the values' projection. On the
CPU the C kernel gathers, drops and mixes in one visit of each row and draws its masks again in the backward pass;
elsewhere, or where it was not built, plain tensor operations do the same in blocks of sequences (the same numbers
without dropout, the same law with it).
"""

import ctypes
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from trainers.kernels import address, blocks, library
from trainers.kernels.dropout import dropout, fresh_seed

BLOCK = 64  # sequences per work item of the C kernel; the same number as there


@dataclass(frozen=True)
class Segment:
    """The m places of one kind: which rows of which table stand there."""

    table: Tensor  # (U, D)
    index: Tensor | None  # (N, m) int64; None: sequence n has row n, and m = 1
    absent: Tensor | None  # (N, m) bool, True where the place is empty; None: none is
    p: float  # dropout on the gathered numbers

    @property
    def places(self) -> int:
        return 1 if self.index is None else self.index.shape[1]

    def values(self) -> Tensor:
        """(N, m, D) after dropout."""
        rows = self.table.unsqueeze(1) if self.index is None else F.embedding(self.index, self.table)
        return dropout(rows, self.p)

    def split(self, rows: int) -> list["Segment"]:
        """The same of the first `rows` sequences, of the next as many, and so on."""
        if self.index is None:
            tables = self.table.split(rows)
            absent = [None] * len(tables) if self.absent is None else self.absent.split(rows)
            return [replace(self, table=table, absent=one) for table, one in zip(tables, absent, strict=True)]
        indices = self.index.split(rows)
        absent = [None] * len(indices) if self.absent is None else self.absent.split(rows)
        return [replace(self, index=index, absent=one) for index, one in zip(indices, absent, strict=True)]


def mix(segments: list[Segment], direction: Tensor, offset: Tensor, p: float) -> tuple[Tensor, Tensor]:
    """Weighted sums of the sequences' rows: (N, H, D), and how much weight each segment has: (N, H, 1 + segments).

    `direction` (H, D) gives a row's logit by its dot product, `offset` (H, 1 + segments) is added for the segment it
    stands in; column 0 is the logit of the query's own place, which has no row. `p` drops weights.
    """
    table = segments[0].table
    if table.device.type == "cpu" and library() is not None:
        tables = [segment.table for segment in segments]
        seed = fresh_seed() if p or any(segment.p for segment in segments) else 0
        return _Mix.apply(direction, offset, p, seed, segments, *tables)
    width = sum(segment.places for segment in segments) * table.shape[1]
    rows = blocks.rows_at_once(table.device, width)
    parts = [(few, direction, offset, p) for few in zip(*(segment.split(rows) for segment in segments), strict=True)]
    # What a block keeps: the gathered numbers after dropout, and a byte for each of them, the mask.
    found = blocks.in_turn(_plain, parts, table.device, rows * width * (table.element_size() + 1))
    mixed, share = zip(*found, strict=True)
    return torch.cat(mixed), torch.cat(share)


def _plain(segments: Sequence[Segment], direction: Tensor, offset: Tensor, p: float) -> tuple[Tensor, Tensor]:
    """`mix` of all these sequences at once."""
    values = [segment.values() for segment in segments]
    weights = dropout(plain_weights(segments, values, direction, offset), p).to(values[0].dtype)
    parts = weights.split([1] + [segment.places for segment in segments], dim=-1)
    mixed = sum(part @ value for part, value in zip(parts[1:], values, strict=True))
    return mixed, torch.stack([part.sum(-1) for part in parts], dim=-1)


def plain_weights(segments: Sequence[Segment], values: list[Tensor], direction: Tensor, offset: Tensor) -> Tensor:
    """Attention weights (N, H, T) before their dropout, of `values` (N, m, D) for each segment."""
    logits = [offset[:, :1].expand(len(values[0]), -1, -1)]
    for column, (segment, value) in enumerate(zip(segments, values, strict=True), start=1):
        one = (value @ direction.T + offset[:, column]).transpose(1, 2)
        logits.append(one if segment.absent is None else one.masked_fill(segment.absent.unsqueeze(1), -math.inf))
    return torch.cat(logits, dim=-1).float().softmax(-1)


class _CSegment(ctypes.Structure):
    _fields_ = [
        ("table", ctypes.c_void_p),
        ("index", ctypes.c_void_p),
        ("absent", ctypes.c_void_p),
        ("m", ctypes.c_int64),
        ("threshold", ctypes.c_uint32),
        ("scale", ctypes.c_float),
    ]


class _CAttention(ctypes.Structure):
    _fields_ = [
        ("segments", ctypes.POINTER(_CSegment)),
        *((name, ctypes.c_int64) for name in ("count", "n", "d", "heads", "places")),
        ("direction", ctypes.c_void_p),
        ("offset", ctypes.c_void_p),
        ("seed", ctypes.c_uint64),
        ("threshold", ctypes.c_uint32),
        ("scale", ctypes.c_float),
    ]


def threshold(p: float) -> tuple[int, float]:
    """The 32-bit draws that drop, as a bound, and the scale of what is kept."""
    bound = min(round(p * 2**32), 2**32 - 1)
    return bound, 2**32 / (2**32 - bound)


class _Problem:
    """Everything the kernel reads, and the tensors that its addresses point into."""

    def __init__(self, segments: list[Segment], tables: list[Tensor], direction: Tensor, offset: Tensor, p, seed):
        self.segments = segments
        self.tables = [table.detach().float().contiguous() for table in tables]
        self.direction, self.offset = direction.detach().float().contiguous(), offset.detach().float().contiguous()
        self.index = [None if one.index is None else one.index.contiguous() for one in segments]
        self.absent = [None if one.absent is None else one.absent.contiguous() for one in segments]
        first = self.index[0]
        self.n = len(self.tables[0]) if first is None else len(first)
        self.heads, self.width = direction.shape
        self.places = 1 + sum(segment.places for segment in segments)
        self._parts = (_CSegment * len(segments))(*map(self._segment, range(len(segments))))
        self.c = _CAttention(
            self._parts, len(segments), self.n, self.width, self.heads, self.places,
            address(self.direction, torch.float32, self.heads, self.width),
            address(self.offset, torch.float32, self.heads, 1 + len(segments)), seed, *threshold(p),
        )  # fmt: skip

    def _segment(self, i: int) -> _CSegment:
        table, index, absent, places = self.tables[i], self.index[i], self.absent[i], self.segments[i].places
        rows = len(table) if index is not None else self.n
        return _CSegment(
            address(table, torch.float32, rows, self.width),
            None if index is None else address(index, torch.int64, self.n, places),
            None if absent is None else address(absent, torch.bool, self.n, places),
            places,
            *threshold(self.segments[i].p),
        )

    def scratch(self) -> tuple[Tensor, Tensor]:
        blocks = -(-self.n // BLOCK)
        return torch.empty(blocks, self.places, self.width), torch.empty(blocks, self.places, dtype=torch.uint8)

    def empty(self, *shape: int) -> Tensor:
        return torch.empty(self.n, self.heads, *shape)


class _Mix(torch.autograd.Function):
    @staticmethod
    def forward(ctx, direction, offset, p, seed, segments, *tables):
        problem = _Problem(segments, tables, direction, offset, p, seed)
        weight, mixed = problem.empty(problem.places), problem.empty(problem.width)
        share = problem.empty(len(segments) + 1)
        results = (*problem.scratch(), weight, mixed, share)
        library().ent_attention_forward(ctypes.byref(problem.c), *map(_made, results))
        ctx.save_for_backward(direction, offset, weight, *tables)
        ctx.segments, ctx.p, ctx.seed = segments, p, seed
        return mixed, share

    @staticmethod
    def backward(ctx, d_mixed, d_share):
        direction, offset, weight, *tables = ctx.saved_tensors
        problem = _Problem(ctx.segments, tables, direction, offset, ctx.p, ctx.seed)
        d_mixed, d_share = d_mixed.float().contiguous(), d_share.float().contiguous()
        dropped, slope = torch.empty_like(weight), torch.empty_like(weight)
        blocks = -(-problem.n // BLOCK)
        d_direction = torch.zeros(blocks, *direction.shape)
        d_offset = torch.zeros(blocks, *offset.shape)
        arguments = (*problem.scratch(), weight, d_mixed, d_share, dropped, slope, d_direction, d_offset)
        if d_mixed.shape != problem.empty(problem.width).shape or d_share.shape != problem.empty(len(offset[0])).shape:
            raise ValueError("a gradient has another shape than what it is the gradient of")
        library().ent_attention_backward(ctypes.byref(problem.c), *map(_made, arguments))
        d_tables, first = [], 1
        for position, table in enumerate(tables):
            d_table = _table_gradient(problem, position, first, dropped, slope, d_mixed)
            d_tables.append(d_table.to(table.dtype))
            first += ctx.segments[position].places
        small = d_direction.sum(0).to(direction.dtype), d_offset.sum(0).to(offset.dtype)
        return *small, None, None, None, *d_tables


def _made(tensor: Tensor) -> ctypes.c_void_p:
    """The address of a tensor that was made, or checked, in this file to have the shape that the kernel expects."""
    return address(tensor, tensor.dtype, *tensor.shape)


def _table_gradient(
    problem: _Problem, position: int, first: int, dropped: Tensor, slope: Tensor, d_mixed: Tensor
) -> Tensor:
    """(U, D): each row of a table collects from the places where it stands, in a fixed order."""
    kernels, table, index = library(), problem.tables[position], problem.index[position]
    assert kernels is not None, "the forward pass was the kernel's"
    if index is None:
        order, starts = torch.arange(problem.n), torch.arange(problem.n + 1)
    else:
        order, starts = torch.empty_like(index), torch.empty(len(table) + 1, dtype=torch.int64)
        cells, rows = ctypes.c_int64(index.numel()), ctypes.c_int64(len(table))
        kernels.ent_attention_order(_made(index), cells, rows, _made(order), _made(starts))
    d_table = torch.empty_like(table)
    kernels.ent_attention_table(
        ctypes.byref(problem.c),
        *map(ctypes.c_int64, (position, first)),
        _made(order),
        _made(starts),
        ctypes.c_int64(len(table)),
        *map(_made, (dropped, slope, d_mixed, d_table)),
    )
    return d_table
