"""Making the captions that the store lacks; apart from the stage, which without a captioner needs no PyTorch."""

import dataclasses
import logging
from pathlib import Path
from typing import Any

import torch

from pipeline import tables
from pipeline.encoding import captioner, records
from pipeline.encoding.encoders import Encoder, InvalidInput, pick_device, pick_precision, pictures
from pipeline.encoding.inputs import Pictures
from pipeline.encoding.run import encode_modality
from pipeline.encoding.store import StoreFailure, Stores
from pipeline.errors import counted
from pipeline.versions import code_version
from stages.params import Params
from stages.progress import Bar

log = logging.getLogger(__name__)

SCRATCH = Path("data/.work/captions")
KIND = "caption"  # what the store calls these rows


def make(params: Params, graph: str, inputs: Pictures, out: Path) -> None:
    """Write the table of captions, making those that the store lacks."""
    encoder = captioner_of(params)
    stores = Stores(params.store, SCRATCH / graph, KIND, encoder.fingerprint, params.encode.store_failure)
    provenance = {"stage": "captions", **params.text.captions.model_dump(), **encoder.fingerprint}

    def write(refused: dict[bytes, InvalidInput]) -> tuple[int, int, int] | None:
        columns = captioner.table(inputs, stores, refused)
        if columns is None:
            return None
        tables.write(out, "captions", columns, provenance)
        return len(columns["status"]), len(set(columns["entity_id"])), 0

    with Bar(unit=" pictures", desc=f"put pictures of {graph} into words") as bar:
        counts = encode_modality(
            inputs, encoder, stores, None, provenance=provenance, batch_size=params.encode.batch_size,
            progress=bar.to, writer=write,
        )  # fmt: skip
    log.info("%s: captions of %s of %s, %s made now", graph, f"{counts.rows - counts.refused:,}",
             counted(counts.inputs, "picture"), f"{counts.encoded:,}")  # fmt: skip


def captioner_of(params: Params) -> Encoder:
    """The captioner of params.yaml; its weights are opened only when a caption is missing, if the store knows it."""
    block = params.text.captions
    settings = captioner.Settings(block.model or "", block.revision, block.prompt, block.longest)
    device = pick_device(params.encode.device)
    precision = pick_precision(params.encode.precision, device)

    def load() -> Any:
        return captioner.load(settings, device=device, precision=precision)

    if params.store is None:
        return load()
    # pictures: how they are decoded decides as much as the captioner's own code
    named = {**dataclasses.asdict(settings), "pictures": code_version(pictures)}
    made_of = records.recipe(captioner, named, str(precision), torch.device(device).type, None)
    if made_of is None:
        return load()
    try:
        fingerprint = records.recall(params.store, made_of)
    except StoreFailure:
        if params.encode.store_failure != "continue":
            raise
        return load()
    if fingerprint is not None:
        return records.Deferred("text.captions", fingerprint, load)
    encoder = load()
    records.remember(params.store, made_of, encoder.fingerprint)
    return encoder
