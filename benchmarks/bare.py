"""Lets our code be imported where psutil is not, as on a borrowed GPU machine: import this before anything of ours.

Of psutil, what is measured there asks how much memory is free, and nothing else.
"""

import importlib
import os
import sys
from types import ModuleType, SimpleNamespace


def _psutil() -> ModuleType:
    """What stands in for psutil."""
    made = ModuleType("psutil", "A stand-in: free memory alone.")
    made.__dict__["virtual_memory"] = lambda: SimpleNamespace(
        available=os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    )
    return made


try:
    import psutil  # noqa: F401
except ModuleNotFoundError:
    sys.modules["psutil"] = _psutil()
    importlib.import_module("trainers.room")  # which alone asks for it
    del sys.modules["psutil"]  # other libraries look whether it is there, and do without
