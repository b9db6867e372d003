"""Reading what authors release, without running any of it: tensors, token lists in JSON, HDF5, picture indexes."""

import json
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from pipeline.errors import NO_JSON, UserError, counted
from pipeline.modalities.archives import TooLarge, open_archive

_JSON_BYTES = 4 * 2**30
_MEMBER_BYTES = 2**30  # of one HDF5 member: one entity's vectors take a few megabytes at most
_GROUPS = 3  # HDF5 groups in one another; real files have one or two, and a group may hold itself
_LARGEST_ID = 2**31 - 1
_SPACE = " \t\r\n"


def read_tensor(path: Path) -> np.ndarray:
    """(N, D) float32 of a .pth or .pt file that holds one tensor (alone, or as a state dict's only one), or of a .npy.

    Raises UserError if the file is missing, needs code to be loaded, or holds no matrix.
    """
    try:
        value = _load_npy(path) if path.suffix == ".npy" else _load(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}); correct the path.") from error
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} holds objects that only their own code can load, which is not run here; where you trust it, load "
            "it once and save the tensor alone: torch.save(tensor, path)."
        ) from error
    except (ValueError, EOFError, RuntimeError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is not a tensor file, or is damaged ({str(error)[:120]}); fetch it again.") from error
    matrix = np.asarray(value)
    if matrix.ndim == 3 and 1 in matrix.shape[1:]:
        matrix = matrix.reshape(len(matrix), -1)
    if matrix.ndim != 2 or not matrix.size or matrix.dtype.kind not in "fiu":
        raise UserError(f"{path} holds no matrix of numbers but {matrix.dtype} of shape {tuple(matrix.shape)}.")
    return np.ascontiguousarray(matrix, dtype=np.float32)


def read_keyed(path: Path) -> tuple[list[str], np.ndarray]:
    """Keys, and (N, D) float32, of a Parquet file with the columns key and embedding (lists of one length).

    Raises UserError if it is no such file.
    """
    try:
        table = pq.read_table(path, columns=["key", "embedding"])
        rows = table["embedding"].to_numpy()
        matrix = np.stack([np.asarray(row, dtype=np.float32) for row in rows]) if len(rows) else np.zeros((0, 0))
    except (OSError, pa.ArrowInvalid, KeyError, ValueError, TypeError) as error:
        raise UserError(f"{path} is no Parquet of key and embedding ({str(error)[:120]}); correct the file.") from error
    if matrix.ndim != 2 or not matrix.size:
        raise UserError(f"{path} holds no vectors; correct the file.")
    return list(map(str, table["key"].to_pylist())), matrix


def _load_npy(path: Path) -> np.ndarray:
    # A map takes no memory, and is refused if the file is shorter than its head claims.
    return np.load(path, allow_pickle=False, mmap_mode="r")


def _load(path: Path) -> np.ndarray:
    value = torch.load(path, map_location="cpu", weights_only=True)
    if isinstance(value, dict):
        tensors = {str(name): one for name, one in value.items() if isinstance(one, torch.Tensor)}
        if len(tensors) != 1:
            named = f" ({', '.join(list(tensors)[:3])})" if tensors else ""
            raise UserError(
                f"{path} is a dict of {counted(len(tensors), 'tensor')}{named}, and one is expected; save the one that "
                "is meant alone: torch.save(tensor, path)."
            )
        (value,) = tensors.values()
    if isinstance(value, list) and value and all(isinstance(one, torch.Tensor) for one in value):
        shapes = sorted({tuple(one.shape) for one in value})
        if len(shapes) > 1:
            raise UserError(
                f"{path} is a list of tensors of unlike shapes ({shapes[0]}, {shapes[1]}); correct the file."
            )
        value = torch.stack(value)
    if not isinstance(value, torch.Tensor):
        raise UserError(f"{path} holds a {type(value).__name__}, and a tensor is expected; correct the file.")
    if value.layout != torch.strided or value.is_complex() or value.is_quantized:
        raise ValueError(f"it holds a tensor of another kind than plain numbers ({value.layout}, {value.dtype})")
    if value.numel() > value.untyped_storage().nbytes() // value.element_size():
        raise ValueError(f"its shape {tuple(value.shape)} repeats fewer numbers than it claims")
    return value.detach().to(torch.float32).numpy()


# -------------------------------------------------------------------------------------------------- tokens
def read_tokens(path: Path) -> dict[str, list[np.ndarray]]:
    """name -> its lists of token ids (int32), of a JSON file or a zip that holds one.

    A value is one flat list, or a list of lists (one per picture). The file is decoded name by name, so that
    millions of tokens never stand in memory as Python numbers. Raises UserError if it is no such JSON.
    """
    text = _text(path)
    decoder = json.JSONDecoder()
    found: dict[str, list[np.ndarray]] = {}
    at = _skip(text, 0)
    try:
        at = _expect(text, at, "{")
        while text[at : at + 1] != "}":
            name, at = decoder.raw_decode(text, at)
            at = _expect(text, at, ":")
            value, at = decoder.raw_decode(text, at)
            found[str(name)] = _lists(value, name)
            at = _skip(text, at)
            if text[at : at + 1] != "}":
                at = _expect(text, at, ",")
    except (*NO_JSON, OverflowError, TypeError) as error:
        raise UserError(f"{path} is not JSON of name -> token ids ({error}); fetch it again.") from error
    return found


def _text(path: Path) -> str:
    if path.suffix == ".zip":
        with open_archive(path) as archive:
            names = [name for name in archive.names if name.endswith(".json")]
            if len(names) != 1:
                raise UserError(f"{path} holds {len(names)} JSON files; name a zip with one, or the JSON itself.")
            _, data = next(archive.read(names, _JSON_BYTES))
            if isinstance(data, TooLarge):
                raise UserError(f"{path}: {names[0]} is {data}; it is refused.")
    else:
        try:
            data = path.read_bytes()
        except OSError as error:
            raise UserError(
                f"{path} cannot be read ({error.strerror}); correct the path in the graph's file."
            ) from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 ({error.reason} at byte {error.start}); fetch it again.") from error


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in _SPACE:
        at += 1
    return at


def _expect(text: str, at: int, sign: str) -> int:
    at = _skip(text, at)
    if text[at : at + 1] != sign:
        raise ValueError(f"{sign!r} is missing at character {at}")
    return _skip(text, at + 1)


def _lists(value: object, name: str) -> list[np.ndarray]:
    if not isinstance(value, list):
        raise ValueError(f"{name!r} is no list")
    nested = value if value and isinstance(value[0], list) else [value]
    arrays = [np.array(part, dtype=np.int64) if part else np.zeros(0, np.int64) for part in nested]
    for part, array in zip(nested, arrays, strict=True):
        if array.ndim != 1 or any(type(one) is not int for one in part):
            raise ValueError(f"{name!r} holds something that is not a token id")
        if len(array) and not 0 <= array.min() <= array.max() <= _LARGEST_ID:
            raise ValueError(f"{name!r} holds something that is not a token id")
    return [array.astype(np.int32) for array in arrays]


# ---------------------------------------------------------------------------------------------------- HDF5
def read_index(path: Path) -> dict[str, list[str]]:
    """picture -> the entities it shows, of MMKB's ImageIndex: lines of entity, tab, picture."""
    found: dict[str, list[str]] = {}
    try:
        with open(path, encoding="utf-8") as handle:
            for number, line in enumerate(handle, 1):
                if not line.strip():
                    continue
                parts = line.rstrip("\r\n").split("\t")
                if len(parts) != 2:
                    raise UserError(f"{path}, line {number} is not `entity <tab> picture`: {line[:80]!r}.")
                found.setdefault(parts[1].strip(), []).append(parts[0].strip())
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as an index of pictures ({error}); correct the path.") from error
    return found


def read_hdf5(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """(name, (n, D) float32) of each member: a vector, a matrix of n vectors, or a group of such.

    Links and storage in other files are refused: they would read what the file's author never had.
    Raises UserError if the file is not HDF5, h5py is missing, or a member is not a vector.
    """
    try:
        import h5py
    except ImportError as error:
        raise UserError(f"{path} needs h5py, which is not installed: pip install 'tessera-mmkgc[hdf5]'.") from error
    try:
        with h5py.File(path, "r") as file:
            for name in file:
                _refuse_link(path, file, name, h5py)
                yield name, _rows(path, name, file[name], h5py)
    except OSError as error:
        raise UserError(f"{path} cannot be read as HDF5 ({error}); fetch it again.") from error


def _refuse_link(path: Path, group, name: str, h5py) -> None:
    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise UserError(f"{path}: {name} is a link, which is not followed; copy what it means into the file.")


def _rows(path: Path, name: str, member, h5py) -> np.ndarray:
    if isinstance(member, h5py.Group):
        if name.count("/") >= _GROUPS:
            raise UserError(
                f"{path}: {name} is a group within {_GROUPS} others; keep the vectors in at most {_GROUPS}."
            )
        for inner in member:
            _refuse_link(path, member, inner, h5py)
        parts = [_rows(path, f"{name}/{inner}", member[inner], h5py) for inner in member]
        if not parts or len({part.shape[1] for part in parts}) != 1:
            raise UserError(f"{path}: the group {name} holds no vectors of one width.")
        return np.concatenate(parts)
    if member.external or member.is_virtual:
        raise UserError(f"{path}: {name} lies in another file, which is not read; copy it into this one.")
    if member.dtype.kind not in "fiu" or member.ndim not in (1, 2, 3) or not member.size:
        raise UserError(f"{path}: {name} is not a vector but {member.dtype} of shape {member.shape}.")
    if member.nbytes > _MEMBER_BYTES:
        raise UserError(f"{path}: {name} claims {member.nbytes:,} bytes, more than one entity's vectors take.")
    return np.asarray(member[()], dtype=np.float32).reshape(-1, member.shape[-1])
