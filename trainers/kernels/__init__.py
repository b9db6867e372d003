"""Inner loops in C, for the CPU. Each file.c has a file.py beside it: the same numbers in plain torch, and the choice.

The C files become one shared library when the package is installed (`setup.py`), or in place by
`python setup.py build_ext --inplace`. Nothing requires it: `library()` is None where it could not be built.
"""

import ctypes
import functools
import importlib.machinery
import logging
import os
from pathlib import Path

import torch
from torch import Tensor

log = logging.getLogger(__name__)
NEWEST = "walker_losses"  # what a library that was built before the last change of the C files does not have


@functools.cache
def library() -> ctypes.CDLL | None:
    """The kernels, or None (logged once) where they were not built or `TESSERA_KERNELS=off` asks for plain torch.

    Calls through ctypes release the interpreter's lock and run on as many threads as torch.set_num_threads says.
    """
    if os.environ.get("TESSERA_KERNELS", "on").lower() == "off":
        log.info("TESSERA_KERNELS=off: plain torch instead of the C kernels")
        return None
    folder = Path(__file__).parents[1]
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        path = folder / f"_kernels{suffix}"
        if path.exists():
            found = ctypes.CDLL(str(path))
            if hasattr(found, NEWEST):
                return found
            log.warning("the C kernels were built from older files and are not used: build them again as below")
    log.warning(
        "the C kernels are not built, training on the CPU will be slower: install a C compiler, then run "
        "`python setup.py build_ext --inplace` (or `pip install -e .`) in the project's folder"
    )
    return None


def loaded() -> ctypes.CDLL:
    """The kernels, for callers that have checked that they are there. Raises RuntimeError if they are not."""
    found = library()
    if found is None:
        raise RuntimeError("the C kernels are not built, or TESSERA_KERNELS is off")
    return found


def address(tensor: Tensor, dtype: torch.dtype, *shape: int) -> ctypes.c_void_p:
    """Where the numbers of a CPU tensor lie; the caller keeps the tensor alive during the call.

    Raises ValueError unless the tensor is contiguous and has this type and this shape, for the kernel reads and writes
    as many numbers as the shape says.
    """
    if tensor.device.type != "cpu" or not tensor.is_contiguous():
        raise ValueError("a kernel needs a contiguous tensor on the CPU")
    if tensor.dtype != dtype or tensor.shape != shape:
        raise ValueError(f"a kernel needs {dtype} of shape {shape}, and not {tensor.dtype} of {tuple(tensor.shape)}")
    return ctypes.c_void_p(tensor.data_ptr())
