"""Dropout whose mask is a function of a seed: drawn again in the backward pass, never stored.

The C kernel takes 16 random bits a number, so it drops with the probability round(p · 65536) / 65536 and scales by the
exact inverse of what that keeps. Elsewhere torch's own dropout follows the same law with other draws.
"""

import ctypes

import torch
import torch.nn.functional as F
from torch import Tensor

from trainers.kernels import address, library

STEPS = 1 << 16


def threshold(p: float) -> tuple[int, float]:
    """The draws of 16 bits that drop, as a bound, and the scale of what is kept."""
    bound = min(round(p * STEPS), STEPS - 1)
    return bound, STEPS / (STEPS - bound)


def fresh_seed() -> int:
    """A seed out of torch's global CPU generator, so that reseeding that one repeats every mask."""
    return int(torch.randint(1 << 62, ()))


def dropout(x: Tensor, p: float) -> Tensor:
    """`x` with each number dropped with probability p, the others scaled by 1 / (1 − p). p = 0 returns `x`."""
    if p == 0:
        return x
    if x.device.type != "cpu" or x.dtype != torch.float32 or library() is None:
        return F.dropout(x, p)
    return _Dropout.apply(x, fresh_seed(), p)


def drop(x: Tensor, seed: int, p: float) -> Tensor:
    """One application of the mask of (seed, p) to a float32 CPU tensor; needs the C kernel."""
    x = x.contiguous()
    out = torch.empty_like(x)
    bound, scale = threshold(p)
    library().dropout(
        address(x),
        ctypes.c_int64(x.numel()),
        ctypes.c_uint64(seed),
        ctypes.c_uint32(bound),
        ctypes.c_float(scale),
        address(out),
    )
    return out


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, seed, p):
        ctx.seed, ctx.p = seed, p
        return drop(x, seed, p)

    @staticmethod
    def backward(ctx, gradient):
        return drop(gradient, ctx.seed, ctx.p), None, None
