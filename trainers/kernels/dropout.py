"""Dropout whose mask is a function of a seed: drawn again in the backward pass, never stored.

The C kernel takes 16 random bits per number, so it drops with the probability round(p · 65536) / 65536 and scales by
the exact inverse of what that keeps. Elsewhere torch's own dropout follows the same law with other draws.
"""

import ctypes

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainers.kernels import address, library

STEPS = 1 << 16


def threshold(p: float) -> tuple[int, float]:
    """The draws of 16 bits that drop, as a bound, and the scale of what is kept."""
    bound = min(round(p * STEPS), STEPS - 1)
    return bound, STEPS / (STEPS - bound)


def fresh_seed() -> int:
    """A seed from torch's global CPU generator, so that seeding that generator repeats every mask."""
    return int(torch.randint(1 << 62, ()))


def dropout(x: Tensor, p: float) -> Tensor:
    """`x` with each number dropped with probability p, the others scaled by 1 / (1 − p). p = 0 returns `x`."""
    if p == 0:
        return x
    if x.device.type != "cpu" or library() is None:
        return F.dropout(x, p)
    if x.dtype != torch.float32:  # twice the copying, a tenth of the time that torch takes to draw
        return dropout(x.float(), p).to(x.dtype)
    return _Dropout.apply(x, fresh_seed(), p)


def dropout_linear(x: Tensor, layer: nn.Linear, p: float) -> Tensor:
    """`layer` (which has a bias) of the dropped `x` (B, D), without keeping what was dropped for the backward pass."""
    plain = x.device.type != "cpu" or x.dtype != torch.float32 or torch.is_autocast_enabled("cpu") or library() is None
    if p == 0 or plain:
        return layer(dropout(x, p))
    return _DropoutLinear.apply(x, layer.weight, layer.bias, fresh_seed(), p)


def drop(x: Tensor, seed: int, p: float) -> Tensor:
    """One application of the mask of (seed, p) to a float32 CPU tensor; needs the C kernel."""
    kernels = library()
    assert kernels is not None, "whoever calls this has asked for the kernels"
    x = x.contiguous()
    out = torch.empty_like(x)
    bound, scale = threshold(p)
    kernels.dropout(
        address(x, torch.float32, *x.shape),
        ctypes.c_int64(x.numel()),
        ctypes.c_uint64(seed),
        ctypes.c_uint32(bound),
        ctypes.c_float(scale),
        address(out, torch.float32, *x.shape),
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


class _DropoutLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, seed, p):
        ctx.save_for_backward(x, weight)
        ctx.seed, ctx.p = seed, p
        return torch.addmm(bias, drop(x, seed, p), weight.T)

    @staticmethod
    def backward(ctx, gradient):
        x, weight = ctx.saved_tensors
        to_weight = gradient.T @ drop(x, ctx.seed, ctx.p)
        return drop(gradient @ weight, ctx.seed, ctx.p), to_weight, gradient.sum(0), None, None
