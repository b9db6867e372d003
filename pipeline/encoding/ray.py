"""The same work on a Ray cluster: Ray Data reads the tables, actors encode, tasks write parts into the store.

Each actor holds one encoder, and one GPU where the cluster has any. What they write are the store's own parts, so that
`encoding.run` finds everything done afterwards and publishes the same tables as a local run. The store must be
an address that all machines of the cluster see. Ray is an extra: `pip install 'tessera-mmkgc[ray]'`.
"""

import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

import pipeline
from pipeline import tables
from pipeline.encoding import encoders
from pipeline.encoding.encoders import InvalidInput
from pipeline.encoding.inputs import Inputs
from pipeline.encoding.run import PART_ROWS, finite, in_batches, rows_of
from pipeline.encoding.store import Store, key_of, ragged_column
from pipeline.errors import UserError


@dataclass(frozen=True)
class Recipe:
    """What an actor needs to build its encoder: names and plain values, and arrays it has learned (`extra`)."""

    name: str  # of its file in configs/encoders
    block: Mapping[str, object]
    kind: str  # "text" or "image"
    precision: str  # "float32" or "bfloat16"
    fingerprint: Mapping[str, object]  # that of the encoder that publishes; an actor's must be the same
    extra: Mapping[str, np.ndarray] = field(default_factory=dict)

    def build(self, device: str) -> encoders.Encoder:
        """The encoder. Raises UserError if this machine's code or weights make another one of it."""
        family, settings = encoders.settings(self.block, self.kind)
        chosen = encoders.pick_device(device)
        precision = encoders.pick_precision(self.precision, chosen)
        encoder = family.load(settings, device=chosen, precision=precision, **self.extra)
        if dict(encoder.fingerprint) != dict(self.fingerprint):
            raise UserError(
                f"A worker of the Ray cluster has another {self.name}: bring its code and weights up to date."
            )
        return encoder


class Worker:
    """One actor: rows of a batch in, rows of the store out."""

    def __init__(self, recipe: Recipe, device: str, batch_size: int, longest: int = 0):
        self._encoder = recipe.build(device)
        self._batch_size, self._longest = batch_size, longest

    def __call__(self, table: pa.Table) -> pa.Table:
        raws = table["raw"].to_pylist()
        keys = [key_of(raw) for raw in raws]
        items = self._encoder.prepare(raws)
        window = [pair for pair in zip(keys, items, strict=True) if not isinstance(pair[1], InvalidInput)]
        made: list[tuple[list[bytes], encoders.Rows]] = []
        for some, batch in in_batches(window, self._encoder, self._batch_size, self._longest):
            made.append(finite(some, rows_of(self._encoder, batch)))  # who publishes says of which there is none
        return _table(made)


def _table(made: list[tuple[list[bytes], encoders.Rows]]) -> pa.Table:
    """Rows of the store, whatever their number, under one schema."""
    lists = [tokens for _, rows in made for tokens in rows.tokens]
    features = [rows.features for _, rows in made]
    flat = pa.array(np.concatenate(features).reshape(-1) if features else np.zeros(0, dtype=np.float32))
    widths = [part.shape[1] for part in features for _ in part]
    offsets = pa.array(np.cumsum([0, *widths], dtype=np.int32))
    return pa.table(
        {
            "key": pa.array([key for keys, _ in made for key in keys], pa.binary()),
            "token_ids": ragged_column(lists),
            "embedding": pa.ListArray.from_arrays(offsets, flat),
            "count": pa.array([int(n) for _, rows in made for n in rows.count], pa.int32()),
        }
    )


def _write(table: pa.Table, address: str, kind: str, fingerprint: Mapping[str, object]) -> pa.Table:
    """Add a batch of rows to the store as one part."""
    if table.num_rows:
        lists = tables.ragged(table["token_ids"])
        tokens = np.split(lists.values, lists.offsets[1:-1])
        features = tables.matrix(table["embedding"])
        count = table["count"].to_numpy()
        Store(address, kind, fingerprint).write(
            table["key"].to_pylist(), tokens, features.reshape(len(count), -1), count
        )
    return pa.table({"rows": [table.num_rows]})


def _chosen(table: pa.Table, column: str, places: np.ndarray) -> pa.Table:
    """The rows at the wanted places, their input under the name `raw`."""
    ix = table["image_ix"].to_numpy() if "image_ix" in table.column_names else 0
    mask = np.isin(_place(table["entity_id"].to_numpy(), ix), places)
    return pa.table({"raw": table[column].filter(pa.array(mask))})


def _place(entity: np.ndarray, image_ix: np.ndarray | int) -> np.ndarray:
    return (entity.astype(np.int64) << 32) | image_ix


def fill(
    inputs: Inputs, recipe: Recipe, store: str, *, address: str = "auto", batch_size: int = 64, longest: int = 0
) -> int:
    """Encode on the cluster at `address` what the store lacks; returns the number of rows written.

    `longest`: see `encoding.run.encode_modality`; it counts where the workers have GPUs.

    Raises UserError if Ray is not installed, no cluster answers, or the encoder fails.
    """
    ray = _ray()
    store = store if "://" in store else str(Path(store).resolve())
    unknown = np.flatnonzero(~Store(store, recipe.kind, recipe.fingerprint).find(inputs.keys).known)
    if not len(unknown):
        return 0
    _, first = np.unique(inputs.keys[unknown], return_index=True)  # each distinct input once
    rows = unknown[first]
    places = _place(inputs.entity[rows], inputs.image_ix[rows].astype(np.int64))
    started = _connect(ray, address)
    try:
        return _flow(ray, inputs, recipe, store, places, (batch_size, longest))
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, UserError):
            raise UserError(str(cause)) from error
        raise UserError(f"The Ray cluster at {address} failed: {str(error).strip().splitlines()[-1]}") from error
    finally:
        if started:
            ray.shutdown()


def _flow(ray, inputs: Inputs, recipe: Recipe, store: str, places: np.ndarray, batch: tuple[int, int]) -> int:
    """`fill` once the cluster answers; `batch`: its size, `longest`."""
    batch_size, longest = batch
    gpus = int(ray.cluster_resources().get("GPU", 0))
    workers = gpus or max(1, int(ray.cluster_resources().get("CPU", 1)) // 2)
    rows = ray.data.read_parquet([str(path.resolve()) for path in inputs.files]).select_columns(list(inputs.columns))
    chosen = rows.map_batches(
        _chosen, fn_kwargs={"column": inputs.columns[-1], "places": places}, batch_format="pyarrow", batch_size=1024
    )
    encoded = chosen.map_batches(
        Worker,
        fn_constructor_args=(recipe, "cuda", batch_size, longest) if gpus else (recipe, "cpu", batch_size),
        batch_format="pyarrow",
        batch_size=max(batch_size, min(inputs.window, 1024)),
        concurrency=(1, workers),
        **({"num_gpus": 1} if gpus else {"num_cpus": 1}),
    )
    parts = encoded.map_batches(
        _write,
        fn_kwargs={"address": store, "kind": recipe.kind, "fingerprint": dict(recipe.fingerprint)},
        batch_format="pyarrow",
        batch_size=PART_ROWS,
    )
    return int(parts.sum("rows") or 0)


def _connect(ray, address: str) -> bool:
    """Join the cluster unless this process is already in one; returns whether it was joined here."""
    if ray.is_initialized():
        return False
    code = str(Path(pipeline.__file__).parent)
    try:
        _knock(address)
        ray.init(address=address, runtime_env={"py_modules": [code]}, log_to_driver=False)
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"No Ray cluster answers at {address!r} ({str(error).splitlines()[0]}); start one (`ray start --head`), or "
            "set `encode.executor: local`."
        ) from error
    return True


def _knock(address: str) -> None:
    """Ask whether anybody listens at `[ray://]host:port`, since Ray itself asks for minutes. Raises OSError if not."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=10).close()


def _ray():
    try:
        import ray
        import ray.data
        import ray.exceptions
    except ImportError as error:
        raise UserError(
            "`encode.executor: ray` needs Ray, which is not installed: pip install 'tessera-mmkgc[ray]', or set it to "
            "local."
        ) from error
    return ray
