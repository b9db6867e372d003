"""Messages that spread from the known entity of each query over the graph, and scores of all entities by what arrives.

The Neural Bellman-Ford network (Zhu et al. 2021, arXiv 2106.06935) where it is not zero: as in RED-GNN (Zhang and Yao
2022, arXiv 2108.06040) an entity that no walk has reached yet stays 0 and costs nothing. On the CPU the C kernel walks
query by query and computes the gradients along with the loss; elsewhere, or where it was not built, plain tensor
operations hold all entities of all queries (the same numbers; they are for checks and small graphs).
"""

import ctypes
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from trainers.kernels import address, library, loaded

WIDTHS = (16, 32)  # numbers of an entity that the C kernel is made for …
MOST_LAYERS = 16  # … and its layers
BLOCK = 1 << 26  # numbers that edges carry in plain torch at a time, where nothing is learnt: 256 MB


@dataclass(frozen=True)
class Edges:
    """Edges by the entity that they lead to: those of v are start[v] … start[v + 1] − 1. Each has its reverse."""

    start: Tensor  # (E + 1,) int64
    source: Tensor  # (edges,) int32: where an edge comes from
    relation: Tensor  # (edges,) int32, below 2R
    relations: int  # 2R
    calm: Tensor  # (most edges of an entity + 1,) float32: 1 / (1 + log(1 + n)) for n edges

    @property
    def entities(self) -> int:
        return len(self.start) - 1


@dataclass(frozen=True)
class Layers:
    """Parameters of all layers."""

    mix: Tensor  # (L, d, 3d): of an entity's own numbers, of what arrives, and of the same made calm
    bias: Tensor  # (L, d)
    gain: Tensor  # (L, d)
    shift: Tensor  # (L, d)


@dataclass(frozen=True)
class Queries:
    """What is asked, and with which numbers."""

    known: Tensor  # (B,) int64
    begin: Tensor  # (B, d): the known entity at the start
    ask: Tensor  # (B, d): an entity's score is its product with this
    weight: Tensor  # (B, L, 2R, d): what an edge of each relation does to what it carries
    hidden: Tensor  # (B, 2) int64: edges that the walk may not take; −1: none

    def split(self, rows: int) -> list["Queries"]:
        """The same queries, at most so many at a time."""
        parts = (self.known, self.begin, self.ask, self.weight, self.hidden)
        return [Queries(*few) for few in zip(*(part.split(rows) for part in parts), strict=True)]


def scores(edges: Edges, layers: Layers, queries: Queries) -> Tensor:
    """(B, E) float32, 0 where no walk of so many steps leads. Not differentiable where the C kernel computes it."""
    if not _by_kernel(queries):
        rows = max(1, BLOCK // max(1, len(edges.source) * queries.begin.shape[1]))
        return torch.cat([_plain(edges, layers, part) for part in queries.split(rows)])
    kept = _Arguments(edges, layers, queries)
    out = torch.zeros(len(queries.known), edges.entities)
    if loaded().walker_scores(*kept.pointers, address(out, torch.float32, *out.shape)):
        raise MemoryError("no memory for the walks of a batch")
    return out


def losses(edges: Edges, layers: Layers, queries: Queries, answer: Tensor, others: tuple[Tensor, Tensor, Tensor]):
    """(B,) cross entropy of each query's answer among all entities but its other known answers, differentiable.

    `others`: entities (n,) int64, and first (B,), last (B,): the known answers of query b are others[first:last].
    """
    if _by_kernel(queries):
        parts = queries.begin, queries.ask, queries.weight, layers.mix, layers.bias, layers.gain, layers.shift
        return _Losses.apply(*parts, edges, queries.known, queries.hidden, answer, others)
    found = _plain(edges, layers, queries)
    known, first, last = others
    length = last - first
    row = torch.arange(len(first), device=first.device).repeat_interleave(length)
    shift = length.cumsum(0) - length - first
    place = torch.arange(len(row), device=row.device) - shift[row]
    hidden = torch.zeros_like(found, dtype=torch.bool)
    hidden[row, known[place]] = True
    hidden[torch.arange(len(answer)), answer] = False
    return F.cross_entropy(found.masked_fill(hidden, -torch.inf), answer, reduction="none")


def _by_kernel(queries: Queries) -> bool:
    return queries.known.device.type == "cpu" and library() is not None


class _Graph(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("start", "source", "relation", "calm")),
        *((name, ctypes.c_int64) for name in ("entities", "relations", "layers", "d")),
        *((name, ctypes.c_void_p) for name in ("across", "down", "bias", "gain", "shift")),
    ]


class _Arguments:
    """What both functions of the kernel begin with; keeps alive what the pointers point to."""

    def __init__(self, edges: Edges, layers: Layers, queries: Queries):
        count, (depth, width) = len(queries.known), layers.bias.shape
        if width not in WIDTHS or not 1 <= depth <= MOST_LAYERS:
            raise ValueError(f"the kernel walks 1 to {MOST_LAYERS} layers of {WIDTHS} numbers, not {depth} of {width}")
        kind, whole, half = torch.float32, torch.int64, torch.int32
        links = len(edges.source)
        mix = layers.mix.detach()
        self.kept = [mix.transpose(1, 2).contiguous(), mix.contiguous()]
        self.kept += [part.detach().contiguous() for part in (layers.bias, layers.gain, layers.shift)]
        shapes = (depth, 3 * width, width), (depth, width, 3 * width), *3 * ((depth, width),)
        graph = _Graph(
            address(edges.start, whole, edges.entities + 1),
            address(edges.source, half, links),
            address(edges.relation, half, links),
            address(edges.calm, kind, len(edges.calm)),
            edges.entities, edges.relations, depth, width,
            *(address(part, kind, *shape) for part, shape in zip(self.kept, shapes, strict=True)),
        )  # fmt: skip
        floats = [part.detach().contiguous() for part in (queries.begin, queries.ask, queries.weight)]
        sizes = (count, width), (count, width), (count, depth, edges.relations, width)
        known, hidden = queries.known.contiguous(), queries.hidden.contiguous()
        self.kept += [*floats, known, hidden]
        self.pointers = (
            ctypes.byref(graph),
            ctypes.c_int64(count),
            address(known, whole, count),
            *(address(part, kind, *size) for part, size in zip(floats, sizes, strict=True)),
            address(hidden, whole, count, 2),
        )


class _Losses(torch.autograd.Function):
    """Forward computes each query's gradients too; backward scales and adds them, in the order of the queries."""

    @staticmethod
    def forward(ctx, begin, ask, weight, mix, bias, gain, shift, edges, known, hidden, answer, others):
        count, (depth, width) = len(known), bias.shape
        answer, *others = (part.contiguous() for part in (answer, *others))
        layers, queries = Layers(mix, bias, gain, shift), Queries(known, begin, ask, weight, hidden)
        kept = _Arguments(edges, layers, queries)
        loss = torch.zeros(count)
        shapes = [begin.shape, ask.shape, weight.shape, (count, depth, 3 * width, width), *3 * [(count, depth, width)]]
        slopes = [torch.zeros(shape) for shape in shapes]
        failed = loaded().walker_losses(
            *kept.pointers,
            address(answer, torch.int64, count),
            address(others[0], torch.int64, len(others[0])),
            address(others[1], torch.int64, count),
            address(others[2], torch.int64, count),
            *(address(part, torch.float32, *part.shape) for part in (loss, *slopes)),
        )
        if failed:
            raise MemoryError("no memory for the walks of a batch: set fewer walker_layers or a smaller walker_width")
        ctx.save_for_backward(*slopes)
        return loss

    @staticmethod
    def backward(ctx, gradient):
        slopes = [slope * gradient.view(-1, *[1] * (slope.dim() - 1)) for slope in ctx.saved_tensors]
        begin, ask, weight, across, *rest = slopes
        return begin, ask, weight, across.sum(0).transpose(1, 2), *(part.sum(0) for part in rest), *[None] * 5


def _plain(edges: Edges, layers: Layers, queries: Queries) -> Tensor:
    """`scores`, differentiable: (B, edges, d) numbers at a time."""
    count, device = len(queries.known), queries.known.device
    rows = torch.arange(count, device=device)
    degree = edges.start.diff()
    target = torch.repeat_interleave(torch.arange(edges.entities, device=device), degree)
    source, relation = edges.source.long(), edges.relation.long()
    open_ = torch.ones(count, len(source) + 1, device=device)  # the last one stands for no edge
    open_[rows[:, None], queries.hidden] = 0
    open_ = open_[:, :-1]
    calm = edges.calm[torch.zeros(count, edges.entities, device=device).index_add_(1, target, open_).long()]
    state = queries.begin.new_zeros(count, edges.entities, queries.begin.shape[1])
    state = state.index_put((rows, queries.known), queries.begin)
    reached = torch.zeros(count, edges.entities, device=device)
    reached[rows, queries.known] = 1
    for layer, parts in enumerate(zip(layers.mix, layers.bias, layers.gain, layers.shift, strict=True)):
        mix, bias, gain, shift = parts
        carried = state[:, source] * queries.weight[:, layer][:, relation] * open_.unsqueeze(2)
        came = torch.zeros_like(state).index_add(1, target, carried)
        reached = (reached + torch.zeros_like(reached).index_add(1, target, reached[:, source] * open_)).clamp(max=1)
        inner = torch.cat([state, came, calm.unsqueeze(2) * came], 2) @ mix.T + bias
        grown = state + F.relu(F.layer_norm(inner, bias.shape, gain, shift))
        state = grown * reached.unsqueeze(2)
    return torch.einsum("bed,bd->be", state, queries.ask)
