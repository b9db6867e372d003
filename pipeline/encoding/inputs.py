"""What there is to encode: keys of a graph's texts or pictures, cheap to list, and their bytes, read when wanted."""

import hashlib
import importlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import tables
from pipeline.encoding.store import KEY, key_of
from pipeline.errors import UserError
from pipeline.modalities import Modality

READ_TEXTS = 8192  # rows of a text table read at once
READ_PICTURES = 64  # rows of pictures read at once: some 10 MB


class Inputs(ABC):
    """Rows that have an input, in ascending order of (entity, image_ix), and where to read them.

    `columns` are those that hold an input and its place, the last of them the input itself; `window` rows of it may be
    held in memory at once. `files` are the tables. `entity`, `image_ix` (N,) int32; `keys` (N,) of dtype KEY;
    `missing`: rows of the table without an input.
    """

    columns: tuple[str, ...]
    window: int
    path: Path
    files: list[Path]
    entity: np.ndarray
    image_ix: np.ndarray
    keys: np.ndarray
    missing: int

    def first(self, most: int | None) -> None:
        """Leave out all but the first `most` inputs of each entity; None: leave out none."""
        begins = np.flatnonzero(np.diff(self.entity, prepend=-1))
        place = np.arange(len(self.entity)) - np.repeat(begins, np.diff(np.append(begins, len(self.entity))))
        kept = place < (len(place) if most is None else most)
        self.entity, self.image_ix, self.keys = self.entity[kept], self.image_ix[kept], self.keys[kept]

    @abstractmethod
    def name(self, row: int) -> str:
        """How messages speak of a row."""

    def read(self, wanted: np.ndarray, at_once: int) -> Iterator[list[tuple[bytes, str | bytes]]]:
        """(key, raw input) of the wanted rows, each distinct key once, in lists of `at_once`."""
        left = set(map(bytes, self.keys[wanted]))
        held: list[tuple[bytes, str | bytes]] = []
        for key, raw in self._raw():
            if not left:
                break  # a small shard is done long before the tables end
            if key.rstrip(b"\0") in left:
                left.discard(key.rstrip(b"\0"))
                self._check(key, raw)
                held.append((key, raw))
                if len(held) >= at_once:
                    yield held
                    held = []
        if held:
            yield held
        if left:
            raise UserError(f"{self.path} changed while it was read; run again.")

    @abstractmethod
    def _raw(self) -> Iterator[tuple[bytes, str | bytes]]:
        """(key, raw input) of every row that has one, in the order of the files."""

    def _check(self, key: bytes, raw: str | bytes) -> None:  # noqa: B027  most inputs need none
        """Raise UserError if the input is not that of its key. Only what is wanted is looked at."""

    def _order(self, entity: list[int], image_ix: list[int], keys: list[bytes]) -> None:
        """Sort the rows, and refuse two of the same name."""
        self.entity, self.image_ix = np.array(entity, dtype=np.int32), np.array(image_ix, dtype=np.int32)
        self.keys = np.array(keys, dtype=KEY)
        order = np.lexsort((self.image_ix, self.entity))
        self.entity, self.image_ix, self.keys = self.entity[order], self.image_ix[order], self.keys[order]
        same = (np.diff(self.entity) == 0) & (np.diff(self.image_ix) == 0)
        if same.any():
            raise UserError(f"{self.path} has two rows for {self.name(int(np.flatnonzero(same)[0]))}; make it again.")


class Texts(Inputs):
    """The texts of `text.parquet`. A null text is a missing one."""

    columns = ("entity_id", "text")
    window = READ_TEXTS

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.files = [self.path]
        entity, keys = [], []
        self.missing = 0
        for batch in _stream(self.files, "text", ["entity_id", "text"], READ_TEXTS):
            for one, text in zip(batch["entity_id"].to_pylist(), batch["text"].to_pylist(), strict=True):
                if text is None:
                    self.missing += 1
                else:
                    entity.append(one)
                    keys.append(key_of(text))
        self._order(entity, [0] * len(entity), keys)

    def name(self, row: int) -> str:
        return f"the text of entity {self.entity[row]} in {self.path}"

    def _raw(self) -> Iterator[tuple[bytes, str]]:
        for batch in _stream(self.files, "text", ["text"], READ_TEXTS):
            for text in batch["text"].to_pylist():
                if text is not None:
                    yield key_of(text), text


class Pictures(Inputs):
    """The clean pictures of `images/part-*.parquet`. A row without bytes is a missing one."""

    columns = ("entity_id", "image_ix", "bytes")
    window = READ_PICTURES

    def __init__(self, folder: str | Path):
        self.path = Path(folder)
        self.files = sorted(self.path.glob("part-*.parquet"))
        if not self.files:
            raise UserError(f"{self.path} holds no part-*.parquet; run the images stage first (dvc repro).")
        entity, image_ix, keys = [], [], []
        self.missing = 0
        for batch in _stream(self.files, "images", ["entity_id", "image_ix", "sha256", "status"], READ_TEXTS):
            for one, ix, digest, status in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                if status != "ok" or digest is None:
                    self.missing += 1
                else:
                    entity.append(one)
                    image_ix.append(ix)
                    keys.append(bytes.fromhex(digest))
        self._order(entity, image_ix, keys)

    def name(self, row: int) -> str:
        return f"picture {self.image_ix[row]} of entity {self.entity[row]} in {self.path}"

    def _raw(self) -> Iterator[tuple[bytes, bytes]]:
        for batch in _stream(self.files, "images", ["sha256", "status", "bytes"], READ_PICTURES):
            for digest, status, content in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                if status != "ok" or digest is None:
                    continue
                yield bytes.fromhex(digest), content or b""

    def _check(self, key: bytes, raw: str | bytes) -> None:
        if not isinstance(raw, bytes) or hashlib.sha256(raw).digest() != key:
            raise UserError(f"{self.path} holds a picture whose bytes are not those of its sha256 {key.hex()}.")


def read_inputs(modality: Modality, folder: Path) -> Inputs:
    """What there is to encode of a modality of the graph in `folder`, data/<graph>.

    Raises UserError if the modality's source is missing or damaged.
    """
    module, _, name = modality.reader.partition(":")
    return getattr(importlib.import_module(module), name)(folder / modality.source)


def _stream(paths: list[Path], kind: str, columns: list[str], rows: int) -> Iterator[pa.RecordBatch]:
    """Batches of the named columns of some Parquet files, a bounded number of rows at a time."""
    for path in paths:
        try:
            # Buffering ahead would hold every row group that was read until the file is closed.
            with pq.ParquetFile(path, pre_buffer=False) as file:
                tables.check_columns(path, file.schema_arrow, kind, columns)
                for batch in file.iter_batches(rows, columns=columns):
                    yield batch.select(columns)
        except FileNotFoundError as error:
            raise UserError(f"{path} is not there; run the stage that writes it (dvc repro).") from error
        except (pa.ArrowInvalid, OSError) as error:
            raise tables.unreadable(path, error) from error
