"""Attention over a few modalities: with r_m = relu(p_m), a = softmax_m(w · r_m), the result is Σ_m a_m r_m."""

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from trainers.kernels import address, library, loaded

MOST = 8  # modalities that the C kernel takes
CHUNK = 128


def attend(parts: Sequence[Tensor], weight: Tensor, present: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The result (B, D) and the weights a (B, M), which carry no gradient, of M parts (B, D) before their ReLU.

    `weight` (D,). `present` (B, M) bool says which parts take part; a row without any gives zeros.
    """
    if weight.device.type == "cpu" and len(parts) <= MOST and library() is not None:
        return _Attend.apply(weight, present, *parts)
    positive = torch.stack([torch.relu(part) for part in parts], dim=1)
    logits = positive @ weight.to(positive)
    if present is not None:
        logits = logits.masked_fill(~present, float("-inf"))
    weights = torch.softmax(logits, dim=1)
    if present is not None:
        weights = torch.where(present, weights, 0.0)
    return (weights.to(positive).unsqueeze(-1) * positive).sum(1), weights.detach()


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weight, present, *parts):
        ctx.dtypes = [part.dtype for part in parts]
        parts = [part.float().contiguous() for part in parts]
        weight = weight.float().contiguous()
        present = None if present is None else present.contiguous()
        rows, width = parts[0].shape
        weights, out = torch.empty(rows, len(parts)), torch.empty(rows, width)
        loaded().attention_forward(
            _addresses(parts, rows, width),
            ctypes.c_int64(len(parts)),
            address(weight, torch.float32, width),
            None if present is None else address(present, torch.bool, rows, len(parts)),
            ctypes.c_int64(rows),
            ctypes.c_int64(width),
            address(weights, torch.float32, rows, len(parts)),
            address(out, torch.float32, rows, width),
        )
        ctx.save_for_backward(weight, weights, *parts)
        ctx.mark_non_differentiable(weights)
        return out, weights

    @staticmethod
    def backward(ctx, gradient, _):
        weight, weights, *parts = ctx.saved_tensors
        rows, width = gradient.shape
        gradient = gradient.float().contiguous()
        to_parts = [torch.empty_like(part) for part in parts]
        to_weight = torch.empty(-(-rows // CHUNK), width)
        loaded().attention_backward(
            _addresses(parts, rows, width),
            ctypes.c_int64(len(parts)),
            address(weight, torch.float32, width),
            address(weights, torch.float32, rows, len(parts)),
            address(gradient, torch.float32, rows, width),
            ctypes.c_int64(rows),
            ctypes.c_int64(width),
            _addresses(to_parts, rows, width),
            address(to_weight, torch.float32, -(-rows // CHUNK), width),
        )
        found = (part.to(dtype) for part, dtype in zip(to_parts, ctx.dtypes, strict=True))
        return to_weight.sum(0), None, *found


def _addresses(tensors: Sequence[Tensor], rows: int, width: int) -> ctypes.Array:
    found = [address(tensor, torch.float32, rows, width).value for tensor in tensors]
    return (ctypes.c_void_p * len(tensors))(*found)
