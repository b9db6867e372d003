"""Features that come with keys: which row is whose is said by the file, never by its order alone."""

import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from pipeline.errors import UserError, counted
from pipeline.graph.matching import Matched, Names
from pipeline.graph.text_files import lines
from pipeline.importing.delimited import read_parquet
from pipeline.modalities.released_files import read_hdf5


@dataclass(frozen=True)
class Features:
    """`entity_ids` (N,) ascending, `matrix` (N, D) float32; what became of the names; what is to be known of it."""

    entity_ids: np.ndarray
    matrix: np.ndarray
    matched: Matched
    notes: list[str]

    def table(self, keys: list[str]) -> pa.Table:
        """key, embedding: what `encoded: released` reads."""
        flat = pa.array(self.matrix.reshape(-1))
        embedding = pa.FixedSizeListArray.from_arrays(flat, self.matrix.shape[1])
        return pa.table({"key": [keys[one] for one in self.entity_ids.tolist()], "embedding": embedding})


def read_features(source: object, names: Names, order: str | Path | None = None) -> Features:
    """Read .npz (keys and a matrix, or one vector a name), .parquet (key, embedding), .pth (a dict of names), .h5 (name
    -> vector, or several: their mean), or .npy and plain tensors whose keys `order` lists; or a pandas DataFrame (key,
    embedding), or a dict of vectors.

    Any float or integer type; entities may be missing. A row with a NaN or an infinity is left out, as `encoded:
    released` would. Raises UserError for an array without keys, for keys given twice, for rows of unlike widths, and if
    no name is an entity or no row finite.
    """
    name = str(source) if isinstance(source, str | Path) else "the features"
    keys, matrix = _keyed(source, name, order)
    if len(keys) != len(matrix):
        where = f"{order} lists" if order else "it has"
        raise UserError(f"{name} has {len(matrix):,} rows, but {where} {len(keys):,} keys; each row needs one.")
    if matrix.ndim != 2 or not matrix.size or matrix.dtype.kind not in "fiu":
        raise UserError(f"{name} holds no matrix of numbers but {matrix.dtype} of shape {matrix.shape}.")
    seen: set[str] = set()
    for key in keys:
        if key in seen:
            raise UserError(f"{name} has the key {key[:80]!r} twice; keep one of its rows.")
        seen.add(key)
    keys, matrix, notes = _finite(keys, matrix, name)
    matched = names.match(keys)
    if not matched.entity:
        raise UserError(
            f"{name}: none of its {len(keys):,} keys is an entity of the graph (such as "
            f"{', '.join(map(repr, matched.unmatched[:3]))})."
        )
    row_of = {key: row for row, key in enumerate(keys)}
    owner: dict[int, int] = {}
    for key, entity in matched.entity.items():
        if entity in owner:
            raise UserError(f"{name} has two rows for one entity, {keys[owner[entity]]!r} and {key!r}; keep one.")
        owner[entity] = row_of[key]
    ids = np.array(sorted(owner))
    return Features(ids, matrix[[owner[one] for one in ids.tolist()]].astype(np.float32), matched, notes)


def _finite(keys: list[str], matrix: np.ndarray, name: str) -> tuple[list[str], np.ndarray, list[str]]:
    """Without the rows that are no numbers in float32, as which they are kept, and a note on them."""
    with np.errstate(over="ignore"):
        good = np.asarray(np.isfinite(matrix.astype(np.float32)).all(axis=1))
    if good.all():
        return keys, matrix, []
    if not good.any():
        raise UserError(f"{name}: every row holds a NaN or an infinity; compute the features again.")
    bad = np.flatnonzero(~good)
    note = f"{name}: {counted(len(bad), 'row')} with a NaN or an infinity left out, such as {keys[bad[0]][:80]!r}."
    return [keys[row] for row in np.flatnonzero(good)], matrix[good], [note]


def _keyed(source: object, name: str, order: str | Path | None) -> tuple[list[str], np.ndarray]:
    if isinstance(source, Mapping):
        return _stacked(source, name)
    if not isinstance(source, str | Path):
        return _columns({str(column): list(source[column]) for column in source.columns}, name)  # type: ignore
    path = Path(source)
    try:
        value = _load(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}); correct the path.") from error
    except pickle.UnpicklingError as error:
        raise UserError(f"{path} holds objects that only their own code can load, which is not run here.") from error
    except (ValueError, EOFError, RuntimeError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} holds no features, or is damaged ({str(error)[:120]}).") from error
    if isinstance(value, Mapping):
        return _columns(value, name) if path.suffix == ".parquet" else _stacked(value, name)
    if order is None:
        raise UserError(
            f"{path} is an array without keys, so nothing says which row is whose; name a file that lists the keys in "
            "its order, one a line, with --order."
        )
    return _listed(Path(order), len(value)), value


def _load(path: Path) -> np.ndarray | Mapping:
    if path.suffix == ".parquet":
        return read_parquet(path).to_pydict()
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            return {key: arrays[key] for key in arrays.files}
    if path.suffix == ".npy":
        return np.load(path, allow_pickle=False)
    if path.suffix in (".h5", ".hdf5"):
        return {name: _mean(rows) for name, rows in read_hdf5(path)}
    if path.suffix in (".pth", ".pt"):
        value = torch.load(path, map_location="cpu", weights_only=True)
        return dict(value) if isinstance(value, Mapping) else _array(value)
    raise UserError(
        f"{path}: features are read from .npz, .parquet, .npy, .h5 and .pth, not from {path.suffix or 'this'}."
    )


def _mean(rows: np.ndarray) -> np.ndarray:
    """Several vectors of one name (its pictures, its sentences) count as the mean of those that are finite."""
    good = rows[np.isfinite(rows).all(axis=1)]
    return good.mean(0) if len(good) else np.full(rows.shape[1:], np.nan, dtype=np.float32)


def _array(value: object) -> np.ndarray:
    """A tensor of any type (bfloat16 too) or an array as numpy has it."""
    if isinstance(value, torch.Tensor):
        return (value.float() if value.is_floating_point() else value).detach().numpy()
    return np.asarray(value)


def _stacked(values: Mapping, name: str) -> tuple[list[str], np.ndarray]:
    """A list of names beside one matrix, or one vector for each name."""
    arrays = {str(key): _array(value) for key, value in values.items()}
    words = [key for key, value in arrays.items() if value.dtype.kind == "U" and value.ndim == 1]
    if len(words) == 1 and len(arrays) == 2:
        (matrix,) = (value for key, value in arrays.items() if key != words[0])
        return arrays[words[0]].tolist(), matrix
    if len(arrays) == 1 and next(iter(arrays.values())).ndim == 2 and len(next(iter(arrays.values()))) != 1:
        raise UserError(
            f"{name} holds one matrix without keys, so nothing says which row is whose; put an array `keys` of names "
            "beside it, or save it as .npy and list the keys with --order."
        )
    return list(arrays), _matrix([value.reshape(-1) for value in arrays.values()], name)


def _columns(columns: Mapping[str, list], name: str) -> tuple[list[str], np.ndarray]:
    if not {"key", "embedding"} <= set(columns):
        raise UserError(f"{name} has the columns {', '.join(columns)[:120]}; name them key and embedding.")
    return list(map(str, columns["key"])), _matrix([np.asarray(one) for one in columns["embedding"]], name)


def _matrix(rows: list[np.ndarray], name: str) -> np.ndarray:
    widths = {row.shape for row in rows}
    if len(widths) != 1:
        raise UserError(f"{name} holds vectors of {len(widths)} widths; only one width makes a table.")
    return np.stack(rows)


def _listed(path: Path, rows: int) -> list[str]:
    """The first field of each line; a header goes if there is one line too many."""
    keys = [line.split("\t")[0].strip() for _, line in lines(path)]
    return keys[1:] if len(keys) == rows + 1 and keys[0].lower() in ("key", "id", "entity", "name") else keys
