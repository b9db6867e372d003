"""Entities that a run was not trained with, asked about by what the model reads of them: a text, a picture.

    band = NewEntity("The Unheard", features={"text": vector})
    run.ask(band, "genre")
    run.ask(relation="genre", tail="Rock music", new=[band])

The vectors are those of the encoders that the run was trained with; `stages/unseen.py` makes them of words and
pictures. What stands in for the structure, and how well all this does, is said in docs/asking.md.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import UserError
from pipeline.modalities import used
from trainers.about import MODELS, about_model
from trainers.parts.unseen import StandIn, takes, with_entities
from trainers.training import data as reading
from trainers.training.data import Data, Features, Tokens
from trainers.training.runs import Run
from trainers.training.train import check_inputs

if TYPE_CHECKING:
    from trainers.answers.ask import World

STAND_IN: StandIn = "nearest"  # as `stages.studies.unseen` chose on dev for every model


@dataclass(frozen=True, eq=False)
class NewEntity:
    """`features`: modality ("text", "image") -> vector (D,), by the encoder that the run was trained with; `tokens`:
    modality -> token ids, of which those that the run's codebook lacks are left out.
    """

    name: str
    features: Mapping[str, np.ndarray] = field(default_factory=dict)
    tokens: Mapping[str, Sequence[int]] = field(default_factory=dict)
    description: str | None = None


def extended(run: Run, world: "World", graph: Path, new: Sequence[NewEntity]) -> tuple[Run, "World"]:
    """The run and its names with further entities, whose ids go on behind those of the graph in `graph`.

    Raises UserError if the model has no place for such, if one of them has nothing that the model reads, a vector of
    another width, or the key of an entity that is there, or if the tables are others than those of the run.
    """
    model = run.about["model"]
    if not takes(run.model):
        able = ", ".join(one for one in MODELS if about_model(one).reads and one != model)
        raise UserError(
            f"{model} knows of an entity what its training facts taught, and so nothing of a new one; ask a run that "
            f"reads texts or pictures ({able})."
        )
    for one in new:
        if one.name in world.entities.levels[0]:
            raise UserError(f"{one.name!r} is an entity of the graph; ask about it by its name alone.")
    check_inputs(run.path, run.about, graph)
    reads, modalities = about_model(model).reads, used(run.about["settings"]["modalities"])
    kinds: dict[str, Any] = {kind: modalities if kind in reads else () for kind in ("features", "tokens")}
    before = reading.load(graph, graph.parent / "encoded", name=run.about["graph"], **kinds)
    after = with_rows(before, new)
    grown = with_entities(run.model, before, after, reads, STAND_IN)
    names = world.entities
    names = replace(
        names,
        key=names.key + [one.name for one in new],
        label=names.label + [one.name for one in new],
        description=names.description + [one.description for one in new],
    )
    return Run(run.path, grown, run.about, grown.scorer()), replace(world, entities=names)


def with_rows(data: Data, new: Sequence[NewEntity]) -> Data:
    """The data with a further entity for each of `new`, and the rows that they have.

    Raises UserError if one has none at all, or a vector that does not fit.
    """
    for one in new:
        if not any(set(getattr(data, kind)) & set(getattr(one, kind)) for kind in ("features", "tokens")):
            wanted = " or ".join(f"{kind} of {' or '.join(getattr(data, kind))}"
                                 for kind in ("features", "tokens") if getattr(data, kind))  # fmt: skip
            raise UserError(f"{one.name!r} has nothing that this run reads; give {wanted or 'another run'}.")
    features = {name: _more_features(one, name, new, data.entities) for name, one in data.features.items()}
    tokens = {name: _more_tokens(one, name, new, data.entities) for name, one in data.tokens.items()}
    return replace(data, entities=data.entities + len(new), features=features, tokens=tokens)


def _more_features(table: Features, name: str, new: Sequence[NewEntity], first: int) -> Features:
    rows: list[Tensor] = []
    own = [(at, one.features[name]) for at, one in enumerate(new) if name in one.features]
    for at, given in own:
        vector = torch.as_tensor(np.asarray(given, dtype=np.float32)).reshape(-1)
        if len(vector) != table.matrix.shape[1] or not torch.isfinite(vector).all():
            raise UserError(
                f"The {name} vector of {new[at].name!r} has {len(vector)} numbers; wanted are "
                f"{table.matrix.shape[1]}, all finite, as the encoder of this run makes them."
            )
        rows.append(vector)
    if not rows:
        return table
    entity = torch.tensor([first + at for at, _ in own])
    return Features(torch.cat([table.entity, entity]), torch.cat([table.matrix, torch.stack(rows)]))


def _more_tokens(table: Tokens, name: str, new: Sequence[NewEntity], first: int) -> Tokens:
    entity, offsets, values = [table.entity], [table.offsets], [table.values]
    for at, one in enumerate(new):
        ids = torch.as_tensor(list(one.tokens.get(name, ())), dtype=torch.int64)
        place = torch.searchsorted(table.token_id, ids).clamp(max=len(table.token_id) - 1)
        place = place[table.token_id[place] == ids]
        if len(place):
            entity.append(torch.tensor([first + at]))
            offsets.append(offsets[-1][-1:] + len(place))
            values.append(place)
    return replace(table, entity=torch.cat(entity), offsets=torch.cat(offsets), values=torch.cat(values))
