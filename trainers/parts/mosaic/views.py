"""Views: what a modality says of each entity, as a vector of length 1, or of zeros where it says nothing."""

import numpy as np
import torch
import torch.nn.functional as F
from scipy import sparse
from torch import Tensor, nn

from trainers.training.data import Features, Tokens


class Dense(nn.Module):
    """Features, their mean taken away. `vectors` (E, K)."""

    vectors: Tensor

    def __init__(self, features: Features, entities: int):
        super().__init__()
        self.register_buffer("vectors", _directions(features, features, entities))

    def grow(self, before: Features, after: Features, entities: int) -> None:
        """Let there be `entities`, whose vectors are those of `after`, less the mean of `before`."""
        self.vectors = _directions(before, after, entities).to(self.vectors.device)

    @property
    def width(self) -> int:
        return self.vectors.shape[1]

    def times(self, W: Tensor, entity: Tensor | None = None) -> Tensor:
        """(E, D): the vectors times W (K, D); (n, D) of those of `entity` (n,)."""
        return (self.vectors if entity is None else self.vectors[entity]) @ W

    def matrix(self) -> np.ndarray:
        """(E, K) on the CPU."""
        return self.vectors.cpu().numpy()


class Bag(nn.Module):
    """Tokens as they occur, the rarer the heavier: log (n / n_v), for the n_v of n entities that have token v.

    `start` (E + 1,), `token` (n,), `weight` (n,): compressed rows of an (E, V) matrix. `start_of_token` (V + 1,),
    `entity` (n,), `weight_of_entity` (n,): its columns, for the gradient on a GPU; in no checkpoint.
    """

    start: Tensor
    token: Tensor
    weight: Tensor
    start_of_token: Tensor
    entity: Tensor
    weight_of_entity: Tensor

    def __init__(self, tokens: Tokens, entities: int):
        super().__init__()
        self.width = len(tokens.token_id)
        for name, part in _bags(tokens, tokens, entities).items():
            self.register_buffer(name, part)
        self._turn()

    def _turn(self) -> None:
        columns = _compressed(self.matrix().T.tocsr())
        for name, part in zip(("start_of_token", "entity", "weight_of_entity"), columns, strict=True):
            self.register_buffer(name, part.to(self.start.device), persistent=False)

    def grow(self, before: Tokens, after: Tokens, entities: int) -> None:
        """Let there be `entities`, whose tokens are those of `after`, as rare as they are in `before`."""
        for name, part in _bags(before, after, entities).items():
            setattr(self, name, part.to(self.start.device))
        self._turn()

    def times(self, W: Tensor, entity: Tensor | None = None) -> Tensor:
        """(E, D): the bags times W (V, D); (n, D) of those of `entity` (n,)."""
        if by_scipy(W):
            bags = self.matrix()
            return _SparseProduct.apply(bags if entity is None else bags[entity.cpu().numpy()], W)
        columns = self.start_of_token, self.entity, self.weight_of_entity
        found = _ProductOnDevice.apply((self.start, self.token, self.weight), columns, W)
        return found if entity is None else found[entity]

    def matrix(self) -> sparse.csr_array:
        """(E, V) on the CPU."""
        parts = (self.weight.cpu().numpy(), self.token.cpu().numpy(), self.start.cpu().numpy())
        return sparse.csr_array(parts, shape=(len(self.start) - 1, self.width))


def _directions(of: Features, given: Features, entities: int) -> Tensor:
    """(E, K): the vectors `given`, less the mean of all those `of`, as directions; zeros where there is none."""
    vectors = torch.zeros(entities, given.matrix.shape[1])
    if len(given.entity):
        vectors[given.entity] = F.normalize(given.matrix.float() - of.mean(), dim=1)
    return vectors


def _bags(of: Tokens, given: Tokens, entities: int) -> dict[str, Tensor]:
    """Start, token and weight of the tokens `given`; how rare a token is says `of`, which has the same codebook."""

    def bag(tokens: Tokens) -> sparse.csr_array:
        owner = np.repeat(tokens.entity.numpy(), np.diff(tokens.offsets.numpy()))
        shape = (entities, len(of.token_id))
        found = sparse.csr_array((np.ones(len(owner), np.float32), (owner, tokens.values.numpy())), shape=shape)
        found.data[:] = 1
        return found

    rows = bag(given)
    have = np.bincount((rows if given is of else bag(of)).indices, minlength=rows.shape[1])
    rarity = np.log(max(len(of.entity.unique()), 1) / np.maximum(have, 1)).astype(np.float32)
    rows.data *= rarity[rows.indices] + 1e-3
    length = np.sqrt(rows.multiply(rows).sum(1))
    rows.data /= np.repeat(length, np.diff(rows.indptr))
    return dict(zip(("start", "token", "weight"), _compressed(rows), strict=True))


def _compressed(rows: sparse.csr_array) -> tuple[Tensor, Tensor, Tensor]:
    """Where each row starts, the columns, the values."""
    parts = zip((rows.indptr, rows.indices, rows.data), (np.int64, np.int64, np.float32), strict=True)
    start, column, value = (torch.from_numpy(part.astype(kind)) for part, kind in parts)
    return start, column, value


def by_scipy(W: Tensor) -> bool:
    """Whether the host makes the products of bags with W, which a GPU would have to be waited for."""
    return W.device.type == "cpu"


class _SparseProduct(torch.autograd.Function):
    """Compressed rows (E, V) times W (V, D), and its gradient by W, by scipy: a dense (E, V) would not fit."""

    @staticmethod
    def forward(ctx, matrix, W):
        ctx.matrix = matrix
        return torch.from_numpy(matrix @ W.detach().numpy())

    @staticmethod
    def backward(ctx, gradient):
        return None, torch.from_numpy(ctx.matrix.T @ gradient.numpy())


class _ProductOnDevice(torch.autograd.Function):
    """The same where W lies: each row is a sum of rows of W, and each row of the gradient one of rows of its own."""

    @staticmethod
    def forward(ctx, rows, columns, W):
        ctx.columns = columns
        return _sums(rows, W)

    @staticmethod
    def backward(ctx, gradient):
        return None, None, _sums(ctx.columns, gradient.contiguous())


def _sums(rows: tuple[Tensor, Tensor, Tensor], table: Tensor) -> Tensor:
    """Compressed rows times the table."""
    start, column, value = rows
    return F.embedding_bag(
        column, table, start, mode="sum", per_sample_weights=value.to(table.dtype), include_last_offset=True
    )
