"""Reader -> encoder -> writer: the rows of a graph's texts or pictures, through the feature store, into Parquet.

A run looks up which inputs the store knows, encodes the rest and adds them part by part, then publishes the graph's
tables from the store alone. So a run that was killed goes on from its last part, n processes may each fill a
shard, and the tables depend on the inputs and the encoder only, byte for byte.
"""

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from pipeline.encoding.encoders import Encoder, InvalidInput, Rows
from pipeline.encoding.inputs import Inputs
from pipeline.encoding.publish import publish
from pipeline.encoding.store import KEY, Stores
from pipeline.errors import UserError

log = logging.getLogger(__name__)

PART_ROWS = 2048  # rows of a part: what a kill can cost
PART_SECONDS = 60  # a slow encoder writes its parts earlier
MOST_STREAMS = 8
NOT_FINITE = (
    "the encoder gives a feature that is not a finite number; its weights are damaged, or it needs "
    "`encode.precision: float32`."
)
AHEAD = 4  # batches that are read and prepared while one is encoded

Progress = Callable[[int, int], None]  # rows done, rows to do
# Writes something else than the tables; gives the counts of rows, entities and codes, or None as `publish` does.
Writer = Callable[[dict[bytes, InvalidInput]], tuple[int, int, int] | None]


@dataclass
class Counts:
    """What a run did. Rows are rows of the input; `distinct` counts the different inputs that were encoded."""

    inputs: int = 0  # rows that have an input
    missing: int = 0  # rows without one (no text, no picture)
    found: int = 0  # rows whose input the store knew
    encoded: int = 0  # rows whose input was encoded now
    distinct: int = 0
    refused: int = 0  # rows whose input no encoder can read
    refusals: list[str] = field(default_factory=list)  # the first few, in words
    rows: int = 0  # rows of tokens published
    entities: int = 0  # entities with a feature
    codes: int = 0  # rows of the codebook
    seconds: dict[str, float] = field(default_factory=lambda: {"read": 0.0, "encode": 0.0, "write": 0.0})


def encode_modality(
    inputs: Inputs,
    encoder: Encoder,
    stores: Stores,
    out: str | Path | None,
    *,
    provenance: dict[str, object],
    batch_size: int = 64,
    longest: int = 0,
    streams: int = 1,
    shard: tuple[int, int] | None = None,
    progress: Progress | None = None,
    writer: Writer | None = None,
) -> Counts:
    """Encode what the store lacks, then publish `<out>/{tokens,features,codebook}.parquet`.

    With `longest`, `batch_size` inputs of that size (`Encoder.size`: tokens of a text) are a batch, and of smaller
    ones as many more as come to the same: a GPU idles over 64 short texts.
    `streams` batches are encoded at once, each on its own part of the cores (see `pick_streams`).
    With `shard` = (i, n), encodes only the i-th of n shards of the inputs (split by their keys) and publishes nothing;
    without `out` it encodes all and publishes nothing, unless `writer` does: called with the inputs that have no row.
    An input that cannot be read, or of which the encoder makes no finite feature, is left out and said.
    Raises UserError if an input table is damaged, or nothing at all could be encoded.
    """
    counts = Counts(inputs=len(inputs.keys), missing=inputs.missing)
    if shard is not None and not 0 <= shard[0] < shard[1]:
        raise UserError(f"--shard {shard[0]}/{shard[1]}: shards count from 0 to n - 1.")
    held = set(map(_full, inputs.keys))
    refused = {key: InvalidInput(why) for key, why in stores.refused().items() if key in held}
    before = set(refused)
    for attempt in range(3):  # a damaged part sends its rows through once more
        known = np.zeros(len(inputs.keys), dtype=bool)
        for _, found in stores.find(inputs.keys):
            known |= found.known
        if attempt == 0:
            counts.found = int(known.sum())
        wanted = ~known & _in_shard(inputs.keys, shard)
        wanted &= ~_among(inputs, refused)
        _encode(inputs, wanted, encoder, stores, (batch_size, longest), streams, counts, refused, progress)
        if shard is not None or (out is None and writer is None):
            break
        started = time.perf_counter()
        usable = ~_among(inputs, refused)
        nothing = len(usable) and not usable.any()  # said below, and no table is written
        published: tuple[int, int, int] | None = (0, 0, 0)
        if writer is not None:
            published = published if nothing else writer(refused)
        elif out is not None and not nothing:
            published = publish(out, inputs, usable, stores, encoder, provenance)
        counts.seconds["write"] += time.perf_counter() - started
        if published is not None:
            counts.rows, counts.entities, counts.codes = published
            stores.close()
            break
    else:
        raise UserError("The store loses parts as fast as they are written; check its disk with --verify.")
    fresh = {key: why for key, why in refused.items() if key not in before}
    stores.refuse({key: str(why) for key, why in fresh.items() if why.lasting})
    counts.encoded -= int(_among(inputs, fresh).sum())
    _tell(counts, inputs, refused)
    return counts


def _among(inputs: Inputs, keys: Collection[bytes]) -> np.ndarray:
    """(N,) bool: the rows of some keys."""
    return np.isin(inputs.keys, np.array(list(keys), dtype=KEY))


def _in_shard(keys: np.ndarray, shard: tuple[int, int] | None) -> np.ndarray:
    """(N,) bool: which keys belong to the shard. Keys are hashes, so shards are even in any order."""
    if shard is None:
        return np.ones(len(keys), dtype=bool)
    head = keys.view(np.uint8).reshape(len(keys), KEY.itemsize)[:, :8].copy().view(">u8").ravel()
    return head % np.uint64(shard[1]) == np.uint64(shard[0])


def _tell(counts: Counts, inputs: Inputs, refused: dict[bytes, InvalidInput]) -> None:
    if refused:
        lost = _among(inputs, refused)
        counts.refused = int(lost.sum())
        reasons = [f"{inputs.name(row)}: {refused[_full(inputs.keys[row])]}" for row in np.flatnonzero(lost)[:5]]
        counts.refusals = reasons
        for reason in reasons:
            log.warning("no row for %s", reason)
        if counts.refused == counts.inputs:
            raise UserError(f"None of the {counts.inputs} inputs of {inputs.path} can be encoded; first: {reasons[0]}")
    log.info("%s rows found in the store, %s encoded now", f"{counts.found:,}", f"{counts.encoded:,}")


def _full(key: np.bytes_) -> bytes:
    return bytes(key).ljust(KEY.itemsize, b"\0")  # numpy cuts trailing zero bytes


def _encode(
    inputs: Inputs,
    wanted: np.ndarray,
    encoder: Encoder,
    stores: Stores,
    batch: tuple[int, int],
    streams: int,
    counts: Counts,
    refused: dict[bytes, InvalidInput],
    progress: Progress | None,
) -> None:
    """Encode the wanted rows, each distinct input once, and write them part by part; `batch`: its size, `longest`."""
    total = int(wanted.sum())
    counts.encoded += total
    if not total:
        return
    multiplicity = Counter(map(_full, inputs.keys[wanted]))
    pending = Pending(stores)
    done = 0
    batches = _ahead(_batches(inputs, wanted, encoder, *batch, refused), counts)
    for every, made in _encoded(batches, encoder, streams, counts):
        keys, rows = finite(every, made)
        refused |= {key: InvalidInput(NOT_FINITE, lasting=False) for key in set(every).difference(keys)}
        started = time.perf_counter()
        pending.add(keys, rows)
        counts.seconds["write"] += time.perf_counter() - started
        counts.distinct += len(keys)
        done += sum(multiplicity[key] for key in every)
        if progress:
            progress(done, total)
    started = time.perf_counter()
    pending.flush()
    counts.seconds["write"] += time.perf_counter() - started


def pick_streams(device: torch.device) -> int:
    """How many batches to encode at once: one on a GPU; on a CPU one per core, up to eight.

    One core that does a whole batch never waits for another between a model's many small operations; and its rows do
    not depend on how many cores there are. More than eight would cost memory.
    """
    return 1 if device.type != "cpu" else min(torch.get_num_threads(), MOST_STREAMS)


def _encoded(batches: Iterator, encoder: Encoder, streams: int, counts: Counts) -> Iterator[tuple[list[bytes], Rows]]:
    """(keys, rows) of the batches, in their order, `streams` of them in the making at a time."""
    cores = torch.get_num_threads()
    waiting: deque[tuple[list[bytes], Future]] = deque()

    def taken() -> tuple[list[bytes], Rows]:
        started = time.perf_counter()
        keys, rows = waiting[0][0], waiting.popleft()[1].result()
        counts.seconds["encode"] += time.perf_counter() - started
        return keys, rows

    # Torch keeps the number of cores of an operation for each thread, but what it tells new threads for all of them.
    pool = ThreadPoolExecutor(streams, "encoder", torch.set_num_threads, (max(cores // streams, 1),))
    try:
        for keys, items in batches:
            if streams > 1 and not waiting and not counts.distinct:
                rows_of(encoder, items[:1])  # builds the model, which only one thread should do
            waiting.append((keys, pool.submit(rows_of, encoder, items)))
            if len(waiting) > streams:  # one more is ready than there are streams
                yield taken()
        while waiting:
            yield taken()
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(cores)


def rows_of(encoder: Encoder, items: Sequence[object]) -> Rows:
    """The rows of prepared inputs. One alone goes in twice: matrix-vector kernels round otherwise than matrix-matrix
    ones, and a row must not depend on its company."""
    if len(items) > 1:
        return encoder.encode(items)
    rows = encoder.encode([*items, *items])
    return Rows(rows.tokens[:1], rows.features[:1], rows.count[:1])


class Pending:
    """Rows that wait to become a part."""

    def __init__(self, stores: Stores):
        self._stores = stores
        self._clear()

    def _clear(self) -> None:
        self._keys: list[bytes] = []
        self._rows: list[Rows] = []
        self._since = time.monotonic()

    def add(self, keys: Sequence[bytes], rows: Rows) -> None:
        """Take rows; writes a part when it is full or old."""
        self._keys += keys
        self._rows.append(rows)
        if len(self._keys) >= PART_ROWS or time.monotonic() - self._since > PART_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what is there as a part."""
        if self._keys:
            rows = Rows(
                [one for rows in self._rows for one in rows.tokens],
                np.concatenate([rows.features for rows in self._rows]),
                np.concatenate([rows.count for rows in self._rows]),
            )
            self._stores.write(self._keys, rows.tokens, rows.features, rows.count)
        self._clear()


def finite(keys: list[bytes], rows: Rows) -> tuple[list[bytes], Rows]:
    """The keys and rows whose features are finite numbers."""
    good = np.flatnonzero(np.isfinite(rows.features).all(axis=1)).tolist()
    if len(good) == len(keys):
        return keys, rows
    return [keys[at] for at in good], Rows([rows.tokens[at] for at in good], rows.features[good], rows.count[good])


def _batches(
    inputs: Inputs,
    wanted: np.ndarray,
    encoder: Encoder,
    batch_size: int,
    longest: int,
    refused: dict[bytes, InvalidInput],
) -> Iterator[tuple[list[bytes], list[object]]]:
    """Prepared batches of equal size, a window's inputs sorted by size; each distinct input once."""
    window: list[tuple[bytes, object]] = []
    for raws in inputs.read(wanted, max(batch_size, min(encoder.window, 1024))):
        items = encoder.prepare([raw for _, raw in raws])
        for (key, _), item in zip(raws, items, strict=True):
            if isinstance(item, InvalidInput):
                refused[key] = item
            else:
                window.append((key, item))
        if len(window) >= encoder.window:
            yield from in_batches(window, encoder, batch_size, longest)
            window = []
    yield from in_batches(window, encoder, batch_size, longest)


def in_batches(
    window: list[tuple[bytes, object]], encoder: Encoder, batch_size: int, longest: int = 0
) -> Iterator[tuple[list[bytes], list[object]]]:
    """(keys, prepared inputs) in batches of equal size, the largest first; `longest`: see `encode_modality`."""
    sizes = [encoder.size(item) for _, item in window]
    order = sorted(range(len(window)), key=sizes.__getitem__, reverse=True)
    while order:
        most = batch_size * max(1, longest // max(1, sizes[order[0]]))
        same = [at for at in order[:most] if sizes[at] == sizes[order[0]]]
        yield [window[at][0] for at in same], [window[at][1] for at in same]
        order = order[len(same) :]


def _ahead(batches: Iterator, counts: Counts) -> Iterator:
    """The same batches, read and prepared by another thread while the encoder is at work."""

    def pull() -> list:
        started = time.perf_counter()
        taken = [batch for _, batch in zip(range(AHEAD), batches, strict=False)]
        counts.seconds["read"] += time.perf_counter() - started
        return taken

    with ThreadPoolExecutor(1, thread_name_prefix="reader") as pool:
        waiting = pool.submit(pull)
        while taken := waiting.result():
            waiting = pool.submit(pull)
            yield from taken
