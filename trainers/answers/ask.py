"""Questions to a trained run, by names: `run.ask("Red Hot Chili Peppers", "band member")`."""

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from pipeline.errors import UserError
from pipeline.graph.filter_index import FilterIndex
from pipeline.graph.vocabulary import SPLITS
from trainers.answers.calibration import Calibration, log_shares, read_calibration
from trainers.answers.names import Names, read_entities, read_relations
from trainers.answers.unseen import NewEntity, extended
from trainers.training import data
from trainers.training.runs import Run
from trainers.training.train import check_inputs

Entity = str | NewEntity
# What a fact of each split is called beside an answer.
FLAGS = {"train": "known_in_train", "dev": "known_in_dev", "test": "right_in_test"}


@dataclass(frozen=True)
class World:
    """What a run's ids stand for, and which facts are known."""

    entities: Names
    relations: Names
    facts: dict[str, FilterIndex]  # by split


def ask(
    run: Run,
    head: Entity | Sequence[Entity] | None = None,
    relation: str | Sequence[str] | None = None,
    *,
    tail: Entity | Sequence[Entity] | None = None,
    k: int = 10,
    new: Sequence[NewEntity] = (),
    graph: str | Path | None = None,
) -> pd.DataFrame:
    """The k best answers to (head, relation, ?) or, if `tail` is given in place of `head`, to (?, relation, tail).

    Entities and relations are named by key, label or alias (see `Names.find`). A list of names asks so many questions,
    and a single name beside a list holds for all of them; the answers then have a first column `query`, the place in
    the list. `graph` is the folder of the graph's tables; by default the one that the run was trained on.

    In place of a name a `NewEntity` may stand, which the run was not trained with; `new` are such that may be answers.
    With either, no answer has a probability: those were not calibrated for unseen entities.

    Columns: rank (from 1, over all entities, known answers too), key, label, description, score, probability (only of
    a run that `python -m stages.complete` has calibrated; NaN of known answers), known_in_train, known_in_dev,
    right_in_test.

    Raises UserError if a name is unknown or means several, if not exactly one of head and tail is given, if the
    graph's tables are missing or others than those the run was trained on, or if a new entity cannot be taken in (see
    trainers/answers/unseen.py).
    """
    if (head is None) == (tail is None):
        raise UserError("A question gives a relation and either the head or the tail, and asks for the other one.")
    if relation is None:
        raise UserError("A question names a relation; give one beside the head or the tail.")
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise UserError(f"k is how many answers are wanted, a whole number of at least 1, and not {k!r}.")
    world = world_of(run, graph)
    side, known = ("tail", head) if head is not None else ("head", tail)
    several = _is_list(known) or _is_list(relation)
    names, relations = _paired(known, relation)
    unseen = list(dict.fromkeys([*(name for name in names if isinstance(name, NewEntity)), *new]))
    place = {one: len(world.entities.key) + at for at, one in enumerate(unseen)}
    ids = [place[name] if isinstance(name, NewEntity) else world.entities.find(name) for name in names]
    asked = [world.relations.find(name) for name in relations]
    calibration = read_calibration(run.path, run.about).get(side) if not unseen else None
    if unseen:
        run, world = extended(run, world, Path(graph) if graph is not None else graph_of(run), unseen)
    silent = [place[one] for one in unseen if one not in new]  # asked about, but no answers
    parts = [_answers(run, world, calibration, *query, side, k, silent) for query in zip(ids, asked, strict=True)]
    if not several:
        return parts[0]
    return pd.concat([part.assign(query=i) for i, part in enumerate(parts)], ignore_index=True)[["query", *parts[0]]]


def world_of(run: Run, graph: str | Path | None = None) -> World:
    """The names and facts of the graph that `run` was trained on, read once for many questions.

    Raises UserError if the tables are missing, or others than those of the run.
    """
    folder = Path(graph) if graph is not None else graph_of(run)
    if not (folder / "triples.parquet").exists():
        raise UserError(f"{folder} holds no tables of the graph {run.about['graph']}; name their folder: graph=….")
    of_graph = {name: sha for name, sha in run.about.get("inputs", {}).items() if name.endswith("triples.parquet")}
    check_inputs(run.path, {"inputs": of_graph}, folder)
    of = [folder / f"{name}.parquet" for name in ("triples", "entities", "relations")] + [
        folder.parent / "text.parquet"
    ]
    stamps = [path.stat().st_mtime_ns if path.exists() else 0 for path in of]
    return _world(folder.resolve(), tuple(stamps))


def graph_of(run: Run) -> Path:
    """The folder of the graph's tables, by run.json, seen from the project that holds runs/<graph>/<model>."""
    named = [Path(name) for name in run.about.get("inputs", {}) if name.endswith("triples.parquet")]
    relative = named[0].parent if named else Path("data", run.about["graph"], "graph")
    return Path(run.path, "../../..").resolve() / relative


@functools.lru_cache(maxsize=4)
def _world(folder: Path, stamps: tuple[int, ...]) -> World:  # the stamps: tables made anew are read anew
    loaded = data.load(folder, folder.parent / "encoded", name=folder.parent.name)
    facts = {
        split: FilterIndex.build(getattr(loaded, split), loaded.entities, loaded.relations) for split in SPLITS
    }  # fmt: skip
    return World(read_entities(folder), read_relations(folder), facts)


def _is_list(given: object) -> bool:
    return isinstance(given, Iterable) and not isinstance(given, str)


def _listed(given: Any) -> list[Any]:
    return list(given) if _is_list(given) else [given]  # no name, no list: `find` says so


def _paired(known: object, relation: object) -> tuple[list[Any], list[Any]]:
    """A name and a relation for each question."""
    names, relations = _listed(known), _listed(relation)
    if not _is_list(known):
        names *= len(relations)
    elif not _is_list(relation):
        relations *= len(names)
    if len(names) != len(relations) or not names:
        raise UserError(
            f"Each question has one entity and one relation; {len(names)} entities and {len(relations)} relations "
            "were given."
        )
    return names, relations


def _answers(
    run: Run, world: World, calibration: Calibration | None, known: int, relation: int, side: str, k: int,
    silent: Sequence[int] = (),
) -> pd.DataFrame:  # fmt: skip
    query = torch.tensor([known]), torch.tensor([relation])
    scores = run.score(*query, side).cpu()
    order = torch.sort(scores[0].nan_to_num(nan=-torch.inf), descending=True, stable=True).indices
    order = order[~torch.isin(order, torch.tensor(silent, dtype=order.dtype))][:k]
    ids = order.tolist()
    facts = {split: one.answers(*query, side)[1] for split, one in world.facts.items()}
    columns: dict[str, object] = {
        "rank": range(1, len(ids) + 1),
        **{name: [getattr(world.entities, name)[i] for i in ids] for name in ("key", "label", "description")},
        "score": scores[0, order].numpy(),
    }
    if calibration is not None:
        # What is known is no rival for the answer that the graph lacks, and needs no probability.
        rivals = torch.ones(scores.shape, dtype=torch.bool)
        rivals[0, torch.cat([facts["train"], facts["dev"]])] = False
        probability = calibration.probability(log_shares(scores, rivals, calibration.temperature)[0, order])
        columns["probability"] = np.where(rivals[0, order].numpy(), probability, np.nan)
    for split, flag in FLAGS.items():
        columns[flag] = torch.isin(order, facts[split]).numpy()
    return pd.DataFrame(columns)
