"""Which implementation multiplies float32 matrices in this process: one choice, made before a run starts.

torch's own products go to MKL, which on AMD's processors takes its AVX2 path even where the processor has AVX-512, at
less than half of what oneDNN reaches. torch's precision "medium" sends them to oneDNN. It permits, but does not demand,
that factors are rounded to bfloat16, so it is taken only where a product shows that nothing is rounded.
"""

import functools
import logging
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

log = logging.getLogger(__name__)
Choice = Literal["auto", "plain", "tf32"]
PRECISION = {"plain": "highest", "onednn": "medium", "tf32": "high"}


def use(choice: Choice, device: torch.device) -> str:
    """Let this process multiply float32 matrices as chosen; returns what that is here: "plain", "onednn" or "tf32".

    auto: the fastest way that is exact in float32. plain: torch's own. tf32: factors rounded to 10 bits on a GPU; on
    the CPU, which has no such products, as auto. The same on the same machine every time, so that a run which goes on
    from a checkpoint multiplies as before.
    """
    used = "plain"
    if device.type == "cuda":
        used = "tf32" if choice == "tf32" else "plain"
    elif choice != "plain" and _mkl_is_slow() and _exact(PRECISION["onednn"]):
        used = "onednn"
    torch.set_float32_matmul_precision(PRECISION[used])
    return used


@functools.cache
def _mkl_is_slow() -> bool:
    """Whether this is a processor on which MKL leaves AVX-512 unused and oneDNN, which does not, is at hand."""
    wide = torch.backends.cpu.get_cpu_capability() == "AVX512" and torch.backends.mkldnn.is_available()
    about = Path("/proc/cpuinfo")
    return wide and about.exists() and "AuthenticAMD" in about.read_text(encoding="utf-8", errors="replace")


@functools.cache
def _exact(precision: str) -> bool:
    """Whether products at torch's `precision` err no more than plain ones do, measured against float64."""
    draw = torch.Generator().manual_seed(0)
    left, right = (torch.randn(256, 512, generator=draw) for _ in range(2))
    true, before = left.double() @ right.double().T, torch.get_float32_matmul_precision()
    errors = {}
    try:
        for one in (PRECISION["plain"], precision):
            torch.set_float32_matmul_precision(one)
            errors[one] = (left @ right.T - true).abs().max().item()
    finally:
        torch.set_float32_matmul_precision(before)
    exact = errors[precision] <= 4 * errors[PRECISION["plain"]]  # bfloat16 errs a thousand times more
    if not exact:
        log.info("oneDNN rounds float32 products on this processor: plain ones are used")
    return exact


def add_product(into: Tensor, left: Tensor, right: Tensor) -> None:
    """into += left @ right; `into` is float32, and where the factors are too no product is made beside it."""
    if left.dtype == torch.float32:
        into.addmm_(left, right)
    else:
        into += left @ right


def set_product(into: Tensor, left: Tensor, right: Tensor) -> None:
    """into = left @ right; see `add_product`."""
    if left.dtype == torch.float32:
        torch.mm(left, right, out=into)
    else:
        into.copy_(left @ right)
