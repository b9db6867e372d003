"""From the store's parts to a graph's tables, in bounded memory.

The store's rows lie in the order in which they were encoded, the tables are in the order of entities. So each part
is read once, its rows are written to their places in a temporary file, and that file is read from start to end.
"""

import logging
import os
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from mmap import ACCESS_READ, mmap
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline import tables
from pipeline.encoding.encoders import Encoder
from pipeline.encoding.inputs import Inputs
from pipeline.encoding.store import CorruptPart, Stores, ragged_column
from pipeline.errors import UserError, counted

log = logging.getLogger(__name__)

CHUNK = 4096  # rows of a row group


class Spool:
    """Rows at their final places, in a temporary file: features of a fixed width, tokens of any length."""

    def __init__(self, rows: int, folder: Path):
        self._features = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  (closed by __exit__)
        self._tokens = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self.width: int | None = None
        self.start = np.zeros(rows, dtype=np.int64)  # of a row's tokens, in tokens
        self.length = np.full(rows, -1, dtype=np.int32)
        self.count = np.zeros(rows, dtype=np.int32)
        self._end = 0

    def __enter__(self) -> "Spool":
        return self

    def __exit__(self, *_: object) -> None:
        self._features.close()
        self._tokens.close()

    def put(self, at: np.ndarray, table: pa.Table) -> None:
        """Put rows of a part to the places `at` (N,)."""
        lists = tables.ragged(table["token_ids"])
        length = np.diff(lists.offsets)
        self.start[at], self.length[at] = self._end + lists.offsets[:-1], length
        self.count[at] = table["count"].to_numpy()
        _write_at(self._tokens.fileno(), lists.values.astype(np.int32), self._end * 4)
        self._end += len(lists.values)
        matrix = tables.matrix(table["embedding"]) if "embedding" in table.column_names else None
        width = 0 if matrix is None else matrix.shape[1]
        if self.width not in (None, width):
            raise UserError(
                f"The store holds rows of width {self.width} and {width} for one encoder; remove the wrong part."
            )
        self.width = width
        if matrix is not None and width:
            # Runs of neighbouring places are written at once.
            breaks = np.flatnonzero(np.diff(at) != 1) + 1
            for run in np.split(np.arange(len(at)), breaks):
                _write_at(self._features.fileno(), matrix[run[0] : run[-1] + 1], int(at[run[0]]) * width * 4)

    def features(self, first: int, last: int) -> np.ndarray:
        """(last - first, D) float32 of rows in order."""
        width = self.width or 0
        content = os.pread(self._features.fileno(), (last - first) * width * 4, first * width * 4)
        return np.frombuffer(content, dtype=np.float32).reshape(last - first, width)

    def tokens(self, rows: np.ndarray) -> list[np.ndarray]:
        """The tokens of some rows, int32."""
        held = self.all_tokens
        starts = self.start[rows].tolist()
        return [held[start : start + length] for start, length in zip(starts, self.length[rows].tolist(), strict=True)]

    @property
    def all_tokens(self) -> np.ndarray:
        """The tokens of all rows as they came, int32, mapped."""
        if not self._end:
            return np.zeros(0, dtype=np.int32)
        return np.frombuffer(mmap(self._tokens.fileno(), self._end * 4, access=ACCESS_READ), dtype=np.int32)


def _write_at(descriptor: int, array: np.ndarray, offset: int) -> None:
    view = np.ascontiguousarray(array).data.cast("B")
    while len(view):
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def publish(
    out: str | Path,
    inputs: Inputs,
    usable: np.ndarray,
    stores: Stores,
    encoder: Encoder,
    provenance: dict[str, object],
) -> tuple[int, int, int] | None:
    """Write tokens, features and codebook of the usable rows; returns how many rows each has.

    Returns None if a part turned out to be corrupt: it is in quarantine, and its rows must be encoded again.
    Raises UserError if the disk is full. Nothing appears under its name before all three tables are complete.
    """
    out = Path(out)
    keep = np.flatnonzero(usable)
    try:
        out.mkdir(parents=True, exist_ok=True)
        with Spool(len(keep), out) as spool:
            if not _gather(spool, inputs.keys[keep], stores):
                return None
            codebook = partial(stores.codebook, make=encoder.codebook)
            return _write(out, inputs.entity[keep], inputs.image_ix[keep], spool, codebook, provenance)
    except OSError as error:
        raise UserError(
            f"{out} cannot be written ({error.strerror or error}); free space or rights, then run again."
        ) from error


def publish_nothing(out: str | Path, provenance: dict[str, object]) -> None:
    """Write the three tables without a row, for a graph none of whose entities has the modality."""
    for kind in ("tokens", "features", "codebook"):
        with tables.TableWriter(Path(out) / f"{kind}.parquet", kind, provenance):
            pass


def _gather(spool: Spool, keys: np.ndarray, stores: Stores) -> bool:
    """Fill the spool from the parts; False if some are corrupt or rows are nowhere."""
    sound = True
    left = np.ones(len(keys), dtype=bool)
    for store, hits in stores.find(keys):
        order = np.argsort(hits.part, kind="stable")
        bounds = np.searchsorted(hits.part[order], np.arange(len(hits.names) + 1))
        for index, name in enumerate(hits.names):
            at = order[bounds[index] : bounds[index + 1]]
            at = at[left[at]]
            if not len(at):
                continue
            try:
                table = stores.read(store, name)
            except CorruptPart:
                sound = False
                continue
            spool.put(at, table.take(pa.array(hits.row[at])))
            left[at] = False
    return sound and not left.any()


def _write(
    out: Path,
    entity: np.ndarray,
    image_ix: np.ndarray,
    spool: Spool,
    codebook_of: Callable[[np.ndarray], np.ndarray],
    provenance: dict[str, object],
) -> tuple[int, int, int]:
    used = _used(spool)
    with ExitStack() as stack:
        tokens = stack.enter_context(tables.TableWriter(out / "tokens.parquet", "tokens", provenance))
        width = spool.width or None
        features = stack.enter_context(tables.TableWriter(out / "features.parquet", "features", provenance, width))
        codebook = codebook_of(used) if len(used) else None
        width = None if codebook is None else codebook.shape[1]
        codes = stack.enter_context(tables.TableWriter(out / "codebook.parquet", "codebook", provenance, width))
        if codebook is not None:
            codes.write({"token_id": used, "embedding": tables.embedding_column(codebook)})
        with_tokens = np.flatnonzero(spool.length > 0)  # an encoder without tokens, or a text of stop words, has no row
        for first in range(0, len(with_tokens), CHUNK):
            rows = with_tokens[first : first + CHUNK]
            lists = ragged_column(spool.tokens(rows))
            tokens.write({"entity_id": entity[rows], "image_ix": image_ix[rows], "token_ids": lists})
        if spool.width:
            _write_features(features, entity, spool)
    return tokens.rows, features.rows, codes.rows


def _used(spool: Spool) -> np.ndarray:
    """Token ids in use, ascending, int32."""
    used = np.zeros(0, dtype=np.int32)
    held = spool.all_tokens
    for first in range(0, len(held), CHUNK * 256):
        used = np.union1d(used, held[first : first + CHUNK * 256])
    return used


def _write_features(writer: tables.TableWriter, entity: np.ndarray, spool: Spool) -> None:
    """The mean over an entity's rows, summed in their order in float64; `count` is the sum of the rows' counts.

    A row that is not finite, which only a store that others filled can hold, stays out of its entity's mean.
    """
    starts = np.flatnonzero(np.diff(entity, prepend=-1))
    bounds = np.append(starts, len(entity))
    first = 0
    while first < len(starts):
        # As many whole entities as fit a chunk of rows, at least one.
        last = max(first + 1, int(np.searchsorted(bounds, bounds[first] + CHUNK, side="right")) - 1)
        low, high = int(bounds[first]), int(bounds[last])
        rows, whose, count = spool.features(low, high), entity[low:high], spool.count[low:high]
        good = np.isfinite(rows).all(axis=1)
        if not good.all():
            log.warning("%s not finite; left out of the means", counted(int((~good).sum()), "row is", "rows are"))
            rows, whose, count = rows[good], whose[good], count[good]
        if len(rows):
            _write_means(writer, whose, rows, count)
        first = last


def _write_means(writer: tables.TableWriter, entity: np.ndarray, rows: np.ndarray, count: np.ndarray) -> None:
    groups = np.flatnonzero(np.diff(entity, prepend=-1))
    mean = rows
    if len(groups) < len(rows):
        total = np.add.reduceat(rows.astype(np.float64), groups, axis=0)
        mean = total / np.diff(np.append(groups, len(rows)))[:, None]
    writer.write(
        {
            "entity_id": entity[groups],
            "embedding": tables.embedding_column(mean),
            "count": np.add.reduceat(count, groups),
        }
    )
