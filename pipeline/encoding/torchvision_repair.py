"""Import this before timm, transformers or lightning: it mends a torchvision built for CUDA beside a torch without it.

Such a pair comes out of a package index whose plain `torchvision` is the CUDA build while torch was taken from the CPU
wheels. torchvision then finds its compiled operators unloadable, and fails on import while registering shapes for two
operators that were never declared (`operator torchvision::nms does not exist`). Declaring their schemas first is
enough: Tessera never calls them. With a matching pair this module does nothing.
"""

import importlib.util
import re
from pathlib import Path

import torch

_SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
_library: torch.library.Library | None = None  # the declarations live as long as this object


def is_mismatched() -> bool:
    """True if torch was built without CUDA and the installed torchvision with it. Imports nothing of torchvision."""
    if torch.version.cuda is not None:
        return False
    spec = importlib.util.find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        return False
    version = Path(next(iter(spec.submodule_search_locations))) / "version.py"
    return version.is_file() and re.search(r"__version__\s*=\s*['\"][^'\"]*\+cu", version.read_text()) is not None


def repair() -> bool:
    """Declare the operators that a mismatched torchvision misses; returns whether anything was declared."""
    global _library
    if _library is not None or not is_mismatched():
        return False
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name, schema in _SCHEMAS.items():
        if not hasattr(torch.ops.torchvision, name):
            library.define(schema)
    _library = library
    return True


repair()
