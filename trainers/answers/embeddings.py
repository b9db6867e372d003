"""What a trained run holds of its entities and relations, as arrays with keys: `run.embeddings()`."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.modalities import MODALITIES
from trainers.answers.ask import world_of
from trainers.training.runs import Run

STRUCTURE, JOINT = "structure", "joint"


@dataclass(frozen=True)
class Embeddings:
    """Arrays float32 by what they hold; row i belongs to key i.

    `entities`: each (E, D): "structure", "text", "image" as far as the model has a vector of each entity for them, and
    "joint", what it compares with answers, where that is another; of mosaic the
    tables of its scorers by their names. `relations`: each (R, D), or (2R, D) where the model
    learns a relation's inverse apart: row R + i then is that of relation i asked for heads.
    """

    entity_keys: list[str]
    entities: dict[str, np.ndarray]
    relation_keys: list[str]
    relations: dict[str, np.ndarray]


def embeddings(run: Run, *, graph: str | Path | None = None) -> Embeddings:
    """The embeddings of a run, with the keys of the graph's tables (by default those that it was trained on).

    Raises UserError if these tables are missing, or others than those of the run.
    """
    world = world_of(run, graph)
    count = len(world.entities.key)
    relations = dict(_relations(run.model, len(world.relations.key)))
    return Embeddings(world.entities.key, entity_vectors(run, count), world.relations.key, relations)


def entity_vectors(run: Run, count: int) -> dict[str, np.ndarray]:
    """The arrays (count, D) of entities, by what they hold."""
    with torch.inference_mode():
        return {name: _array(one) for name, one in _entities(run) if one.dim() == 2 and len(one) == count}


def compared(run: Run, count: int) -> np.ndarray | None:
    """(count, D) the vectors by which the run tells entities apart: the joint ones, else those of the structure, else
    the first there are; None if it has none. What else it has of its entities is not computed for that.
    """
    for name, one in _prepared(run):
        if name == JOINT and one.dim() == 2 and len(one) == count:
            return one.detach().float().cpu().numpy()
    found = entity_vectors(run, count)
    return found.get(STRUCTURE, next(iter(found.values()), None))


def _entities(run: Run) -> Iterator[tuple[str, Tensor]]:
    table = getattr(run.model, "entity", None)
    if isinstance(table, Tensor):
        yield STRUCTURE, table
    for path, part in run.model.named_modules():
        name = path.rpartition(".")[2]
        if name in MODALITIES and hasattr(part, "replace_modality") and hasattr(part, "table"):
            yield name, part(None)
    for name, part in _scorers(run.model):
        if isinstance(part.entity, Tensor):
            yield name, part.entity
    yield from _prepared(run)


def _prepared(run: Run) -> Iterator[tuple[str, Tensor]]:
    """What a scorer holds of all entities already."""
    prepared = getattr(run.score, "prepared", None)
    if isinstance(prepared, Tensor) and prepared.dim() == 2:
        yield JOINT, prepared
    elif isinstance(prepared, tuple) and prepared and isinstance(prepared[0], Tensor):
        yield JOINT, prepared[0]
    elif isinstance(seen := getattr(prepared, "seen", None), Mapping):
        yield from seen.items()


def _relations(model: nn.Module, count: int) -> Iterator[tuple[str, np.ndarray]]:
    table = getattr(model, "relation", None)
    named = list(table.items()) if isinstance(table, nn.ParameterDict) else [(STRUCTURE, table)]
    named += [(name, part.relation) for name, part in _scorers(model)]
    for name, one in named:
        if isinstance(one, Tensor) and len(one) in (count, 2 * count):
            yield name, _array(one)


def _scorers(model: nn.Module) -> list[tuple[str, Any]]:
    """The scorers of mosaic, which have their own tables of entities and of relations each."""
    parts = getattr(model, "scorers", {})
    return [(name, part) for name, part in parts.items() if hasattr(part, "entity") and hasattr(part, "relation")]


def _array(one: Tensor) -> np.ndarray:
    return one.detach().float().cpu().numpy().copy()
