"""How many cores this process may use."""

import os


def usable_cores() -> int:
    """The cores that the scheduler lets this process use, where the system says so (Linux); else all there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
