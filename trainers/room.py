"""How much memory a kernel may keep from the forward to the backward pass instead of computing it again."""

from pathlib import Path

import psutil

SHARE = 4  # automatic: at most this part, 1/SHARE, of what is free
LIMIT: int | None = None  # bytes; None: automatic. Set by `keep_at_most`.
_CGROUP = Path("/sys/fs/cgroup")


def keep_at_most(mebibytes: int | None) -> None:
    """Set the bound for this process; None: a quarter of what is free whenever it is asked."""
    global LIMIT
    LIMIT = None if mebibytes is None else mebibytes << 20


def may_keep() -> int:
    """Bytes that may be kept now."""
    return _free() // SHARE if LIMIT is None else LIMIT


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
