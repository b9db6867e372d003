"""A graph encoded with other encoders than params.yaml chooses, for studies: data/.work/studies/encoded/<graph>/.

Each modality and encoder has one folder, made through the feature store, so that what any graph or stage has encoded
before is not encoded again. What made a folder is written beside its tables; one that was made of the same is kept.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from pipeline import tables
from pipeline.errors import UserError
from pipeline.modalities import MODALITIES, Modality
from stages import encode
from stages.params import Params
from stages.studies.runs import WORK
from trainers.training.memmap import digest


def encoded(params: Params, graph: str, chosen: Mapping[str, str]) -> Path:
    """A folder like data/<graph>/encoded, of the encoders that are `chosen`: modality -> encoder.

    Raises UserError, before anything is encoded, if the graph holds nothing of one of the modalities.
    """
    for name in chosen:
        if not MODALITIES[name].files(Path("data") / graph):
            raise UserError(
                f"data/{graph} holds nothing that a {name} encoder could read; build the graph (dvc repro)."
            )
    base = WORK / "encoded" / graph
    together = base / "+".join(chosen.get(name, "none") for name in MODALITIES)
    together.mkdir(parents=True, exist_ok=True)
    for name, encoder in chosen.items():
        made = base / name / encoder
        _encode(params, graph, MODALITIES[name], encoder, made)
        link = together / name
        if not link.is_symlink():
            link.symlink_to(os.path.relpath(made, together), target_is_directory=True)
    return together


def _encode(params: Params, graph: str, modality: Modality, encoder: str, out: Path) -> None:
    """Fill `out`, unless what lies there was made of the same inputs by the same encoder."""
    choice = encode.choose(params, encoder)
    inputs = [digest(path) for path in modality.files(Path("data") / graph)]
    mark = {"block": choice.block, "precision": choice.precision, "inputs": inputs}
    note = out / "made_of.json"
    if note.exists() and json.loads(note.read_text(encoding="utf-8")) == mark:
        return
    note.unlink(missing_ok=True)
    encode.encode_graph(params, graph, modality, choice, out)
    tables.write_json(note, mark)
