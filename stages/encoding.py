"""What the two encode stages share: their arguments, and the way from params.yaml to tables."""

import argparse
import dataclasses
import json
import logging
import time
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

from pipeline import tables
from pipeline.download.sources import RetryPolicy
from pipeline.encoding import encoders
from pipeline.encoding import ray as encode_ray
from pipeline.encoding.encoders import learned
from pipeline.encoding.encoders.weights import fetched
from pipeline.encoding.inputs import Inputs, Pictures, Texts
from pipeline.encoding.publish import publish_nothing
from pipeline.encoding.run import Counts, encode_modality, pick_streams
from pipeline.encoding.store import Stores, statuses
from pipeline.errors import UserError
from stages import released
from stages.cli import arguments
from stages.params import Params, load_params

log = logging.getLogger(__name__)

SCRATCH = Path("data/.work/encode")
WEIGHTS = Path("data/.weights")


@dataclasses.dataclass(frozen=True)
class Choice:
    """The keys of params.yaml that decide what the rows are."""

    encoder: str
    block: dict
    precision: str


def run(kind: str, modality: str, choose: Callable[[Params], Choice]) -> None:
    """Encode one graph's texts or pictures as the arguments and params.yaml say.

    `kind` is what encoders call it ("text", "image"), `modality` the key of params.yaml ("text", "images").
    """
    options = _parser(modality).parse_args()
    params = load_params()
    if options.status or options.verify:
        _inspect(params, kind, options.verify)
        return
    shard = _shard(options.shard)
    folder = Path("data") / options.graph
    if released.asked_for(params, options.graph, kind):
        released.import_released(params, options.graph, kind, folder / f"encode_{modality}.json")
        return
    choice = choose(params)
    started = time.perf_counter()
    counts = into(params, options.graph, kind, modality, choice, folder / "encoded" / kind, shard)
    if shard is None:
        seconds = round(time.perf_counter() - started, 1)
        tables.write_json(
            folder / f"encode_{modality}.json",
            {**dataclasses.asdict(counts), "encoder": choice.encoder, "total_seconds": seconds},
        )


def into(
    params: Params,
    graph: str,
    kind: str,
    modality: str,
    choice: Choice,
    out: Path,
    shard: tuple[int, int] | None = None,
) -> Counts:
    """Encode one graph's texts or pictures with the chosen encoder into the folder `out`, through the store."""
    folder = Path("data") / graph
    inputs = Texts(folder / "text.parquet") if kind == "text" else Pictures(folder / "images")
    if not len(inputs.keys):
        what = "a text" if kind == "text" else "a picture"
        log.warning("%s: no entity has %s to encode; the tables are empty", graph, what)
        if shard is None:
            publish_nothing(out, {"stage": f"encode_{modality}", "encoder": choice.encoder})
        return Counts(missing=inputs.missing)
    encoder, recipe, settings = _encoder(params, choice, kind, inputs)
    stores = Stores(params.store, SCRATCH / f"{graph}-{kind}", kind, encoder.fingerprint, params.encode.store_failure)
    if params.encode.executor == "ray":
        _on_ray(params, inputs, recipe)
    provenance = {"stage": f"encode_{modality}", "encoder": choice.encoder, "settings": settings, **encoder.fingerprint}
    with tqdm(unit=" rows", desc=f"encode {modality} {graph}", disable=None) as bar:
        return encode_modality(
            inputs,
            encoder,
            stores,
            out,
            provenance=provenance,
            batch_size=params.encode.batch_size,
            streams=pick_streams(encoders.pick_device(params.encode.device)),
            shard=shard,
            progress=lambda done, total: _move(bar, done, total),
        )


def _parser(modality: str) -> argparse.ArgumentParser:
    parser = arguments(f"Encode a graph's {modality} through the feature store.", "graph")
    parser.add_argument("--shard", metavar="i/n", help="encode the i-th of n shards into the store, publish nothing")
    parser.add_argument("--status", action="store_true", help="say what the store holds, encode nothing")
    parser.add_argument("--verify", action="store_true", help="read all of the store and quarantine corrupt parts")
    return parser


def _shard(option: str | None) -> tuple[int, int] | None:
    if option is None:
        return None
    index, _, shards = option.partition("/")
    if not (index.isdecimal() and shards.isdecimal()) or not int(index) < int(shards):
        raise UserError(f"--shard {option} is not i/n with i from 0 to n - 1, such as 0/4 … 3/4.")
    return int(index), int(shards)


def _encoder(
    params: Params, choice: Choice, kind: str, inputs: Inputs
) -> tuple[encoders.Encoder, encode_ray.Recipe, dict]:
    """The encoder, how others may build the same one, and its settings as the tables' metadata tell them."""
    retry = RetryPolicy(timeout=params.sources.timeout, retries=params.sources.retries)
    block = fetched(choice.block, WEIGHTS, mirror=params.sources.mirror, retry=retry)
    family, settings = encoders.settings(choice.encoder, block, kind)
    device = encoders.pick_device(params.encode.device)
    precision = encoders.pick_precision(choice.precision, device)
    address = params.store or str(SCRATCH / "learned")
    extra = learned.learned(family, settings, inputs, address, params.encode.store_failure)
    encoder = family.load(settings, device=device, precision=precision, **extra)
    name = str(precision).removeprefix("torch.")
    recipe = encode_ray.Recipe(choice.encoder, block, kind, name, encoder.fingerprint, extra)
    return encoder, recipe, dataclasses.asdict(settings)


def _on_ray(params: Params, inputs: Inputs, recipe: encode_ray.Recipe) -> None:
    """Let a cluster fill the store; what it could not do, this process does afterwards."""
    if params.store is None:
        raise UserError("`encode.executor: ray` needs a store that all machines see: set the key `store`.")
    encode_ray.fill(
        inputs, recipe, params.store, address=params.encode.ray_address, batch_size=params.encode.batch_size
    )


def _move(bar: tqdm, done: int, total: int) -> None:
    bar.total = total
    bar.update(done - bar.n)


def _inspect(params: Params, kind: str, verify: bool) -> None:
    """Print one line an encoder that the store knows, as JSON."""
    if params.store is None:
        raise UserError("There is no store: the key `store` in params.yaml is null.")
    damaged = 0
    for fingerprint, store in statuses(params.store, kind):
        line: dict[str, object] = {"encoder": fingerprint, **store.status()}
        if verify:
            line["sound_rows"], names = store.verify()
            line["quarantined_now"] = len(names)
            damaged += len(names)
        print(json.dumps(line, ensure_ascii=False))
    if damaged:
        raise UserError(
            f"{damaged} corrupt parts of {params.store} were moved to its folder quarantine; the next run makes their "
            "rows again."
        )
