"""How much memory a kernel may keep from the forward to the backward pass instead of computing it again."""

from pathlib import Path

import psutil
import torch

SHARE = 4  # automatic: at most this part, 1/SHARE, of what is free
LIMIT: int | None = None  # bytes; None: automatic. Set by `keep_at_most`.
_CGROUP = Path("/sys/fs/cgroup")


def keep_at_most(mebibytes: int | None) -> None:
    """Set the bound for this process; None: a quarter of what is free whenever it is asked."""
    global LIMIT
    LIMIT = None if mebibytes is None else mebibytes << 20


def constant_when_compiled() -> None:
    """Let a step that is compiled keep what `may_keep` says then. As a decorator it would load the compiler, 2 s."""
    torch.compiler.assume_constant_result(may_keep)


def may_keep(device: torch.device | None = None) -> int:
    """Bytes that may be kept now on `device`; None: in the computer's memory."""
    if LIMIT is not None:
        return LIMIT
    return (_free_on_gpu(device) if device is not None and device.type == "cuda" else _free()) // SHARE


def _free_on_gpu(device: torch.device) -> int:
    """Bytes that no process has taken, and those that torch has taken and not yet given to a tensor."""
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + unused


def _free() -> int:
    """Bytes of memory that are free, within the bound of the container if there is one."""
    free = psutil.virtual_memory().available
    try:
        bound, used, rows = ((_CGROUP / name).read_text() for name in ("memory.max", "memory.current", "memory.stat"))
    except OSError:
        return free
    # What files left in memory is given back when it is wanted.
    cached = int(dict(row.split() for row in rows.splitlines()).get("inactive_file", 0))
    return free if bound.strip() == "max" else min(free, max(0, int(bound) - int(used) + cached))
