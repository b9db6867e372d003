"""Feature tables that stay on disk: a raw copy of a Parquet table, mapped into memory, read where it is asked for.

Parquet is compressed and cannot be mapped, so a table is unpacked once, block by block, into a folder named by the
sha256 of the Parquet file:

    <folder>/<sha256>/matrix.npy    (N, D) float32, in ascending order of entity
    <folder>/<sha256>/entity.npy    (N,) int64
    <folder>/<sha256>/mean.npy      (D,) float32, so that the matrix need not be read for it

The folder may be deleted at any time; it is made again. A table appears there whole or not at all.
"""

import hashlib
import os
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from pipeline import tables
from pipeline.errors import UserError

ROWS = 16384  # unpacked at a time: 48 MB of width 768


@dataclass(frozen=True)
class Memmap:
    """Where a memory-mapped matrix comes from, by which a run that does not hold it can find it again."""

    table: Path  # the Parquet table
    sha256: str  # of that file
    folder: Path  # where raw copies lie
    mean: Tensor  # (D,) float32


def digest(path: str | Path) -> str:
    """sha256 of a file's bytes, in hexadecimal. Raises UserError if it cannot be read."""
    try:
        with open(path, "rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}); run the stage that writes it (dvc repro)."
        ) from error


def open_table(table: str | Path, folder: str | Path) -> tuple[Tensor, Tensor, Memmap]:
    """Entities (N,) int64 ascending and matrix (N, D) float32 of a features table, the matrix mapped from `folder`.

    Nothing of the matrix is read before it is asked for, and what was read the system may drop again. Unpacks the table
    if that was not done before. Raises UserError if the table is missing, damaged or holds a number that is not finite,
    or if there is no room to unpack it.
    """
    sha256 = digest(table)
    if not (Path(folder) / sha256).is_dir():
        _unpack(Path(table), Path(folder), sha256)
    return _open(Path(table), Path(folder), sha256)


def reopen(table: str | Path, folder: str | Path, sha256: str, base: Path) -> tuple[Tensor, Tensor, Memmap]:
    """What `open_table` gave when a run was trained: its raw copy if that is still there, else unpacked again.

    Relative paths are looked for from here, then from `base`. Raises UserError if neither the raw copy nor a table with
    the digest `sha256` is there.
    """
    places = [(root / table, root / folder) for root in (Path(), base)]
    for there, raw in places:
        if (raw / sha256).is_dir():
            return _open(there, raw, sha256)
    for there, raw in places:
        if there.exists() and digest(there) == sha256:
            return open_table(there, raw)
    raise UserError(
        f"The run was trained on {table} with frozen features, and that table is not there or has changed since; "
        "bring it back (dvc checkout, dvc pull) or train again."
    )


def _open(table: Path, folder: Path, sha256: str) -> tuple[Tensor, Tensor, Memmap]:
    place = folder / sha256
    try:
        entity, mean = (torch.from_numpy(np.load(place / f"{name}.npy")) for name in ("entity", "mean"))
        # Copy on write: torch wants memory that it may write to, and the file stays as it is.
        matrix = torch.from_numpy(np.asarray(np.load(place / "matrix.npy", mmap_mode="c")))
    except (OSError, ValueError) as error:
        raise UserError(f"{place} is damaged ({error}); delete that folder and run again.") from error
    return entity, matrix, Memmap(table, sha256, folder, mean)


def _unpack(table: Path, folder: Path, sha256: str) -> None:
    ids = tables.read(table, "features", ["entity_id"])["entity_id"].to_numpy().astype(np.int64)
    part = folder / f".{sha256}.{secrets.token_hex(4)}.part"
    try:
        part.mkdir(parents=True)
        mean = _write_matrix(table, ids, part / "matrix.npy")
        np.save(part / "entity.npy", np.sort(ids))
        np.save(part / "mean.npy", mean.astype(np.float32))
        if not (folder / sha256).is_dir():
            os.replace(part, folder / sha256)
    except OSError as error:
        if not (folder / sha256).is_dir():  # else another process has just made the same
            raise UserError(
                f"{table} cannot be unpacked into {folder} ({error.strerror or error}); its features need "
                "4 bytes per number there: free space or rights, then run again."
            ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _write_matrix(table: Path, ids: np.ndarray, path: Path) -> np.ndarray:
    """Write the embeddings in ascending order of `ids`; their mean (D,) float64."""
    try:
        parquet = pq.ParquetFile(table, memory_map=True)
        tables.check_columns(table, parquet.schema_arrow, "features", ["embedding"])
        place = np.empty(len(ids), dtype=np.int64)
        place[np.argsort(ids, kind="stable")] = np.arange(len(ids))
        total, start = None, 0
        for batch in parquet.iter_batches(ROWS, columns=["embedding"]):
            rows = tables.matrix(pa.chunked_array([batch["embedding"]]))
            if total is None:
                total = np.zeros(rows.shape[1])
                np.lib.format.open_memmap(path, "w+", np.float32, (len(ids), rows.shape[1])).flush()
            finite = np.isfinite(rows).all(axis=1)
            if not finite.all():
                bad = int(ids[start + int(np.argmin(finite))])
                raise UserError(f"{table} holds a feature that is not a finite number (entity {bad}); encode it again.")
            # Mapped anew for each block, so that the pages written do not stay with this process.
            np.load(path, mmap_mode="r+")[place[start : start + len(rows)]] = rows
            total += rows.sum(axis=0, dtype=np.float64)
            start += len(rows)
    except pa.ArrowInvalid as error:
        raise tables.unreadable(table, error) from error
    if total is None:  # no entity has the modality
        width = getattr(parquet.schema_arrow.field("embedding").type, "list_size", 0)
        np.save(path, np.zeros((0, width), dtype=np.float32))
        return np.zeros(width)
    return total / len(ids)
