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
        vectors = torch.zeros(entities, features.matrix.shape[1])
        if len(features.entity):
            vectors[features.entity] = F.normalize(features.matrix.float() - features.mean(), dim=1)
        self.register_buffer("vectors", vectors)

    @property
    def width(self) -> int:
        return self.vectors.shape[1]

    def times(self, W: Tensor) -> Tensor:
        """(E, D): the vectors times W (K, D)."""
        return self.vectors @ W

    def matrix(self) -> np.ndarray:
        """(E, K) on the CPU."""
        return self.vectors.cpu().numpy()


class Bag(nn.Module):
    """Tokens as they occur, the rarer the heavier: log (n / n_v), for the n_v of n entities that have token v.

    `start` (E + 1,), `token` (n,), `weight` (n,): compressed rows of an (E, V) matrix.
    """

    start: Tensor
    token: Tensor
    weight: Tensor

    def __init__(self, tokens: Tokens, entities: int):
        super().__init__()
        owner = np.repeat(tokens.entity.numpy(), np.diff(tokens.offsets.numpy()))
        shape = (entities, len(tokens.token_id))
        bag = sparse.csr_array((np.ones(len(owner), np.float32), (owner, tokens.values.numpy())), shape=shape)
        bag.data[:] = 1
        have = np.bincount(bag.indices, minlength=shape[1])
        rarity = np.log(max(len(tokens.entity.unique()), 1) / np.maximum(have, 1)).astype(np.float32)
        bag.data *= rarity[bag.indices] + 1e-3
        length = np.sqrt(bag.multiply(bag).sum(1))
        bag.data /= np.repeat(length, np.diff(bag.indptr))
        self.width = shape[1]
        self.register_buffer("start", torch.from_numpy(bag.indptr.astype(np.int64)))
        self.register_buffer("token", torch.from_numpy(bag.indices.astype(np.int64)))
        self.register_buffer("weight", torch.from_numpy(bag.data.astype(np.float32)))

    def times(self, W: Tensor) -> Tensor:
        """(E, D): the bags times W (V, D)."""
        return _SparseProduct.apply(self.matrix(), W)

    def matrix(self) -> sparse.csr_array:
        """(E, V) on the CPU."""
        parts = (self.weight.cpu().numpy(), self.token.cpu().numpy(), self.start.cpu().numpy())
        return sparse.csr_array(parts, shape=(len(self.start) - 1, self.width))


class _SparseProduct(torch.autograd.Function):
    """Compressed rows (E, V) times W (V, D), and its gradient by W, by scipy: a dense (E, V) would not fit."""

    @staticmethod
    def forward(ctx, matrix, W):
        ctx.matrix, ctx.device = matrix, W.device
        return torch.from_numpy(matrix @ W.detach().cpu().numpy()).to(W.device)

    @staticmethod
    def backward(ctx, gradient):
        return None, torch.from_numpy(ctx.matrix.T @ gradient.cpu().numpy()).to(ctx.device)
