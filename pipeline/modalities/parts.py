"""The table of a graph's pictures, `images/part-*.parquet`: writing it part by part, and counting what is in it."""

import os
import secrets
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from pipeline import tables
from pipeline.errors import UserError
from pipeline.modalities.pictures import InvalidImage, Picture

PART_BYTES = 64 * 2**20
_BATCH_BYTES = 8 * 2**20  # one row group, which is what a reader of one batch holds in memory
_BATCH_ROWS = 4096

# What a row's `status` says. Only "ok" has bytes.
OK, REFUSED, MISSING, FAILED, NONE = "ok", "refused", "missing", "failed", "none"


def row(entity: int, image_ix: int, source: str | None, result: Picture | InvalidImage, **more: object) -> dict:
    """A row for a picture that came: clean, or refused with its reason. `more`: other columns of `images`."""
    common = {"entity_id": entity, "image_ix": image_ix, "source": source, "attempts": 1, **more}
    if isinstance(result, Picture):
        about = {"sha256": result.sha256, "width": result.width, "height": result.height, "bytes": result.data}
        return {**common, **about, "status": OK}
    return {**common, "status": REFUSED, "error": str(result)}


def absent(
    entity: int, image_ix: int, status: str, error: str | None, source: str | None = None, **more: object
) -> dict:
    """A row for a picture that did not come; `status` MISSING, FAILED or NONE."""
    return {
        "entity_id": entity, "image_ix": image_ix, "status": status, "error": error, "source": source, "attempts": 0,
        **more,
    }  # fmt: skip


class Counts:
    """What a table of pictures holds, for `images.json` and the graph's page."""

    def __init__(self, entities: int):
        self._entities = entities
        self._status: Counter = Counter()
        self._reasons: Counter = Counter()
        self._licences: Counter = Counter()
        self._pictures: Counter = Counter()
        self._rows, self._bytes = 0, 0

    def add(self, one: Mapping[str, Any]) -> None:
        """Count one row of `images`."""
        self._rows += 1
        self._status[one["status"]] += 1
        if one["status"] == OK:
            self._pictures[one["entity_id"]] += 1
            self._bytes += len(one["bytes"])
            if one.get("licence"):
                self._licences[one["licence"]] += 1
        else:
            self._reasons[f"{one['status']}: {one.get('error') or 'no reason given'}"] += 1

    def result(self) -> dict:
        """Exact counts; reasons and licences with the most frequent first."""
        several = sum(count > 1 for count in self._pictures.values())
        return {
            "entities": self._entities,
            "with_picture": len(self._pictures),
            "with_several": several,
            "without_picture": self._entities - len(self._pictures),
            "coverage": round(len(self._pictures) / self._entities, 6) if self._entities else 0.0,
            "pictures": self._status[OK],
            "rows": self._rows,
            "bytes": self._bytes,
            "status": dict(self._status.most_common()),
            "reasons": [{"reason": reason, "rows": rows} for reason, rows in self._reasons.most_common(20)],
            "licences": [{"licence": name, "pictures": count} for name, count in self._licences.most_common()],
        }


class Parts:
    """Writes rows of `images` into `folder` as part-00000.parquet, …; the folder appears whole or not at all.

    Raises UserError when the disk is full or the folder cannot be written; what stood there before stays.
    """

    def __init__(self, folder: str | Path, provenance: Mapping[str, object], part_bytes: int = PART_BYTES):
        self.folder = Path(folder)
        self._provenance, self._part_bytes = provenance, part_bytes
        self._temporary = self.folder.with_name(f".{self.folder.name}.{secrets.token_hex(4)}.part")
        self._part: tables.TableWriter | None = None
        self._parts, self._in_part, self._in_batch = 0, 0, 0
        self._batch: list[dict] = []

    def __enter__(self) -> "Parts":
        try:
            self._temporary.mkdir(parents=True)
        except OSError as error:
            raise _cannot_write(self.folder, error) from error
        return self

    def add(self, one: dict) -> None:
        """Append one row; columns it does not name are null."""
        self._batch.append(one)
        self._in_batch += len(one.get("bytes") or b"")
        if self._in_batch >= _BATCH_BYTES or len(self._batch) >= _BATCH_ROWS:
            self._flush()
            if self._in_part >= self._part_bytes:
                self._end_part()

    def _flush(self) -> None:
        if self._part is None:
            path = self._temporary / f"part-{self._parts:05d}.parquet"
            self._part = tables.TableWriter(path, "images", self._provenance).__enter__()
            self._parts += 1
        names = tables.SCHEMAS["images"].names
        self._part.write({name: [one.get(name) for one in self._batch] for name in names})
        self._in_part += self._in_batch
        self._batch, self._in_batch = [], 0

    def _end_part(self) -> None:
        part, self._part, self._in_part = self._part, None, 0
        if part is not None:
            part.__exit__(None, None, None)

    def __exit__(self, kind: type | None, value: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if kind is None:
                self._flush()  # also when there is no row: a table without rows is still a table
                self._end_part()
                self._publish()
            elif self._part is not None:
                self._part.__exit__(kind, value, trace)
        finally:
            shutil.rmtree(self._temporary, ignore_errors=True)

    def _publish(self) -> None:
        """Put the new folder in the old one's place; the old one is gone only once the new one stands."""
        old = self.folder.with_name(f".{self.folder.name}.{secrets.token_hex(4)}.old")
        try:
            if self.folder.exists():
                os.replace(self.folder, old)
            os.replace(self._temporary, self.folder)
        except OSError as error:
            raise _cannot_write(self.folder, error) from error
        shutil.rmtree(old, ignore_errors=True)


def parts(folder: str | Path) -> list[Path]:
    """The parts of a table of pictures, in order.

    Raises UserError if there is none.
    """
    found = sorted(Path(folder).glob("part-*.parquet"))
    if not found:
        raise UserError(f"{folder} holds no part-*.parquet; run the stage `images` (dvc repro).")
    return found


def _cannot_write(path: Path, error: OSError) -> UserError:
    return UserError(f"{path} cannot be written ({error.strerror or error}); free space or rights there, then go on.")
