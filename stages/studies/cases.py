"""Case studies: what a trained model attends to, as Parquet and as pictures.

A model says in `ABOUT.explains` what there is to see: how much each modality counts for each entity (AdaMF), how much
each expert counts under each relation (MoMoK), how much [ENT] attends to each token (MyGO). The run is the one that
other studies take as their reference.
"""

import io
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from pipeline import tables
from pipeline.encoding.encoders.hub import locate
from pipeline.encoding.encoders.language import EMBEDDINGS
from pipeline.errors import UserError
from pipeline.modalities import MODALITIES, used
from pipeline.modalities.coverage import Coverage, coverage
from stages.studies import case_figures as figures
from stages.studies import figures as study_figures
from stages.studies.protocols import Subject
from stages.studies.runs import Bench, Point
from stages.studies.tables import about, csv_of
from trainers.about import about_model
from trainers.parts.token_selection import most_frequent
from trainers.training import runs
from trainers.training.data import Data, Tokens

log = logging.getLogger(__name__)

SHOWN = 12  # entities that are drawn one by one
PICTURES = 6
DRAWN_RELATIONS = 15


@dataclass(frozen=True)
class Case:
    """What one model shows: the Parquet table, the summary's rows, the pictures by name."""

    kind: str  # of the table, a key of pipeline.tables.SCHEMAS
    columns: Mapping[str, object]
    rows: Sequence[dict]
    figures: Mapping[str, Figure]


TITLES = {
    "modality_weights": (
        "Modality weights",
        "What share of an entity's joint vector each modality has: the weights of the fusion, for every entity, of one "
        "trained run. Groups are by what the entity has.",
    ),
    "gates": (
        "Gates of the experts",
        "How much each expert counts under each relation, without noise, as the mean over all entities, of one trained "
        "run. An inverse relation is asked for heads.",
    ),
    "attention": (
        "Attention on tokens",
        "How [ENT] attends to the places of an entity's sequence, mean over heads, of one trained run. On pictures, a "
        "tile is as bright as its token is attended to; a token that stands in several tiles lights all of them.",
    ),
}


def run(subject: Subject, bench: Bench, folder: Path) -> None:
    """Train the first seed's run if there is none, then write table, summary and pictures of what it attends to."""
    place, mark = bench.run(Point({}, subject.settings), None, bench.seeds[0])
    model = runs.load_run(place).model
    make = {"modality_weights": _weights, "gates": _gates, "attention": _attention}
    explains = about_model(subject.model).explains
    assert explains is not None, "only models that explain their answers have a case study"
    case = make[explains](model, subject.data(), Path("data") / subject.graph)
    title, protocol = TITLES[case.kind]
    tables.write(folder / f"{case.kind}.parquet", case.kind, case.columns, {"kind": case.kind, "fingerprint": mark})
    tables.write_text(folder / "table.csv", csv_of(case.rows))
    for name, figure in case.figures.items():
        study_figures.save(figure, folder / name)
    more = {"pictures": [f"{name}.png" for name in case.figures], "run": mark}
    tables.write_json(folder / "study.json", about(title, protocol, subject, bench) | more)


def labels_of(folder: Path, what: str) -> list[str]:
    """The labels of a graph's entities or relations by id, their keys where there is none."""
    column = {"entities": "entity_id", "relations": "relation_id"}[what]
    table = tables.read(folder / "graph" / f"{what}.parquet", what).sort_by(column)
    return [label or key for label, key in zip(table["label"].to_pylist(), table["key"].to_pylist(), strict=True)]


def coverage_of(data: Data) -> Coverage:
    """Which of the modalities that the model reads each entity has."""
    kinds = data.features or data.tokens
    names = used(kinds)
    return coverage({MODALITIES[one].label: np.isin(np.arange(data.entities), kinds[one].entity) for one in names})


def by_coverage(values: np.ndarray, parts: Sequence[str], covered: Coverage) -> list[dict]:
    """A row per group of entities: their number and, of each part of `values` (E, P), mean and deviation over them."""
    groups = {covered.names[one]: covered.of == one for one in covered.largest_first}
    rows = []
    for group, mask in {**groups, "all": np.ones(len(covered.of), dtype=bool)}.items():
        if not mask.any():
            continue
        row: dict[str, object] = {"coverage": group, "entities": int(mask.sum())}
        for place, part in enumerate(parts):
            row |= {part: float(values[mask, place].mean()), f"{part}_deviation": float(values[mask, place].std())}
        rows.append(row)
    return rows


def _weights(model: Any, data: Data, folder: Path) -> Case:
    parts = ("structure", "image", "text")
    weights = model.modality_weights().numpy()
    labels, rows = labels_of(folder, "entities"), by_coverage(weights, parts, coverage_of(data))
    # Of each modality the entities that lean on it most, the far ends of what there is to see.
    order = np.argsort(-weights, axis=0, kind="stable")[: SHOWN // len(parts)].T.ravel()
    extremes = [(labels[entity], weights[entity]) for entity in dict.fromkeys(order.tolist())]
    columns = {
        "entity_id": np.repeat(np.arange(len(weights), dtype=np.int32), len(parts)),
        "label": np.repeat(np.array(labels, dtype=object), len(parts)),
        "modality": np.tile(np.array(parts, dtype=object), len(weights)),
        "weight": weights.ravel(),
    }
    drawn = {
        "figure": figures.shares(rows, parts, "mean weight in the joint vector (%)", "Modality weights by coverage"),
        "distribution": figures.distribution(weights, parts, "weight in the joint vector (%)"),
        "entities": figures.stacked(
            extremes, parts, "weight in the joint vector (%)", "Entities that lean on one most"
        ),
    }
    return Case("modality_weights", columns, rows, drawn)


def _gates(model: Any, data: Data, folder: Path) -> Case:
    labels = labels_of(folder, "relations")
    relation = torch.arange(2 * data.relations)
    gates = {name: one.numpy() for name, one in model.gates(relation).items()}  # (2R, K)
    experts = next(iter(gates.values())).shape[1]
    rows = [
        {
            "modality": name,
            "expert": expert + 1,
            "mean_gate": float(one[:, expert].mean()),
            "deviation_over_relations": float(one[:, expert].std()),
            "lowest": float(one[:, expert].min()),
            "highest": float(one[:, expert].max()),
            "lowest_relation": _relation(labels, int(one[:, expert].argmin())),
            "highest_relation": _relation(labels, int(one[:, expert].argmax())),
        }
        for name, one in gates.items()
        for expert in range(experts)
    ]
    each = len(relation) * experts
    columns = {
        "relation_id": np.tile(np.repeat(np.arange(2 * data.relations) % data.relations, experts), len(gates)).astype(
            np.int32
        ),
        "label": np.tile(np.repeat(np.array(labels * 2, dtype=object), experts), len(gates)),
        "direction": np.tile(np.repeat(np.array(["tail", "head"], dtype=object), each // 2), len(gates)),
        "modality": np.repeat(np.array(list(gates), dtype=object), each),
        "expert": np.tile(np.arange(1, experts + 1, dtype=np.int32), len(gates) * len(relation)),
        "gate": np.concatenate([one.ravel() for one in gates.values()]),
    }
    common = torch.bincount(data.train[:, 1], minlength=data.relations).argsort(descending=True, stable=True)[
        :DRAWN_RELATIONS
    ]
    both = [row + offset for row in common.tolist() for offset in (0, data.relations)]
    names = [_relation(labels, row) for row in both]
    drawn = {"figure": figures.gates({name: one[both] for name, one in gates.items()}, names)}
    return Case("gates", columns, rows, drawn)


def _relation(labels: Sequence[str], row: int) -> str:
    """How a row of the relations' table is called: those behind the first R are asked for heads."""
    return labels[row] if row < len(labels) else f"{labels[row - len(labels)]} (inverse)"


def _attention(model: Any, data: Data, folder: Path) -> Case:
    attention = model.attention().numpy()  # (E, T)
    place, token, part = _places(model, data)
    parts = tuple(dict.fromkeys(part))
    summed = np.stack([attention[:, np.array(part) == name].sum(1) for name in parts], axis=1)
    labels, rows = labels_of(folder, "entities"), by_coverage(summed, parts, coverage_of(data))
    there = attention.ravel() > 0
    spelt = _spelt(folder / "encoded" / "text" / "tokens.parquet", token[:, place["text"]]) if "text" in place else {}
    piece = np.full(token.shape, None, dtype=object)
    if spelt:
        piece[:, place["text"]] = np.vectorize(spelt.get, otypes=[object])(token[:, place["text"]])
    columns = {
        "entity_id": np.repeat(np.arange(len(attention), dtype=np.int32), len(part))[there],
        "label": np.repeat(np.array(labels, dtype=object), len(part))[there],
        "place": np.tile(np.arange(len(part), dtype=np.int32), len(attention))[there],
        "part": np.tile(np.array(part, dtype=object), len(attention))[there],
        "token_id": [None if one < 0 else one for one in token.ravel()[there].tolist()],
        "piece": piece.ravel()[there],
        "attention": attention.ravel()[there],
    }
    drawn = {"figure": figures.shares(rows, parts, "mean attention of [ENT] (%)", "Attention by coverage")}
    if "image" in place:
        tiles = _tiles(attention, place["image"], data, folder, labels)
        if tiles:
            drawn["pictures"] = figures.tiles(tiles, MODALITIES["image"].called(folder))
    if "text" in place:
        drawn["words"] = figures.words(_words(attention[:, place["text"]], token[:, place["text"]], spelt, labels))
    return Case("attention", columns, rows, drawn)


def _spelt(path: Path, ids: np.ndarray) -> dict[int, str]:
    """What text tokens spell, if a language model's tokenizer made them and its files are on this machine."""
    made = tables.provenance(path)
    if made.get("family") != "language":
        return {}
    from transformers import AutoTokenizer  # takes seconds to import

    used = np.unique(ids[ids >= 0]).tolist()
    try:
        model = locate(made["settings"]["model"], made["settings"]["revision"], only=EMBEDDINGS)
        tokenizer = AutoTokenizer.from_pretrained(model, local_files_only=True)
    except (UserError, OSError, ValueError) as error:
        log.warning("Text tokens keep their numbers, for the tokenizer is not here: %s", error)
        return {}
    return dict(zip(used, tokenizer.convert_ids_to_tokens(used), strict=True))


def _words(
    attention: np.ndarray, token: np.ndarray, spelt: Mapping[int, str], labels: Sequence[str]
) -> list[tuple[str, list[tuple[str, float]]]]:
    """Entities whose texts are attended to most: label, and each token with its attention."""
    most = np.argsort(-attention.sum(1), kind="stable")[:PICTURES].tolist()
    return [
        (
            labels[entity],
            [
                (spelt.get(one, f"token {one}"), value)
                for one, value in zip(token[entity].tolist(), attention[entity].tolist(), strict=True)
                if one >= 0
            ],
        )
        for entity in most
        if (token[entity] >= 0).any()
    ]


def _places(model: Any, data: Data) -> tuple[dict[str, slice], np.ndarray, list[str]]:
    """Where each modality's tokens stand in the sequence; the token ids (E, T), -1 for none; the part of each place."""
    part = ["[ENT]"] + (["structure"] if model.has_structure else [])
    ids = [np.full((data.entities, len(part)), -1)]
    places = {}
    for name, embedding in model.tokens.items():
        width = embedding.index.shape[1]
        places[name] = slice(len(part), len(part) + width)
        part += [name] * width
        chosen = most_frequent(data.tokens[name], data.entities, width)
        ids.append(torch.where(chosen < 0, -1, data.tokens[name].token_id[chosen.clamp(min=0)]).numpy())
    return places, np.concatenate(ids, axis=1), part


def _tiles(
    attention: np.ndarray, place: slice, data: Data, folder: Path, labels: Sequence[str]
) -> list[tuple[str, Image.Image, np.ndarray]]:
    """Entities whose pictures are attended to most: label, first picture, attention (n, n) of its tiles."""
    tokens = data.tokens["image"]
    chosen = most_frequent(tokens, data.entities, place.stop - place.start)
    found = []
    for entity in np.argsort(-attention[:, place].sum(1), kind="stable")[: 4 * PICTURES].tolist():
        grid = _grid(tokens, entity)
        picture = _picture(folder, entity)
        if grid is None or picture is None:
            continue
        weight = {
            token: value
            for token, value in zip(chosen[entity].tolist(), attention[entity, place].tolist(), strict=True)
            if token >= 0
        }
        light = np.vectorize(lambda token, weight=weight: weight.get(token, 0.0))(grid.numpy())
        found.append((labels[entity], picture, light))
        if len(found) == PICTURES:
            break
    return found


def _grid(tokens: Tokens, entity: int) -> Tensor | None:
    """The tokens (n, n) of an entity's first picture, if they are a square of tiles."""
    row = int(torch.searchsorted(tokens.entity, entity))
    if row == len(tokens.entity) or int(tokens.entity[row]) != entity:
        return None
    values = tokens.values[tokens.offsets[row] : tokens.offsets[row + 1]]
    side = int(len(values) ** 0.5)
    return values.view(side, side) if side and side * side == len(values) else None


def _picture(folder: Path, entity: int) -> Image.Image | None:
    """The first picture of an entity, if there is one."""
    for path in MODALITIES["image"].files(folder):
        rows = pq.read_table(path, columns=["entity_id", "image_ix", "bytes"], filters=pc.field("entity_id") == entity)
        rows = rows.filter(pc.is_valid(rows["bytes"])).sort_by("image_ix")
        if rows.num_rows:
            with Image.open(io.BytesIO(rows["bytes"][0].as_py())) as picture:
                return picture.convert("RGB")
    return None
