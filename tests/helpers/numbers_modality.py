"""A third modality for tests, numbers of entities: its row, its table's schema, its reader and its encoder family."""

import hashlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline import tables
from pipeline.encoding import encoders
from pipeline.encoding.inputs import Inputs
from pipeline.modalities import MODALITIES, Modality

KIND = "number"
ROW = Modality(
    name="number",
    label="number",
    plural="numbers",
    key="numbers",
    source="numbers.parquet",
    kind="numbers",
    column="value",
    reader=f"{__name__}:Numbers",
    encoder="signs",
)
SCHEMA = pa.schema([pa.field("entity_id", pa.int32(), nullable=False), pa.field("value", pa.string())])


class Numbers(Inputs):
    """The reader."""

    columns = ("entity_id", "value")
    window = 8192

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.files = [self.path]
        rows = tables.read(path, "numbers").to_pylist()
        self._rows = [row for row in rows if row["value"] is not None]
        self.missing = len(rows) - len(self._rows)
        ids = [row["entity_id"] for row in self._rows]
        self._order(ids, [0] * len(ids), [key for key, _ in self._raw()])

    def name(self, row: int) -> str:
        return f"the number of entity {self.entity[row]}"

    def _raw(self) -> Iterator[tuple[bytes, str]]:
        for row in self._rows:
            yield hashlib.sha256(row["value"].encode()).digest(), row["value"]


@dataclass(frozen=True)
class Settings:
    """The encoder's."""


class Signs:
    """The encoder: a number and its square."""

    window = 0
    fingerprint = {"family": "signs"}  # noqa: RUF012

    def prepare(self, raw: Sequence[str]) -> list[object]:
        return [float(one) for one in raw]

    def size(self, item: object) -> int:
        return 1

    def encode(self, items: Sequence[float]) -> encoders.Rows:
        one = np.array(items, dtype=np.float32)
        none = np.zeros(0, dtype=np.int32)
        return encoders.Rows([none] * len(items), np.stack([one, one**2], axis=1), np.ones(len(items), dtype=np.int32))

    def codebook(self, used: np.ndarray) -> np.ndarray:
        return np.zeros((len(used), 1), dtype=np.float32)


def load(settings: Settings, **_: object) -> Signs:
    return Signs()


def register(monkeypatch) -> Modality:
    """Add the row, the schema and the family to their tables, as a change of those files would."""
    monkeypatch.setitem(MODALITIES, ROW.name, ROW)
    monkeypatch.setitem(tables.SCHEMAS, ROW.kind, SCHEMA)
    known = encoders.families()
    monkeypatch.setattr(encoders, "families", lambda: {**known, "signs": sys.modules[__name__]})
    return ROW
