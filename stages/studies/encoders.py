"""A graph encoded with other encoders than params.yaml has chosen, for studies: data/.work/studies/encoded/<graph>/.

Each modality and encoder has one folder, made through the feature store, so that what any graph or stage has encoded
before is not encoded again. What made a folder is written beside its tables; one that was made of the same is kept.
"""

import json
import os
from pathlib import Path

from pipeline import tables
from pipeline.errors import UserError
from stages import encoding
from stages.params import Params
from stages.studies.runs import WORK
from trainers.training.memmap import digest

KINDS = {"text": "text", "image": "images"}  # what encoders call it: the key of params.yaml


def encoded(params: Params, graph: str, text: str, image: str) -> Path:
    """A folder like data/<graph>/encoded, of these encoders; "none" leaves a modality out.

    Raises UserError, before anything is encoded, if the graph has no texts or no pictures.
    """
    chosen = {kind: name for kind, name in {"text": text, "image": image}.items() if name != "none"}
    for kind in chosen:
        if not _inputs(graph, kind):
            raise UserError(
                f"data/{graph} holds nothing that a {kind} encoder could read; build the graph (dvc repro)."
            )
    base = WORK / "encoded" / graph
    both = base / f"{text}+{image}"
    both.mkdir(parents=True, exist_ok=True)
    for kind, name in chosen.items():
        made = base / kind / name
        _encode(params, graph, kind, name, made)
        link = both / kind
        if not link.is_symlink():
            link.symlink_to(os.path.relpath(made, both), target_is_directory=True)
    return both


def _encode(params: Params, graph: str, kind: str, name: str, out: Path) -> None:
    """Fill `out`, unless what lies there was made of the same inputs by the same encoder."""
    choice = encoding.Choice(name, params.encoders[name], params.encode.precision)
    inputs = [digest(path) for path in _inputs(graph, kind)]
    mark = {"block": choice.block, "precision": choice.precision, "inputs": inputs}
    note = out / "made_of.json"
    if note.exists() and json.loads(note.read_text(encoding="utf-8")) == mark:
        return
    note.unlink(missing_ok=True)
    encoding.into(params, graph, kind, KINDS[kind], choice, out)
    tables.write_json(note, mark)


def _inputs(graph: str, kind: str) -> list[Path]:
    """The tables that are encoded, as far as they are there."""
    return sorted((Path("data") / graph).glob("text.parquet" if kind == "text" else "images/part-*.parquet"))
