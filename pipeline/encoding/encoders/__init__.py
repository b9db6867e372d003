"""Encoders: what turns texts and pictures into tokens and features. One family per file, one config file per encoder.

The shape of a family (a module of this package)::

    KIND = "text" or "image"                # which modality it reads
    @dataclass(frozen=True)
    class Settings: ...                     # its keys in configs/encoders/, plain typed fields, each with a comment
    def load(settings, *, device, precision) -> Encoder

and of what `load` gives back, see `Encoder`: a plain object with four methods. An encoder knows nothing of files,
entities, batches or stores: `pipeline.encoding.run` feeds it and keeps what it gives. What it must hold (the contract
test checks it over every family): the rows of an input depend on that input and on `fingerprint` alone. So whatever
decides the numbers, such as the padded length of a text, must be a function of the input, never of its neighbours.

To add one: write the file, add it to `FAMILIES`, give it a file in configs/encoders/. `fingerprint` should name the
weights (sha256 or pinned revision), the preprocessing, the precision and, by `code_version` of pipeline.versions, its
own module and those of this folder that it imports: rows in the store are shared by all who have the same fingerprint,
and by nobody else.
"""

import hashlib
import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Protocol, Self

import numpy as np
import torch
from pydantic import BaseModel, Field, model_validator

from pipeline.errors import UserError
from pipeline.settings import STRICT, Misfit, build, check, nearest, shown

ADDRESS = ("http://", "https://")

# Loaded by name, not imported, so that a change in one family is no change of the others (pipeline/versions.py).
FAMILIES = ("language", "beit", "vqgan", "timm", "patches", "clusters", "residual")


class InvalidInput(UserError):
    """This one input cannot be encoded (no picture, nothing to read). Its row is left out, and the log says why.

    `lasting`: it is so for everybody, not for want of memory here, and the store may keep it.
    """

    def __init__(self, why: str, lasting: bool = True):
        super().__init__(why)
        self.lasting = lasting


@dataclass(frozen=True)
class Rows:
    """What an encoder gives for B inputs, in their order."""

    tokens: Sequence[np.ndarray]  # B arrays of int32, in reading order; all empty for an encoder without tokens
    features: np.ndarray  # (B, D) float32; (B, 0) for an encoder without features
    count: np.ndarray  # (B,) int32: words of a text, 1 for a picture


class Encoder(Protocol):
    """One encoder with its weights at hand. Weights are read when they are first needed, not before."""

    fingerprint: dict[str, str | int | float | bool | None]  # whatever the rows depend on; JSON types

    @property
    def window(self) -> int:
        """How many prepared inputs may be sorted by `size` together; 0: order does not matter."""

    def prepare(self, raw: Sequence[str | bytes]) -> list[object]:
        """Raw inputs as what the model reads, on the CPU. An input that cannot be used becomes an InvalidInput."""

    def size(self, item: object) -> int:
        """What a prepared input costs; inputs of equal size stand in one batch."""

    def encode(self, items: Sequence[object]) -> Rows:
        """The rows of prepared inputs of equal size."""

    def codebook(self, used: np.ndarray) -> np.ndarray:
        """The vectors (N, W) float32 of the token ids `used` (N,) int32, ascending."""


def families() -> dict[str, ModuleType]:
    """Every family of encoders by the name that `family:` takes in configs/encoders/."""
    return {name: importlib.import_module(f"{__name__}.{name}") for name in FAMILIES}


def settings(block: Mapping[str, object], kind: str | None = None) -> tuple[ModuleType, Any]:
    """The family and the checked Settings of an encoder's block; `kind` is what it must read, if that is given.

    `sha256` may stand beside `weights` that are an address: see `weights.fetched`. Raises Misfit naming the key if the
    family is unknown, reads the other modality, or a key does not fit.
    """
    known = families()
    if "family" not in block:
        raise Misfit(["family"], "missing", f"known: {', '.join(known)}.")
    family = block["family"]
    if not isinstance(family, str) or family not in known:
        raise Misfit(["family"], f"cannot be {shown(family)}", nearest(str(family), list(known)))
    module = known[family]
    if kind is not None and kind != module.KIND:
        raise Misfit(
            ["family"], f"cannot be {family}", f"it encodes {module.KIND}, not {kind}; choose another encoder."
        )
    given = {key: value for key, value in block.items() if key != "family"}
    if isinstance(given.get("weights"), str):
        check(_Checksum, {"sha256": given.pop("sha256", None), "weights": given["weights"]})
    return module, build(module.Settings, given)


def gives(family: ModuleType, settings: Any) -> set[str]:
    """What an encoder makes of its inputs: "tokens", "features" or both. One without tokens says `TOKENS = False`."""
    found = {"tokens"} if getattr(family, "TOKENS", True) else set()
    return found if getattr(settings, "pooling", "") == "none" else {*found, "features"}


def unpinned(block: Mapping[str, object]) -> str | None:
    """What is wrong with a block whose `model` is a name on the hub without a commit; None if nothing is."""
    model = block.get("model")
    if not isinstance(model, str) or block.get("revision") or isinstance(block.get("weights"), str):
        return None
    if model.startswith(("package:", ".", "/", "~")) or Path(model).is_dir():
        return None
    return (
        f"revision is empty, and {model} is no folder here; a model on the hub needs one of its commits (40 "
        "hexadecimal digits, on its hub page under Files), so that rows can be reused."
    )


class _Checksum(BaseModel):
    """What is demanded of weights that are fetched."""

    model_config = STRICT

    weights: str
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None

    @model_validator(mode="after")
    def _of_an_address(self) -> Self:
        if self.sha256 is not None and not self.weights.startswith(ADDRESS):
            raise ValueError("`sha256` belongs to `weights` that are an address; remove it, or give the address")
        return self


def pick_device(name: str) -> torch.device:
    """`auto` is a GPU if there is one. Raises UserError if the named device is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"encode.device {name!r} cannot be used here ({error}); take auto or cpu.") from error
    return device


def pick_precision(name: str, device: torch.device) -> torch.dtype:
    """`auto` is bfloat16 where the processor computes in it, and float32 elsewhere."""
    if name != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    return torch.bfloat16 if _cpu_has_bfloat16() else torch.float32


def _cpu_has_bfloat16() -> bool:
    have = torch.cpu.get_capabilities()
    return any(have.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16"))


def file_sha256(path: str | Path) -> str:
    """The sha256 of a file, in hexadecimal. Raises UserError if it is not there."""
    try:
        with open(path, "rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); check the path of the weights.") from error
