"""An entity that a run was not trained with, out of words and pictures: encoded as the graph's own are.

from stages.params import load_params
band = new_entity(load_params(), run, "The Unheard", "American rock band", ["stage.jpg"])
run.ask(band, "genre")
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.encoding.encoders import Rows
from pipeline.encoding.inputs import read_inputs
from pipeline.errors import UserError
from pipeline.modalities import MODALITIES
from pipeline.modalities.pictures import InvalidImage, clean
from pipeline.modalities.texts import Described, compose
from stages.encode import Maker, choose
from stages.params import Params
from trainers.answers.ask import graph_of
from trainers.answers.unseen import NewEntity
from trainers.training.runs import Run

# What of a table's provenance may differ: it changes no row, or its last digits.
_NO_MATTER = {"code_version", "precision"}


def new_entity(
    params: Params, run: Run, name: str, text: str | None = None, pictures: Sequence[str | Path] = (),
    graph: str | Path | None = None,
) -> NewEntity:  # fmt: skip
    """An entity for `run.ask`, by the encoders whose features and tokens `run` was trained with.

    `text` is its description; what is encoded is joined of it and the name as params.yaml says (`text.fields`).
    `pictures` are files. `graph` is the folder of the graph's tables, if they do not lie where the run says.

    Raises UserError if there is nothing to encode, a picture is none, or the run was trained on tables that no encoder
    of configs/encoders/ made so (features that came with the graph).
    """
    folder = (Path(graph) if graph is not None else graph_of(run)).parent
    described = Described(name, text, (), "asked")
    words = None if text is None else compose(described, params.text.fields, params.text.separator)
    raw: dict[str, list[Any]] = {"text": [words] if words else [], "image": [_picture(params, one) for one in pictures]}
    made = {kind: _encoded(params, run, folder, kind, given) for kind, given in raw.items()
            if given and kind in run.about["encoders"]}  # fmt: skip
    if not made:
        reads = " or a ".join(MODALITIES[kind].label for kind in run.about["encoders"])
        if not reads:
            raise UserError(f"{run.path} reads no texts or pictures, so it knows nothing of {name!r}; ask another run.")
        raise UserError(f"{run.path} reads a {reads} of an entity, and {name!r} has none.")
    return NewEntity(
        name,
        features={kind: rows.features.astype(np.float64).mean(0) for kind, rows in made.items()},
        tokens={kind: [int(one) for ids in rows.tokens for one in ids] for kind, rows in made.items()},
        description=text,
    )


def _picture(params: Params, path: str | Path) -> bytes:
    """A picture as the images stage stores it."""
    images = params.images
    try:
        data = Path(path).read_bytes()
        return clean(data, short_side=images.short_side, max_pixels=images.max_pixels, quality=images.quality).data
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); correct the path.") from error
    except InvalidImage as error:
        raise UserError(f"{path} is no picture that can be used: {error}.") from error


def _encoded(params: Params, run: Run, folder: Path, kind: str, given: list[Any]) -> Rows:
    """The rows of some inputs, by the encoder whose rows the run was trained on."""
    made_by = run.about["encoders"][kind]
    name, label = made_by.get("encoder"), MODALITIES[kind].plural
    if name not in params.encoders:
        raise UserError(
            f"{run.path} was trained on {label} that came encoded with the graph, so no encoder can make such here; "
            "give the vectors themselves (NewEntity, docs/asking.md)."
        )
    encoder = Maker(params, choose(params, name), kind, read_inputs(MODALITIES[kind], folder)).encoder()
    ours = {key: value for key, value in encoder.fingerprint.items() if key not in _NO_MATTER}
    if other := [key for key, value in ours.items() if made_by.get(key) != value]:
        raise UserError(
            f"{run.path} was trained on {label} of {name} with another {other[0]} than configs/encoders/{name}.yaml "
            "and the graph give now; train it again (dvc repro)."
        )
    items = encoder.prepare(given)
    for one in items:
        if isinstance(one, UserError):
            raise one
    rows = [encoder.encode([one]) for one in items]
    return Rows(
        [ids for one in rows for ids in one.tokens],
        np.concatenate([one.features for one in rows]),
        np.concatenate([one.count for one in rows]),
    )
