"""A Transformer layer whose parts can be asked for one by one, and at the first few places only."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainers.kernels.dropout import dropout


class TransformerLayer(nn.TransformerEncoderLayer):
    """PyTorch's post-norm layer with ReLU, its weights drawn from `generator` by PyTorch's own rules."""

    def __init__(self, width: int, heads: int, hidden: int, p: float, generator: torch.Generator):
        super().__init__(width, heads, hidden, p, batch_first=True, device="meta")
        self.to_empty(device="cpu")
        self.width, self.heads, self.p = width, heads, p
        nn.init.xavier_uniform_(self.self_attn.in_proj_weight, generator=generator)
        nn.init.zeros_(self.self_attn.in_proj_bias)
        for linear in (self.self_attn.out_proj, self.linear1, self.linear2):
            bound = linear.in_features**-0.5
            nn.init.uniform_(linear.weight, -bound, bound, generator=generator)
            nn.init.uniform_(linear.bias, -bound, bound, generator=generator)
        nn.init.zeros_(self.self_attn.out_proj.bias)
        for norm in (self.norm1, self.norm2):
            norm.reset_parameters()

    @property
    def drop(self) -> float:
        """The dropout probability that holds now: none in evaluation."""
        return self.p if self.training else 0.0

    def at(self, x: Tensor, absent: Tensor | None = None, queries: int | None = None) -> Tensor:
        """What `forward` makes of sequences (N, T, D) at their first `queries` places (None: all): (N, queries, D).

        Places that are `absent` (N, T) bool are not attended to.
        """
        asking = x if queries is None else x[:, :queries]
        w, b = self.self_attn.in_proj_weight, self.self_attn.in_proj_bias
        q = F.linear(asking, w[: self.width], b[: self.width]).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k, v = F.linear(x, w[self.width :], b[self.width :]).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        logits = q @ k.transpose(-1, -2) / math.sqrt(self.width // self.heads)  # (N, heads, queries, T)
        if absent is not None:
            logits = logits.masked_fill(absent[:, None, None], -math.inf)
        weights = dropout(logits.float().softmax(-1), self.drop)
        mixed = (weights.to(v.dtype) @ v).transpose(1, 2).flatten(2)
        return self.finish(asking, mixed)

    def finish(self, x: Tensor, mixed: Tensor) -> Tensor:
        """The rest of the layer, after attention has `mixed` the values: projection, residual, norm, feed-forward."""
        x = self.norm1(x + dropout(self.self_attn.out_proj(mixed), self.drop))
        hidden = dropout(F.relu(self.linear1(x)), self.drop)
        return self.norm2(x + dropout(self.linear2(hidden), self.drop))
