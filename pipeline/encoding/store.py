"""The feature store: encoded rows keyed by the sha256 of their input, on any fsspec address.

Layout below the address, one folder for each encoder's fingerprint::

    <kind>/<first 16 digits of the fingerprint's sha256>/
        fingerprint.json                 what the rows depend on, for people to read
        parts/<sha256>.parquet           rows: key, token_ids, embedding, count; named by the sha256 of the file
        parts/<sha256>.json              the manifest of that part, written after it: rows, bytes, version
        refused/<sha256>.json            inputs that the encoder cannot read: key -> why
        quarantine/                      parts that were found cut short or changed
    <kind>-codebook/<the same digits>/   the codebook's rows, in parts of the same form, keyed by `code_key`
    recipes/                             which fingerprint a recipe led to (pipeline/encoding/records.py)

Nothing is ever edited. A part counts from the moment its manifest is there, so readers never see half a part; writers
never share a file, so any number of them may write at once. What a reader takes out of a part it has checked against
the part's name.
"""

import hashlib
import io
import json
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import tables
from pipeline.errors import UserError
from pipeline.modalities.addresses import UNOPENABLE, UNREACHABLE, opened

log = logging.getLogger(__name__)

KEY = np.dtype("S32")  # a sha256; numpy pads with zero bytes, which is harmless at a fixed length
VERSION = 1
CODES = "-codebook"  # behind the kind, for the codebook's rows
CODES_ROWS = 2048  # of these in a part


class StoreFailure(UserError):
    """The store cannot be reached, read or written."""


class CorruptPart(Exception):
    """A part does not hold what its name says; it is in quarantine, and its rows must be made again."""

    def __init__(self, part: str):
        super().__init__(part)
        self.part = part


def key_of(raw: bytes | str) -> bytes:
    """The key of an input: its sha256, 32 bytes."""
    return hashlib.sha256(raw.encode() if isinstance(raw, str) else raw).digest()


def code_key(token: int) -> bytes:
    """The key of a row of the codebook."""
    return key_of(f"token {token}")


def fingerprint_id(fingerprint: Mapping[str, object]) -> str:
    """Sixteen hexadecimal digits that stand for a fingerprint."""
    return hashlib.sha256(json.dumps(dict(fingerprint), sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Found:
    """Where wanted keys lie: `part[i]` indexes `names` (-1: nowhere), `row[i]` is the row in that part."""

    names: list[str]
    part: np.ndarray  # (N,) int32
    row: np.ndarray  # (N,) int32

    @property
    def known(self) -> np.ndarray:
        """(N,) bool: which keys are there."""
        return self.part >= 0


class Store:
    """The rows of one encoder's fingerprint at one address.

    Every method raises StoreFailure, one sentence, if the address cannot be reached, read or written.
    """

    def __init__(self, address: str, kind: str, fingerprint: Mapping[str, object]):
        self.address = address
        self._fingerprint = dict(fingerprint)
        try:
            self._fs, root = opened(address)
        except UNOPENABLE as error:
            raise StoreFailure(f"The store {address} cannot be opened ({error}); check the key `store`.") from error
        self._root = f"{root.rstrip('/')}/{kind}/{fingerprint_id(fingerprint)}"
        self._keys: dict[str, np.ndarray] = {}  # parts never change, so their keys are read once
        self._described = False
        self._ignored: set[str] = set()  # corrupt parts of a store that may not be written

    # ------------------------------------------------------------------------------------------------- reading
    def parts(self) -> list[str]:
        """Names of the complete parts, in ascending order."""
        files = set(self._list("parts"))
        complete = {name[:-5] for name in files if name.endswith(".json") and f"{name[:-5]}.parquet" in files}
        return sorted(complete - self._ignored)

    def find(self, keys: np.ndarray) -> Found:
        """Look up keys (N,) of dtype KEY; reads nothing but the parts' key columns."""
        unique, inverse = np.unique(keys, return_inverse=True)
        part = np.full(len(unique), -1, dtype=np.int32)
        row = np.zeros(len(unique), dtype=np.int32)
        names: list[str] = []
        for name in self.parts():
            try:
                held = self._part_keys(name)
            except CorruptPart:
                continue
            at = np.searchsorted(unique, held)
            at[at == len(unique)] = 0
            hit = (unique[at] == held) & (part[at] < 0) if len(unique) else np.zeros(len(held), dtype=bool)
            if hit.any():
                part[at[hit]], row[at[hit]] = len(names), np.flatnonzero(hit)
                names.append(name)
        return Found(names, part[inverse], row[inverse])

    def read(self, part: str) -> pa.Table:
        """All rows of a part, checked. Raises CorruptPart, after moving it to quarantine, if it has changed."""
        try:
            content = self._cat(f"parts/{part}.parquet")
            if hashlib.sha256(content).hexdigest() == part:
                return pq.read_table(io.BytesIO(content))
        except (FileNotFoundError, pa.ArrowInvalid):
            pass
        self._quarantine(part)
        raise CorruptPart(part)

    def verify(self) -> tuple[int, list[str]]:
        """Read everything: (sound rows, names of the corrupt parts, which go to quarantine)."""
        rows, corrupt = 0, []
        for part in self.parts():
            try:
                rows += self.read(part).num_rows
            except CorruptPart:
                corrupt.append(part)
        return rows, corrupt

    def status(self) -> dict[str, int]:
        """Counts of parts, rows and bytes; `orphans` are parts without a manifest (torn, or being written)."""
        files = self._list("parts")
        parts = self.parts()
        manifests = [self._manifest(part) for part in parts]
        return {
            "parts": len(parts),
            "rows": sum(manifest.get("rows", 0) for manifest in manifests),
            "bytes": sum(manifest.get("bytes", 0) for manifest in manifests),
            "orphans": sum(name.endswith(".parquet") for name in files) - len(parts),
            "quarantined": sum(name.endswith(".parquet") for name in self._list("quarantine")),
        }

    # ------------------------------------------------------------------------------------------------- writing
    def write(
        self, keys: Sequence[bytes], tokens: Sequence[np.ndarray], features: np.ndarray, count: np.ndarray
    ) -> str:
        """Write one part of N rows, then its manifest; returns its name. Same rows, same name."""
        columns = {
            "key": pa.array(list(keys), pa.binary(32)),
            "token_ids": ragged_column(tokens),
            "count": pa.array(count, pa.int32()),
        }
        if features.shape[1]:
            columns["embedding"] = tables.embedding_column(features)
        sink, part = io.BytesIO(), pa.table(columns)
        pq.write_table(part, sink, compression="zstd", use_dictionary=tables.dictionary_columns(part.schema))
        content = sink.getvalue()
        name = hashlib.sha256(content).hexdigest()
        manifest = {"rows": len(keys), "bytes": len(content), "version": VERSION}
        self._describe()
        self._put(f"parts/{name}.parquet", content)
        self._put(f"parts/{name}.json", json.dumps(manifest).encode())
        self._keys[name] = np.array(list(keys), dtype=KEY)
        return name

    def _describe(self) -> None:
        """Write what the rows depend on, unless it stands there whole: a killed writer may have left half of it."""
        if not self._described:
            content = json.dumps(self._fingerprint, indent=2, sort_keys=True).encode()
            with suppress(FileNotFoundError):
                self._described = self._cat("fingerprint.json") == content
        if not self._described:
            self._put("fingerprint.json", content)
            self._described = True

    # ------------------------------------------------------------------------------------------------- refusals
    def refused(self) -> dict[bytes, str]:
        """Inputs that the encoder cannot read, by their keys, and why."""
        found: dict[bytes, str] = {}
        for name in self._list("refused"):
            with suppress(FileNotFoundError):
                content = self._cat(f"refused/{name}")
                if hashlib.sha256(content).hexdigest() == name.removesuffix(".json"):
                    found |= {bytes.fromhex(key): why for key, why in json.loads(content).items()}
        return found

    def refuse(self, reasons: Mapping[bytes, str]) -> None:
        """Keep why some inputs have no row, so that nobody asks again."""
        content = json.dumps({key.hex(): why for key, why in sorted(reasons.items())}).encode()
        self._describe()
        self._put(f"refused/{hashlib.sha256(content).hexdigest()}.json", content)

    # ------------------------------------------------------------------------------------------------- artifacts
    def artifact(self, name: str) -> bytes | None:
        """Bytes kept beside the parts (a learned codebook), or None."""
        try:
            return self._cat(f"artifacts/{name}")
        except FileNotFoundError:
            return None

    def put_artifact(self, name: str, content: bytes) -> None:
        """Keep bytes beside the parts."""
        self._put(f"artifacts/{name}", content)

    # ------------------------------------------------------------------------------------------------- plumbing
    def _part_keys(self, part: str) -> np.ndarray:
        if part not in self._keys:
            try:
                with self._fs.open(f"{self._root}/parts/{part}.parquet", "rb") as handle:
                    column = pq.read_table(handle, columns=["key"])["key"]
            except (pa.ArrowInvalid, FileNotFoundError, KeyError) as error:
                self._quarantine(part)
                raise CorruptPart(part) from error
            except UNREACHABLE as error:  # Arrow says OSError of a torn file, as the file system does of a lost one
                if not self._exists(f"parts/{part}.parquet"):
                    raise self._failure("read", error) from error
                self._quarantine(part)
                raise CorruptPart(part) from error
            self._keys[part] = np.array(column.to_pylist(), dtype=KEY)
        return self._keys[part]

    def _manifest(self, part: str) -> dict:
        try:
            return json.loads(self._cat(f"parts/{part}.json"))
        except (FileNotFoundError, ValueError):
            return {}

    def _quarantine(self, part: str) -> None:
        """Move a part out of sight, manifest first, so that it stops counting at once."""
        self._keys.pop(part, None)
        log.warning("store: part %s… is corrupt; its rows will be made again.", part[:12])
        for suffix in (".json", ".parquet"):
            source, target = f"{self._root}/parts/{part}{suffix}", f"{self._root}/quarantine/{part}{suffix}"
            try:
                self._fs.makedirs(f"{self._root}/quarantine", exist_ok=True)
                self._fs.mv(source, target)
            except FileNotFoundError:
                continue  # another reader was first
            except UNREACHABLE:
                self._ignored.add(part)  # a reader without rights cannot mend the store, but need not stop either
                return

    def _list(self, folder: str) -> list[str]:
        try:
            self._fs.invalidate_cache()
            found = self._fs.ls(f"{self._root}/{folder}", detail=False)
        except FileNotFoundError:
            return []
        except UNREACHABLE as error:
            raise self._failure("list", error) from error
        return [name.rsplit("/", 1)[-1] for name in found]

    def _exists(self, name: str) -> bool:
        return name.rsplit("/", 1)[-1] in self._list(name.rsplit("/", 1)[0])

    def _cat(self, name: str) -> bytes:
        try:
            return self._fs.cat_file(f"{self._root}/{name}")
        except FileNotFoundError:
            raise
        except UNREACHABLE as error:
            raise self._failure("read", error) from error

    def _put(self, name: str, content: bytes) -> None:
        path = f"{self._root}/{name}"
        try:
            self._fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
            self._fs.pipe_file(path, content)
        except UNREACHABLE as error:
            raise self._failure("write", error) from error

    def _failure(self, verb: str, error: Exception) -> StoreFailure:
        return StoreFailure(
            f"Cannot {verb} the store {self.address} ({getattr(error, 'strerror', None) or error}); mend it, or set "
            "`encode.store_failure: continue` to go on without it."
        )


class Stores:
    """The shared store, and a local one that steps in where that cannot be used.

    `address` None: no shared store; the local one then holds what a killed run left. `on_failure`: "stop" raises
    StoreFailure when the shared store cannot be reached, read or written; "continue" says so once and goes on without.
    """

    def __init__(
        self, address: str | None, scratch: Path, kind: str, fingerprint: Mapping[str, object], on_failure: str = "stop"
    ):
        self._scratch = scratch
        self._continue = on_failure == "continue"
        self._local = Store(str(scratch), kind, fingerprint)
        self._shared: Store | None = None
        self._codes: Store | None = None
        self._writable = True
        if address is not None:
            try:
                self._shared = Store(address, kind, fingerprint)
                self._codes = Store(address, kind + CODES, fingerprint)
            except StoreFailure as failure:
                self._give_up(failure)

    def find(self, keys: np.ndarray) -> list[tuple[Store, Found]]:
        """Where the keys (N,) are, one lookup per store."""
        found = []
        if self._shared is not None:
            try:
                found.append((self._shared, self._shared.find(keys)))
            except StoreFailure as failure:
                self._give_up(failure)
        return [*found, (self._local, self._local.find(keys))]

    def hold(self, keys: np.ndarray) -> bool:
        """Whether all the keys (N,) are there, or known to be unreadable."""
        known = np.isin(keys, np.array(list(self.refused()), dtype=KEY))
        for _, found in self.find(keys):
            known |= found.known
        return bool(known.all())

    def read(self, store: Store, part: str) -> pa.Table:
        """A part of one of the stores. Raises CorruptPart if it must be made again."""
        try:
            return store.read(part)
        except StoreFailure as failure:
            if store is not self._shared:
                raise
            self._give_up(failure)
            raise CorruptPart(part) from failure

    def write(
        self, keys: Sequence[bytes], tokens: Sequence[np.ndarray], features: np.ndarray, count: np.ndarray
    ) -> None:
        """Add a part to the shared store, or to the local one if that cannot be written."""
        if self._shared is not None and self._writable:
            try:
                self._shared.write(keys, tokens, features, count)
                return
            except StoreFailure as failure:
                if not self._continue:
                    raise
                log.warning("%s Keeping new rows here instead.", failure)
                self._writable = False
        self._local.write(keys, tokens, features, count)

    def refused(self) -> dict[bytes, str]:
        """Inputs that the encoder is known not to read, by their keys, and why."""
        if self._shared is None:
            return {}
        try:
            return self._shared.refused()
        except StoreFailure as failure:
            self._give_up(failure)
            return {}

    def refuse(self, reasons: Mapping[bytes, str]) -> None:
        """Keep in the shared store why some inputs have no row."""
        if self._shared is not None and self._writable and reasons:
            try:
                self._shared.refuse(reasons)
            except StoreFailure as failure:  # a note only: the rows are whole without it, as in a store to read from
                log.warning("%s What cannot be read is asked again next time.", failure)

    def codebook(self, used: np.ndarray, make: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """The vectors (N, W) float32 of the token ids `used` (N,) int32, ascending.

        What the shared store lacks comes from `make`, the encoder's own `codebook`, and is kept there.
        """
        if self._codes is None or self._shared is None:
            return make(used)
        keys = np.array([code_key(int(token)) for token in used], dtype=KEY)
        try:
            held = _vectors(self._codes, keys)
        except StoreFailure as failure:
            self._give_up(failure)
            return make(used)
        lacking = np.array([at for at in range(len(used)) if at not in held], dtype=np.int64)
        if len(lacking):
            made = make(used[lacking])
            held |= dict(zip(lacking.tolist(), made, strict=True))
            self._keep_codes(keys[lacking], used[lacking], made)
        return np.stack([held[at] for at in range(len(used))])

    def _keep_codes(self, keys: np.ndarray, tokens: np.ndarray, vectors: np.ndarray) -> None:
        """Add rows of the codebook to the shared store. They can be had again, so a store that is only read is fine."""
        assert self._codes is not None
        for first in range(0, len(keys) if vectors.shape[1] else 0, CODES_ROWS):
            some = slice(first, first + CODES_ROWS)
            whole = [bytes(key).ljust(KEY.itemsize, b"\0") for key in keys[some]]
            count = np.ones(len(whole), dtype=np.int32)
            try:
                self._codes.write(whole, list(tokens[some, None].astype(np.int32)), vectors[some], count)
            except StoreFailure as failure:
                log.info("%s The codebook's rows stay with the weights.", failure)
                return

    def close(self) -> None:
        """Forget the local store: everything is published."""
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _give_up(self, failure: StoreFailure) -> None:
        if not self._continue:
            raise failure
        log.warning("%s Going on without it.", failure)
        self._shared = None


def _vectors(store: Store, keys: np.ndarray) -> dict[int, np.ndarray]:
    """Those of the keys (N,) that the store holds: place among them -> vector (W,) float32."""
    held: dict[int, np.ndarray] = {}
    found = store.find(keys)
    for index, name in enumerate(found.names):
        try:
            matrix = tables.matrix(store.read(name)["embedding"])
        except CorruptPart:
            continue
        held |= {int(at): matrix[found.row[at]] for at in np.flatnonzero(found.part == index)}
    return held


def statuses(address: str, kind: str) -> Iterator[tuple[dict, "Store"]]:
    """Every fingerprint that the store at `address` holds for `kind` (or `kind` + CODES), with its Store."""
    try:
        fs, root = opened(address)
        folders = sorted(fs.ls(f"{root.rstrip('/')}/{kind}", detail=False))
    except FileNotFoundError:
        return
    except UNOPENABLE as error:
        raise StoreFailure(f"The store {address} cannot be opened ({error}); check the key `store`.") from error
    for folder in folders:
        try:
            fingerprint = json.loads(fs.cat_file(f"{folder}/fingerprint.json"))
        except (FileNotFoundError, ValueError):
            continue
        yield fingerprint, Store(address, kind, fingerprint)


def ragged_column(lists: Sequence[np.ndarray]) -> pa.ListArray:
    """Arrays of int32 as an Arrow list column."""
    offsets = np.zeros(len(lists) + 1, dtype=np.int32)
    np.cumsum([len(one) for one in lists], out=offsets[1:])
    flat = np.concatenate(lists) if len(lists) else np.zeros(0, dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat.astype(np.int32)))
