"""Weights from files that others made: read as data, never run.

A `.pth` or `.ckpt` is a pickle, and a pickle can call any function. torch's weights-only reader refuses all but tensors
and plain containers; training frameworks leave classes of theirs beside the weights, which it refuses as well. Those
that are known to be there are replaced by inert objects before reading; any other name in the file is refused.
"""

import pickle
import re
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from pipeline.encoding.encoders import file_sha256
from pipeline.errors import UserError

# What trainers are known to leave in a checkpoint, as beginnings of dotted names. None of it is imported.
LEFTOVERS = (
    "argparse.Namespace", "pytorch_lightning.", "lightning.", "omegaconf.", "numpy.", "_codecs.encode",
    "pathlib.", "typing.", "collections.defaultdict", "builtins.dict", "builtins.list", "builtins.int", "builtins.str",
    "builtins.float", "builtins.bool", "builtins.tuple", "builtins.set",
)  # fmt: skip


class Inert:
    """Stands where a checkpoint asks for a class of its trainer; takes everything, does nothing."""

    def __new__(cls, *_: object, **__: object) -> "Inert":
        return super().__new__(cls)

    def __init__(self, *_: object, **__: object):
        pass

    def __setstate__(self, _: object) -> None:
        pass


def _plain_dict(*_: object) -> dict:
    return {}


# torch's reader fills nothing but plain containers, so what is filled must be one.
_STAND_INS = {"collections.defaultdict": _plain_dict}


def read(path: str | Path) -> dict:
    """What a `.safetensors`, `.pth` or `.ckpt` file holds.

    If the file's name ends in eight hexadecimal digits, they must begin its sha256, as the publishers of such names
    promise. Raises UserError if the file is missing, torn, changed, or asks for code.
    """
    path = Path(path)
    promised = re.search(r"-([0-9a-f]{8})\.\w+$", path.name)
    if promised and not (digest := file_sha256(path)).startswith(promised[1]):
        raise UserError(
            f"{path}: its name promises a sha256 of {promised[1]}…, but it is {digest[:8]}…; fetch it again."
        )
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals([(_STAND_INS.get(name, Inert), name) for name in _leftovers(path)]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"There are no weights at {path}; check the path.") from error
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} asks to run code while it is read, so it was not read; find the weights elsewhere."
        ) from error
    except (SafetensorError, RuntimeError, EOFError, zipfile.BadZipFile, OSError, ValueError, KeyError) as error:
        raise UserError(f"{path} cannot be read as a checkpoint ({str(error)[:120]}); fetch it again.") from error


def _leftovers(path: Path) -> list[str]:
    if not zipfile.is_zipfile(path):
        return []  # torch's older format; its reader refuses every leftover
    names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    foreign = [name for name in names if not name.startswith(LEFTOVERS)]
    if foreign:
        raise UserError(
            f"{path} asks for {foreign[0]} while it is read, so it was not read; find the weights elsewhere."
        )
    return names


def tensors(content: Mapping, *, inside: Iterable[str], path: str | Path) -> dict[str, torch.Tensor]:
    """The state dict of a checkpoint, which may lie under one of the names `inside`."""
    for name in inside:
        if isinstance(content.get(name), Mapping):
            content = content[name]
            break
    found = {name: value for name, value in content.items() if isinstance(value, torch.Tensor)}
    if not found:
        raise UserError(f"{path} holds no tensors; it is no checkpoint.")
    return found


def fill(model: nn.Module, state: Mapping[str, torch.Tensor], *, unused: tuple[str, ...], path: str | Path) -> None:
    """Load a state dict strictly: every tensor of the model is there and fits, and nothing else is, but names that
    begin with one of `unused`, which belong to parts that are not built.

    Raises UserError naming the first tensor that is missing, too many, or of another shape.
    """
    wanted = model.state_dict()
    given = {name: value for name, value in state.items() if not name.startswith(unused)} if unused else dict(state)
    complaints = [f"{name} is missing" for name in wanted if name not in given]
    complaints += [f"{name} is not of this model" for name in given if name not in wanted]
    complaints += [
        f"{name} has shape {tuple(given[name].shape)} instead of {tuple(wanted[name].shape)}"
        for name in wanted
        if name in given and given[name].shape != wanted[name].shape
    ]
    if complaints:
        raise UserError(f"{path} is a checkpoint of another model ({len(complaints)} differences): {complaints[0]}.")
    model.load_state_dict(given, strict=True)
