"""Stages encode_text, encode_images: tokens, features and codebook of a modality, encoding what the store lacks."""

import argparse
import dataclasses
import json
import logging
import time
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline import tables
from pipeline.encoding import encoders, records
from pipeline.encoding import ray as encode_ray
from pipeline.encoding.encoders import learned
from pipeline.encoding.encoders.weights import fetched, recorded
from pipeline.encoding.inputs import Inputs, read_inputs
from pipeline.encoding.publish import publish_nothing
from pipeline.encoding.run import Counts, encode_modality, pick_streams
from pipeline.encoding.store import CODES, StoreFailure, Stores, statuses
from pipeline.errors import UserError, counted
from pipeline.modalities import MODALITIES, Modality
from pipeline.retry import RetryPolicy
from stages import released
from stages.cli import stage
from stages.params import Params, load_params
from stages.params.encoders import encoder_settings
from stages.progress import Bar

log = logging.getLogger(__name__)

SCRATCH = Path("data/.work/encode")
WEIGHTS = Path("data/.weights")


@dataclasses.dataclass(frozen=True)
class Choice:
    """The keys of params.yaml that decide what the rows are."""

    encoder: str
    block: dict
    precision: str


def choose(params: Params, encoder: str) -> Choice:
    """The named encoder with what params.yaml says of it."""
    return Choice(encoder, params.encoders[encoder], params.encode.precision)


def encoder_of(params: Params, modality: Modality) -> str:
    """The encoder that params.yaml chooses for a modality, else the modality's own default."""
    block = getattr(params, modality.key, None)
    return modality.encoder if block is None else block.encoder


@stage
def main() -> None:
    options = _parser().parse_args()
    modality = MODALITIES[options.modality]
    params = load_params()
    if options.status or options.verify:
        _inspect(params, modality, options.verify)
        return
    if options.graph is None:
        raise UserError("Name the graph to encode: --graph <its name in params.yaml>.")
    shard = _shard(options.shard)
    folder = Path("data") / options.graph
    counts_path = folder / f"{modality.stage}.json"
    if released.asked_for(params, options.graph, modality):
        released.import_released(params, options.graph, modality, counts_path)
        return
    choice = choose(params, encoder_of(params, modality))
    started = time.perf_counter()
    counts = encode_graph(params, options.graph, modality, choice, folder / "encoded" / modality.name, shard)
    if shard is None:
        seconds = round(time.perf_counter() - started, 1)
        tables.write_json(
            counts_path, {**dataclasses.asdict(counts), "encoder": choice.encoder, "total_seconds": seconds}
        )


def encode_graph(
    params: Params, graph: str, modality: Modality, choice: Choice, out: Path, shard: tuple[int, int] | None = None
) -> Counts:
    """Encode one modality of a graph with the chosen encoder into the folder `out`, through the store."""
    inputs = read_inputs(modality, Path("data") / graph)
    if not len(inputs.keys):
        log.warning("%s: no entity has a %s to encode; the tables are empty", graph, modality.label)
        if shard is None:
            publish_nothing(out, {"stage": modality.stage, "encoder": choice.encoder})
        return Counts(missing=inputs.missing)
    maker = Maker(params, choice, modality.name, inputs)
    encoder = maker.encoder()
    most_tokens = getattr(maker.settings, "max_tokens", 0)
    scratch = SCRATCH / f"{graph}-{modality.name}"
    stores = Stores(params.store, scratch, modality.name, encoder.fingerprint, params.encode.store_failure)
    if params.encode.executor == "ray" and not stores.hold(inputs.keys):
        _on_ray(params, inputs, maker.for_others(), most_tokens)
    provenance: dict[str, object] = {
        "stage": modality.stage,
        "encoder": choice.encoder,
        "settings": dataclasses.asdict(maker.settings),
        **encoder.fingerprint,
    }
    device = encoders.pick_device(params.encode.device)
    # A core computes short texts as fast in small batches, of which a kill costs less.
    longest = 0 if device.type == "cpu" else most_tokens
    with Bar(unit=" rows", desc=f"encode {modality.plural} of {graph}") as bar:
        return encode_modality(
            inputs,
            encoder,
            stores,
            out,
            provenance=provenance,
            batch_size=params.encode.batch_size,
            longest=longest,
            streams=pick_streams(device),
            shard=shard,
            progress=bar.to,
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--graph", help="the graph's name in params.yaml; not needed for --status and --verify")
    parser.add_argument("--modality", required=True, choices=MODALITIES, help="what of its entities is encoded")
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


class Maker:
    """How the encoder of a choice is made: from its weights, or from what the store remembers of it.

    Raises UserError, before anything is fetched, if the encoder's block cannot be used.
    """

    def __init__(self, params: Params, choice: Choice, kind: str, inputs: Inputs):
        self._params, self._choice, self._kind, self._inputs = params, choice, kind, inputs
        self._family, self.settings = encoder_settings(params, choice.encoder, kind)
        self._device = encoders.pick_device(params.encode.device)
        self._precision = encoders.pick_precision(choice.precision, self._device)

    def encoder(self) -> encoders.Encoder:
        """The encoder, whose weights are opened only when a row is missing if the store knows its fingerprint."""
        if self._params.store is None:
            return self._loaded
        try:
            fingerprint = self._remembered(self._params.store)
        except StoreFailure:
            if self._params.encode.store_failure != "continue":
                raise
            return self._loaded
        if fingerprint is not None:
            return records.Deferred(self._choice.encoder, fingerprint, lambda: self._loaded)
        encoder = self._loaded
        for sha256 in {self._choice.block.get("sha256"), self._sha256()}:
            if made_of := self._recipe(sha256, self._device.type):
                records.remember(self._params.store, made_of, encoder.fingerprint)
        return encoder

    def _remembered(self, store: str) -> dict | None:
        """The fingerprint that the store knows: of this device, or of another all of whose rows are there."""
        for device in dict.fromkeys((self._device.type, "cuda", "cpu")):
            made_of = self._recipe(self._sha256(), device)
            fingerprint = made_of and records.recall(store, made_of)
            if fingerprint is None:
                continue
            kept = Stores(store, SCRATCH / "none", self._kind, fingerprint)
            if device == self._device.type or kept.hold(self._inputs.keys):
                return fingerprint
        return None

    def for_others(self) -> encode_ray.Recipe:
        """How the workers of a cluster make the same encoder."""
        encoder = self._loaded
        name = str(self._precision).removeprefix("torch.")
        return encode_ray.Recipe(
            self._choice.encoder, self._with_weights, self._kind, name, encoder.fingerprint, self._learned
        )

    def _recipe(self, sha256: str | None, device: str) -> dict | None:
        return records.recipe(self._family, self._choice.block, str(self._precision), device, sha256)

    def _sha256(self) -> str | None:
        """What is demanded of weights that are an address: what the block says, or what the first fetch recorded."""
        block = self._choice.block
        return block.get("sha256") or recorded(block.get("weights"), WEIGHTS)

    @cached_property
    def _with_weights(self) -> dict:
        sources = self._params.sources
        retry = RetryPolicy(timeout=sources.timeout, retries=sources.retries)
        return fetched(self._choice.block, WEIGHTS, mirror=sources.mirror, retry=retry)

    @cached_property
    def _fetched(self) -> Any:
        """The encoder's settings, whose weights are a file here."""
        return encoders.settings(self._with_weights, self._kind)[1]

    @cached_property
    def _learned(self) -> dict:
        address = self._params.store or str(SCRATCH / "learned")
        return learned.learned(self._family, self._fetched, self._inputs, address, self._params.encode.store_failure)

    @cached_property
    def _loaded(self) -> encoders.Encoder:
        return self._family.load(self._fetched, device=self._device, precision=self._precision, **self._learned)


def _on_ray(params: Params, inputs: Inputs, recipe: encode_ray.Recipe, longest: int) -> None:
    """Let a cluster fill the store; what it could not do, this process does afterwards."""
    if params.store is None:
        raise UserError("`encode.executor: ray` needs a store that all machines see: set the key `store`.")
    encode_ray.fill(
        inputs, recipe, params.store, address=params.encode.ray_address, batch_size=params.encode.batch_size,
        longest=longest,
    )  # fmt: skip


def _inspect(params: Params, modality: Modality, verify: bool) -> None:
    """Print one line per encoder that the store knows, as JSON, and one for its codebook."""
    if params.store is None:
        raise UserError("There is no store: the key `store` in params.yaml is null.")
    damaged = 0
    kinds = {"inputs": modality.name, "codebook": modality.name + CODES}
    for of, fingerprint, store in ((of, *one) for of, kind in kinds.items() for one in statuses(params.store, kind)):
        line: dict[str, object] = {"encoder": fingerprint, "rows_of": of, **store.status()}
        if verify:
            line["sound_rows"], names = store.verify()
            line["quarantined_now"] = len(names)
            damaged += len(names)
        print(json.dumps(line, ensure_ascii=False))
    if damaged:
        raise UserError(
            f"{counted(damaged, 'corrupt part')} of {params.store} moved to its folder quarantine; the next run makes "
            "the rows again."
        )


if __name__ == "__main__":
    main()
