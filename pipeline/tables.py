"""The Parquet tables that the rooms hand to one another: their schemas, writing them whole, reading them as arrays.

Every table names in its file metadata what made it (`provenance`), so that a file found years later still says which
encoder, weights, preprocessing and code it came from. Nothing here needs this project to be read: plain Parquet.
"""

import fcntl
import glob
import json
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import UserError

PROVENANCE = b"tessera.provenance"
_EARLIER = b"tessera.made_by"  # the key that files written by version 0.1 have
KIND = b"tessera.kind"


def _schema(*fields: tuple) -> pa.Schema:
    return pa.schema([pa.field(name, kind, nullable=bool(rest and rest[0])) for name, kind, *rest in fields])


# A trailing True marks the columns that may be null. The embeddings' width is not known here: see `schema`.
SCHEMAS = {
    "entities": _schema(("entity_id", pa.int32()), ("key", pa.string()), ("label", pa.string())),
    "relations": _schema(
        ("relation_id", pa.int32()), ("key", pa.string()), ("label", pa.string()), ("category", pa.string())
    ),
    "triples": _schema(("head", pa.int32()), ("relation", pa.int32()), ("tail", pa.int32()), ("split", pa.string())),
    "text": _schema(
        ("entity_id", pa.int32()),
        ("label", pa.string(), True),
        ("description", pa.string(), True),
        ("aliases", pa.list_(pa.string())),
        ("text", pa.string(), True),
        ("source", pa.string(), True),
        ("status", pa.string()),
    ),
    "images": _schema(
        ("entity_id", pa.int32()),
        ("image_ix", pa.int32()),
        ("source", pa.string(), True),
        ("sha256", pa.string(), True),
        ("width", pa.int32(), True),
        ("height", pa.int32(), True),
        ("bytes", pa.binary(), True),
        ("status", pa.string()),
        ("error", pa.string(), True),
        ("attempts", pa.int32()),
        ("fetched_at", pa.timestamp("us", tz="UTC"), True),
        ("licence", pa.string(), True),
        ("author", pa.string(), True),
    ),
    "captions": _schema(
        ("entity_id", pa.int32()),
        ("image_ix", pa.int32()),
        ("caption", pa.string(), True),
        ("status", pa.string()),
        ("error", pa.string(), True),
    ),
    "web": _schema(
        ("kind", pa.string()),
        ("key", pa.string()),
        ("status", pa.string()),
        ("body", pa.large_binary(), True),
        ("error", pa.string(), True),
        ("attempts", pa.int32()),
        ("fetched_at", pa.timestamp("us", tz="UTC")),
        ("url", pa.string(), True),
    ),
    "tokens": _schema(("entity_id", pa.int32()), ("image_ix", pa.int32()), ("token_ids", pa.list_(pa.int32()))),
    "features": _schema(("entity_id", pa.int32()), ("embedding", pa.list_(pa.float32())), ("count", pa.int32())),
    "codebook": _schema(("token_id", pa.int32()), ("embedding", pa.list_(pa.float32()))),
    "ranks": _schema(
        ("head", pa.int32()),
        ("relation", pa.int32()),
        ("tail", pa.int32()),
        ("split", pa.string()),
        ("direction", pa.string()),
        ("optimistic", pa.int32()),
        ("pessimistic", pa.int32()),
        ("realistic", pa.float64()),
        ("candidates", pa.int32()),
        ("score", pa.float32()),
    ),
    "completions": _schema(
        *((name, pa.int32()) for name in ("head", "relation", "tail", "rank")),
        ("score", pa.float32()),
        ("probability", pa.float64(), True),  # null: dev was too small, or learnt
        *((f"{name}_{kind}", pa.string()) for name in ("head", "relation", "tail") for kind in ("key", "label")),
    ),
    # What a trained model pays attention to (the study `case`).
    "modality_weights": _schema(
        ("entity_id", pa.int32()), ("label", pa.string()), ("modality", pa.string()), ("weight", pa.float32())
    ),
    "gates": _schema(
        ("relation_id", pa.int32()),
        ("label", pa.string()),
        ("direction", pa.string()),
        ("modality", pa.string()),
        ("expert", pa.int32()),
        ("gate", pa.float32()),
    ),
    "attention": _schema(
        ("entity_id", pa.int32()),
        ("label", pa.string()),
        ("place", pa.int32()),
        ("part", pa.string()),
        ("token_id", pa.int32(), True),
        ("piece", pa.string(), True),  # what a text token spells
        ("attention", pa.float32()),
    ),
}


def schema(kind: str, width: int | None = None) -> pa.Schema:
    """The schema of one kind of table; `width` fixes the size of its `embedding` lists (features, codebook)."""
    found = SCHEMAS[kind]
    if width is None:
        return found
    position = found.get_field_index("embedding")
    return found.set(position, pa.field("embedding", pa.list_(pa.float32(), width), nullable=False))


class TableWriter:
    """Writes one table batch by batch; the file appears under its name only when everything is in it.

    Used as a context manager. If the body raises, or the process dies, whatever stood at `path` before is untouched.
    The path is replaced, never written through: a DVC output may be a link into a shared cache.

    Raises UserError when the disk is full or the folder cannot be written.
    """

    _writer: pq.ParquetWriter  # from __enter__ on

    def __init__(self, path: str | Path, kind: str, provenance: Mapping[str, object], width: int | None = None):
        self.path = Path(path)
        self.kind = kind
        self.rows = 0
        self._schema = schema(kind, width).with_metadata(
            {KIND: kind.encode(), PROVENANCE: json.dumps(dict(provenance), sort_keys=True, ensure_ascii=False).encode()}
        )
        self._stack = ExitStack()

    def __enter__(self) -> "TableWriter":
        try:
            self._temporary = self._stack.enter_context(_beside(self.path))
            self._writer = pq.ParquetWriter(
                self._temporary, self._schema, compression="zstd", use_dictionary=dictionary_columns(self._schema)
            )
        except OSError as error:
            self._stack.close()
            raise _cannot_write(self.path, error) from error
        return self

    def write(self, batch: pa.Table | pa.RecordBatch | Mapping[str, object]) -> None:
        """Append rows: an Arrow table or batch with this schema's columns, or a mapping of column name to values."""
        table = batch if isinstance(batch, pa.Table) else None
        if table is None and isinstance(batch, pa.RecordBatch):
            table = pa.Table.from_batches([batch])
        try:
            if table is None:
                table = pa.table(dict(batch), schema=self._schema)
            self._writer.write_table(table.select(self._schema.names).cast(self._schema))
        except OSError as error:
            raise _cannot_write(self.path, error) from error
        self.rows += table.num_rows

    def __exit__(self, kind: type | None, value: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self._writer.close()
            if kind is None:
                flush_to_disk(self._temporary)
                os.replace(self._temporary, self.path)
        except OSError as error:
            if kind is None:
                raise _cannot_write(self.path, error) from error
        finally:
            self._stack.close()


def write(
    path: str | Path, kind: str, columns: pa.Table | Mapping[str, object], provenance: Mapping[str, object]
) -> None:
    """Write a whole table at once (see TableWriter). An `embedding` column may be an (N, D) float32 array."""
    width = None
    if not isinstance(columns, pa.Table) and "embedding" in columns:
        matrix = np.ascontiguousarray(columns["embedding"], dtype=np.float32)
        width = matrix.shape[1]
        columns = {**columns, "embedding": embedding_column(matrix)}
    with TableWriter(path, kind, provenance, width) as writer:
        writer.write(columns)


def embedding_column(matrix: np.ndarray) -> pa.FixedSizeListArray:
    """An (N, D) float32 array as an Arrow column of fixed-size lists, without copying."""
    flat = pa.array(np.ascontiguousarray(matrix, dtype=np.float32).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, matrix.shape[1])


def dictionary_columns(schema: pa.Schema) -> list[str]:
    """Paths of the Parquet columns that a dictionary can make smaller.

    Floats, keys and pictures hardly repeat: a dictionary of them costs three times the time of writing them plainly,
    and is thrown away again once it is full.
    """
    paths = []
    for column in schema:
        lists = pa.types.is_list(column.type) or pa.types.is_fixed_size_list(column.type)
        value = column.type.value_type if lists else column.type
        if not (pa.types.is_floating(value) or pa.types.is_binary(value) or pa.types.is_fixed_size_binary(value)):
            paths.append(f"{column.name}.list.element" if lists else column.name)
    return paths


def read(path: str | Path, kind: str, columns: Iterable[str] | None = None) -> pa.Table:
    """Read a table and check that it is one of its kind.

    Raises UserError if the file is missing, cut short, no Parquet, or lacks a column of its schema, or a column is of
    another type or has nulls where its schema allows none.
    """
    path = Path(path)
    names = list(columns) if columns is not None else SCHEMAS[kind].names
    try:
        parquet = pq.ParquetFile(path, memory_map=True)
        check_columns(path, parquet.schema_arrow, kind, names)
        table = parquet.read(columns=names)
    except FileNotFoundError as error:
        raise UserError(f"{path} is not there; run the stage that writes it (dvc repro).") from error
    except (pa.ArrowInvalid, OSError) as error:
        raise unreadable(path, error) from error
    for name in names:
        if table[name].null_count and not SCHEMAS[kind].field(name).nullable:
            raise UserError(f"{path} has rows without {name!r}, which every row of {kind} needs; make it again.")
    return table


def check_columns(path: Path, found: pa.Schema, kind: str, names: Iterable[str]) -> None:
    """Raise UserError unless `found` has the named columns of its kind, each of the type that the schema says.

    Widths and widenings do not matter: a list may be of fixed size, a string or its offsets large, a float 64 bits.
    """
    for name in names:
        if name not in found.names:
            raise UserError(f"{path} is not a table of {kind}: it has no column {name!r}; make it again.")
        is_, wanted = found.field(name).type, SCHEMAS[kind].field(name).type
        if _family(is_) != _family(wanted):
            raise UserError(f"{path} is not a table of {kind}: its {name!r} is {is_}, not {wanted}; make it again.")


def _family(kind: pa.DataType) -> str:
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return f"list of {_family(kind.value_type)}"
    tests = {
        "integer": pa.types.is_integer,
        "float": pa.types.is_floating,
        "string": lambda one: pa.types.is_string(one) or pa.types.is_large_string(one),
        "bytes": lambda one: pa.types.is_binary(one) or pa.types.is_large_binary(one),
        "time": pa.types.is_timestamp,
    }
    return next((name for name, test in tests.items() if test(kind)), str(kind))


def unreadable(path: Path, error: Exception) -> UserError:
    """What to say of a file that is no Parquet, or only part of one."""
    reason = " ".join(str(error).split())
    return UserError(f"{path} cannot be read as Parquet ({reason}); delete it and run the stage that makes it again.")


def provenance(path: str | Path) -> dict:
    """What the file says made it; empty if it says nothing. Raises UserError if it is missing or no Parquet."""
    try:
        found = pq.read_schema(path).metadata or {}
    except FileNotFoundError as error:
        raise UserError(f"{path} is not there; run the stage that writes it (dvc repro).") from error
    except (pa.ArrowInvalid, OSError) as error:
        raise unreadable(Path(path), error) from error
    return json.loads(found.get(PROVENANCE) or found.get(_EARLIER, b"{}"))


@dataclass(frozen=True)
class Ragged:
    """Lists of different lengths: list i is `values[offsets[i] : offsets[i + 1]]`."""

    offsets: np.ndarray  # (N + 1,) int64
    values: np.ndarray  # (sum of lengths,) int32


def ragged(column: pa.ChunkedArray) -> Ragged:
    """A list column as two flat arrays."""
    chunk = one_list(column)
    offsets = chunk.offsets.to_numpy(zero_copy_only=False).astype(np.int64)
    return Ragged(offsets - offsets[0], chunk.flatten().to_numpy(zero_copy_only=False))


def one_list(column: pa.ChunkedArray) -> pa.LargeListArray:
    """The chunks of a list column as one. Its offsets have 64 bits: those of 32 end at 2**31 items over all chunks."""
    column = _long(column)
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def tokens_in_order(table: pa.Table) -> pa.Table:
    """The rows of a tokens table by entity and picture: itself where they stand so, as those written here do.

    (Arrow cannot sort lists of 2**31 items or more, nor any without a copy.)
    """
    entity, picture = (table[name].to_numpy() for name in ("entity_id", "image_ix"))
    later = (entity[1:] > entity[:-1]) | ((entity[1:] == entity[:-1]) & (picture[1:] >= picture[:-1]))
    return table if later.all() else table.sort_by([("entity_id", "ascending"), ("image_ix", "ascending")])


def _long(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column if pa.types.is_large_list(column.type) else column.cast(pa.large_list(column.type.value_type))


def matrix(column: pa.ChunkedArray) -> np.ndarray:
    """A column of equally long lists of floats as an (N, D) float32 array.

    Raises UserError if the lists differ in length.
    """
    if not len(column):
        return np.zeros((0, getattr(column.type, "list_size", 0)), dtype=np.float32)
    parts = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks if len(chunk)]
    flat = parts[0] if len(parts) == 1 else np.concatenate(parts)
    if flat.size % len(column):
        raise UserError(f"A column of {len(column)} embeddings holds {flat.size} numbers: its rows differ in width.")
    return np.asarray(flat, dtype=np.float32).reshape(len(column), -1)


def features(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """(entity_id (N,) int32, embedding (N, D) float32) of a features table, in ascending order of entity."""
    table = read(path, "features", ["entity_id", "embedding"])
    return _ascending(table["entity_id"], matrix(table["embedding"]))


def codebook(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """(token_id (N,) int32, embedding (N, D) float32) of a codebook table, in ascending order of token."""
    table = read(path, "codebook")
    return _ascending(table["token_id"], matrix(table["embedding"]))


def _ascending(ids: pa.ChunkedArray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    ids = ids.to_numpy()
    if len(ids) > 1 and not (np.diff(ids) > 0).all():
        order = np.argsort(ids, kind="stable")
        ids, rows = ids[order], rows[order]
    return ids, rows


def write_text(path: str | Path, text: str) -> None:
    """Write a small text or JSON file whole or not at all.

    Raises UserError when the disk is full or the folder cannot be written.
    """
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write a small file whole or not at all (see write_text)."""
    path = Path(path)
    try:
        with _beside(path) as temporary:
            temporary.write_bytes(content)
            flush_to_disk(temporary)
            os.replace(temporary, path)
    except OSError as error:
        raise _cannot_write(path, error) from error


def read_json(path: Path) -> dict:
    """A JSON object. Raises UserError if the file is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path} is not there; run the stage that writes it (dvc repro).") from error
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}); delete it and run the stage that writes it again.") from error


def write_json(path: str | Path, value: object) -> None:
    """Write indented, sorted, UTF-8 JSON whole or not at all (see write_text)."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """An empty file beside `path` for its next content; it is gone at the end, renamed or not.

    A writer holds a lock on its file as long as it lives, so what killed ones left is known, and removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        with suppress(OSError), open(left, "rb") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            left.unlink()
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    with open(temporary, "wb") as held:
        try:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(held, fcntl.LOCK_EX)
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)


def flush_to_disk(path: Path) -> None:
    """Wait until a file's content is on the disk, so that a name given to it afterwards never stands for less."""
    with open(path, "rb") as handle:
        os.fsync(handle.fileno())


def _cannot_write(path: Path, error: OSError) -> UserError:
    return UserError(
        f"{path} cannot be written ({error.strerror or error}); free space or rights there, then run again."
    )
