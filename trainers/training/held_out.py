"""Entities held out whole: a graph cut in two, so that a model is trained without any fact, text or picture of them.

For the study of unseen entities: their facts leave all splits, their rows leave all tables, and the entities that
are left are numbered anew, so that nothing of training (negatives, candidates, means) has ever touched them.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline import tables
from pipeline.errors import UserError
from pipeline.graph.vocabulary import SPLITS
from trainers.training.data import Data
from trainers.training.perturb import keep, rows_of


@dataclass(frozen=True)
class Cut:
    """`whole`: the graph with its entities numbered anew, those held out last; `seen`: what is left of it without them.

    `choose_on`, `measure_on` (n, 3): the facts, of any split, that join one entity held out with one that is not; each
    entity held out stands in one of both.
    """

    whole: Data
    seen: Data
    choose_on: Tensor
    measure_on: Tensor


def hold_out(data: Data, share: float, seed: int) -> Cut:
    """Hold out a share of the entities, drawn by the seed, of which one half is to choose on, one to measure on.

    Raises UserError if nothing is left to train on, or one of both halves has no fact.
    """
    count = max(2, round(data.entities * share))
    drawn = np.random.default_rng([seed, 5]).permutation(data.entities)
    seen = data.entities - count
    place = torch.empty(data.entities, dtype=torch.int64)
    place[torch.from_numpy(drawn)] = torch.arange(data.entities)
    whole = renumbered(data, place)
    facts = torch.cat([getattr(whole, split) for split in SPLITS])
    facts = facts[(facts[:, [0, 2]] >= seen).sum(1) == 1]
    of = facts[:, [0, 2]].amax(1)
    choose_on, measure_on = facts[of < seen + count // 2], facts[of >= seen + count // 2]
    left = _first(whole, seen)
    if not all(map(len, (left.train, left.dev, choose_on, measure_on))):
        raise UserError(
            f"Without {count:,} of {data.entities:,} entities too few facts of {data.name} are left to train, choose "
            "and measure on; hold out another share of them."
        )
    return Cut(whole, left, choose_on, measure_on)


def renumbered(data: Data, place: Tensor) -> Data:
    """The same graph, where entity e has the id place[e]."""

    def moved(one: Any) -> Any:
        entity = place[one.entity]
        return rows_of(replace(one, entity=entity), torch.argsort(entity, stable=True))

    splits = {split: getattr(data, split).clone() for split in SPLITS}
    for rows in splits.values():
        rows[:, [0, 2]] = place[rows[:, [0, 2]]]
    kinds: dict[str, Any] = {
        kind: {name: moved(one) for name, one in getattr(data, kind).items()} for kind in ("features", "tokens")
    }
    return replace(data, **splits, **kinds)


def _first(data: Data, entities: int) -> Data:
    """What is left of the graph with its first entities alone."""
    splits = {split: getattr(data, split) for split in SPLITS}
    splits = {split: rows[(rows[:, [0, 2]] < entities).all(1)] for split, rows in splits.items()}
    kinds: dict[str, Any] = {
        kind: {name: keep(one, one.entity < entities) for name, one in getattr(data, kind).items()}
        for kind in ("features", "tokens")
    }
    return replace(data, entities=entities, **splits, **kinds)


def write(data: Data, graph: Path, encoded: Path, provenance: Mapping[str, Mapping[str, object]]) -> None:
    """Write the tables that training reads; `provenance`: of "triples" and of each modality. Names are numbers."""
    names = [str(one) for one in range(data.entities)]
    columns: dict[str, Any] = {"entity_id": np.arange(data.entities, dtype=np.int32), "key": names, "label": names}
    tables.write(graph / "entities.parquet", "entities", columns, {})
    names = [str(one) for one in range(data.relations)]
    columns = {"relation_id": np.arange(data.relations, dtype=np.int32), "key": names, "label": names}
    tables.write(graph / "relations.parquet", "relations", columns | {"category": ["N-N"] * data.relations}, {})
    rows = torch.cat([getattr(data, split) for split in SPLITS]).int().numpy()
    columns = dict(zip(("head", "relation", "tail"), rows.T, strict=True))
    columns["split"] = np.repeat(SPLITS, [len(getattr(data, split)) for split in SPLITS])
    tables.write(graph / "triples.parquet", "triples", columns, provenance["triples"])
    for name, one in data.features.items():
        columns = {"entity_id": one.entity.int().numpy(), "embedding": one.matrix.numpy()}
        columns["count"] = np.ones(len(one.entity), dtype=np.int32)
        tables.write(encoded / name / "features.parquet", "features", columns, provenance[name])
    for name, own in data.tokens.items():
        lists = [own.values[a:b] for a, b in itertools.pairwise(own.offsets.tolist())]
        place = torch.arange(len(own.entity)) - torch.searchsorted(own.entity, own.entity)
        columns = {"entity_id": own.entity.int().numpy(), "image_ix": place.int().numpy(),
                   "token_ids": [own.token_id[one].int().numpy() for one in lists]}  # fmt: skip
        tables.write(encoded / name / "tokens.parquet", "tokens", columns, provenance[name])
        columns = {"token_id": own.token_id.int().numpy(), "embedding": own.codebook.numpy()}
        tables.write(encoded / name / "codebook.parquet", "codebook", columns, provenance[name])
