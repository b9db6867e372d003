"""Answers from the web, kept as they come: a work store that survives being killed, and the table made of it.

The work store is one SQLite file, so that a process that dies leaves every answer it had written. The table is plain
Parquet, tracked, and holds all that is needed to build texts and pictures again without asking anybody.
"""

import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import tables
from pipeline.errors import UserError

# What became of a request: it was answered; it does not exist; it was answered with what is of no use; it was given up.
OK, MISSING, REFUSED, FAILED = "ok", "missing", "refused", "failed"

_COMMIT_SECONDS = 1.0
_PART_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Answer:
    """One answer. `kind` says what was asked (entity, article, picture, …) and `key` of what."""

    kind: str
    key: str
    status: str
    body: bytes | None
    error: str | None
    attempts: int
    fetched_at: datetime
    url: str | None = None


class WebStore(AbstractContextManager):
    """The answers that came so far, by (kind, key). Use as a context manager; a later answer replaces an earlier one.

    Raises UserError if the file cannot be opened, is damaged, or the disk is full.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._changed, self._committed = False, time.monotonic()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(self.path, timeout=5, isolation_level=None)
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = NORMAL")
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS answers (kind TEXT, key TEXT, status TEXT, body BLOB, error TEXT,"
                " attempts INTEGER, fetched_at TEXT, url TEXT, PRIMARY KEY (kind, key))"
            )
        except (sqlite3.Error, OSError) as error:
            raise self._unusable(error) from error

    def put(self, answer: Answer) -> None:
        """Keep an answer; it is safe on disk within a second, and at once when the store is closed."""
        row = (
            answer.kind, answer.key, answer.status, answer.body, answer.error, answer.attempts,
            answer.fetched_at.isoformat(), answer.url,
        )  # fmt: skip
        try:
            if not self._changed:
                self._connection.execute("BEGIN")
                self._changed = True
            self._connection.execute("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
            if time.monotonic() - self._committed > _COMMIT_SECONDS:
                self.commit()
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    def commit(self) -> None:
        """Make everything so far durable."""
        if self._changed:
            self._connection.execute("COMMIT")
            self._changed = False
        self._committed = time.monotonic()

    def known(self, kind: str) -> dict[str, str]:
        """key -> status of all answers of a kind."""
        return dict(self._read("SELECT key, status FROM answers WHERE kind = ?", (kind,)))

    def get(self, kind: str, key: str) -> Answer | None:
        """One answer, or None if there is none."""
        for row in self._read("SELECT * FROM answers WHERE kind = ? AND key = ?", (kind, key)):
            return _answer(row)
        return None

    def forget_failed(self) -> int:
        """Drop the answers that were given up, so that they are asked for again; how many there were."""
        cursor = self._read("DELETE FROM answers WHERE status = ?", (FAILED,))
        return cursor.rowcount

    def _read(self, statement: str, values: tuple) -> sqlite3.Cursor:
        try:
            return self._connection.execute(statement, values)
        except sqlite3.Error as error:
            raise self._unusable(error) from error

    def __exit__(self, kind: type | None, value: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self.commit()
        except sqlite3.Error as error:
            if kind is None:
                raise self._unusable(error) from error
        finally:
            self._connection.close()

    def _unusable(self, error: BaseException) -> UserError:
        return UserError(
            f"The work store {self.path} cannot be used ({error}); free the disk, or delete it to start anew."
        )


def _answer(row: tuple) -> Answer:
    kind, key, status, body, error, attempts, fetched_at, url = row
    return Answer(kind, key, status, body, error, attempts, datetime.fromisoformat(fetched_at), url)


def now() -> datetime:
    """This moment, in UTC, to the second."""
    return datetime.now(UTC).replace(microsecond=0)


def publish(store: WebStore, wanted: Iterable[tuple[str, str]], folder: Path, provenance: Mapping[str, object]) -> int:
    """Write the wanted answers, ordered by (kind, key), as `folder`/answers-00000.parquet, …; how many there were.

    Only `wanted` counts: a work store may hold answers of an earlier setting. Raises UserError when the disk is full.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("answers-*.parquet"):
        old.unlink()
    rows, part = 0, 0
    waiting = iter(sorted(set(wanted)))
    more = True
    while more or part == 0:
        more, size = False, 0
        with tables.TableWriter(folder / f"answers-{part:05d}.parquet", "web", provenance) as writer:
            for batch, batch_size in _batches(store, waiting):
                writer.write(batch)
                rows, size = rows + batch.num_rows, size + batch_size
                if size >= _PART_BYTES:
                    more = True
                    break
        part += 1
    return rows


def _batches(store: WebStore, keys: Iterator[tuple[str, str]]) -> Iterator[tuple[pa.Table, int]]:
    names = tables.SCHEMAS["web"].names
    batch: list[Answer] = []
    size = 0
    for kind, key in keys:
        answer = store.get(kind, key)
        if answer is None:
            continue
        batch.append(answer)
        size += len(answer.body or b"") + 200
        if size > _PART_BYTES // 8:
            yield pa.table({name: [getattr(one, name) for one in batch] for name in names}, tables.SCHEMAS["web"]), size
            batch, size = [], 0
    if batch:
        yield pa.table({name: [getattr(one, name) for one in batch] for name in names}, tables.SCHEMAS["web"]), size


def read(folder: str | Path, kind: str) -> Iterator[Answer]:
    """The published answers of one kind, in order of key.

    Raises UserError if the folder holds no answers.
    """
    found = sorted(Path(folder).glob("answers-*.parquet"))
    if not found:
        raise UserError(f"{folder} holds no answers-*.parquet; run the stage `fetch` (dvc repro), or dvc pull.")
    names = tables.SCHEMAS["web"].names
    for path in found:
        parquet = pq.ParquetFile(path)
        place = names.index("kind")
        for group in range(parquet.num_row_groups):
            bounds = parquet.metadata.row_group(group).column(place).statistics
            if bounds is not None and bounds.has_min_max and not bounds.min <= kind <= bounds.max:
                continue
            for row in parquet.read_row_group(group).to_pylist():
                if row["kind"] == kind:
                    yield Answer(**row)
