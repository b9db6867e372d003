"""A dozen test queries and the answers that each model gives: labels, descriptions, thumbnails, right ones marked."""

import base64
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow.compute as pc
import pyarrow.dataset as ds
import torch
from PIL import Image

from pipeline.graph.filter_index import FilterIndex
from pipeline.modalities import MODALITIES
from stages.report.content import Answer, Answers, Entity, Query
from stages.report.inputs import Graph, Run
from trainers.training.runs import load_run

QUERIES = 12
TOP = 5
SIDE = 64  # pixels of a thumbnail
QUALITY = 55  # a WebP of about one kilobyte
LONGEST = 110  # characters of a description


class Scoring(Protocol):
    """What is asked of a loaded run."""

    @property
    def score(self) -> Callable[[torch.Tensor, torch.Tensor, str], torch.Tensor]:
        """(known (B,), relation (B,), side) -> (B, E): higher is better."""


@dataclass
class Thumbnails:
    """Small pictures of entities as data: URIs, each made once and at most `limit` of them in the page."""

    limit: int = 400
    uris: dict[int, str] = field(default_factory=dict)

    def read(self, graph: Graph, entities: Iterable[int]) -> None:
        """Make the thumbnails of `entities`, of each its first picture, up to the limit."""
        wanted = sorted({int(one) for one in entities if graph.covered["image"].has[one]})[: self.limit]
        if not wanted:
            return
        rows = ds.dataset([str(part) for part in MODALITIES["image"].files(graph.folder)], format="parquet").to_table(
            columns=["entity_id", "image_ix", "bytes"],
            filter=pc.field("entity_id").isin(wanted) & pc.field("bytes").is_valid(),
        )
        for row in rows.sort_by([("entity_id", "ascending"), ("image_ix", "ascending")]).to_pylist():
            if row["entity_id"] not in self.uris:
                self.uris[row["entity_id"]] = thumbnail(row["bytes"])


def thumbnail(data: bytes) -> str:
    """A square WebP of the picture's middle as a data: URI."""
    with Image.open(io.BytesIO(data)) as image:
        image.draft("RGB", (SIDE, SIDE))
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        middle = (left, top, left + side, top + side)
        small = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS, middle)
    out = io.BytesIO()
    small.save(out, "WEBP", quality=QUALITY, method=6)
    return "data:image/webp;base64," + base64.b64encode(out.getvalue()).decode("ascii")


def predictions(
    graph: Graph, runs: Sequence[Run], *, seed: int = 0, load: Callable[[Path], Scoring] = load_run
) -> list[Query]:
    """The queries and each model's best answers, facts of train and dev left out since a model has seen them.

    Queries are drawn by `seed`, half of them asking the tail, no relation twice while there are others.
    """
    test = np.unique(graph.triples[graph.split == "test"], axis=0)
    asked = choose(test, seed)
    known = FilterIndex.build(graph.triples[graph.split != "test"], len(graph.labels), len(graph.relations))
    true = FilterIndex.build(test, len(graph.labels), len(graph.relations))
    answers = {run.model: _answers(load(run.folder), asked, known, true) for run in runs}
    queries = []
    for place, (triple, side) in enumerate(asked):
        head, relation, tail = (int(one) for one in triple)
        queries.append(
            Query(
                side=side,
                relation=graph.relations[relation],
                known=_entity(graph, head if side == "tail" else tail),
                answer=_entity(graph, tail if side == "tail" else head),
                models=[_column(graph, run, triple, side, answers[run.model][place]) for run in runs],
            )
        )
    return queries


def choose(test: np.ndarray, seed: int) -> list[tuple[np.ndarray, str]]:
    """QUERIES test triples (n, 3) with the side asked for, tail and head in turn."""
    order = np.random.default_rng(seed).permutation(len(test))
    first: list[int] = []
    rest: list[int] = []
    used: set[int] = set()
    for row in order:
        relation = int(test[row, 1])
        (rest if relation in used else first).append(row)
        used.add(relation)
    chosen = (first + rest)[:QUERIES]
    return [(test[row], "tail" if place % 2 == 0 else "head") for place, row in enumerate(chosen)]


def _answers(
    run: Scoring, asked: Sequence[tuple[np.ndarray, str]], known: FilterIndex, true: FilterIndex
) -> list[list]:
    """For each query the TOP (entity, whether test says it is right), facts of train and dev left out."""
    found = []
    with torch.inference_mode():
        for triple, side in asked:
            entity = torch.tensor([int(triple[0] if side == "tail" else triple[2])])
            relation = torch.tensor([int(triple[1])])
            scores = run.score(entity, relation, side)[0].float().nan_to_num(-torch.inf)
            right = set(true.answers(entity, relation, side)[1].tolist())
            seen = [one for one in known.answers(entity, relation, side)[1].tolist() if one not in right]
            scores[seen] = -torch.inf
            best = torch.sort(scores, descending=True, stable=True).indices[:TOP].tolist()
            found.append([(one, one in right) for one in best])
    return found


def _column(graph: Graph, run: Run, triple: np.ndarray, side: str, best: list[tuple[int, bool]]) -> Answers:
    """One model's answers to one query, with the rank that the evaluator gave the asked answer."""
    ranks = run.ranks
    here = ranks["direction"] == side
    for name, value in zip(("head", "relation", "tail"), triple, strict=True):
        here = here & (ranks[name] == value)
    asked = int(triple[2] if side == "tail" else triple[0])
    rank = float(ranks["realistic"][here][0]) if here.any() else None
    return Answers(run.model, rank, [Answer(_entity(graph, one), right, one == asked) for one, right in best])


def _entity(graph: Graph, entity: int) -> Entity:
    text = " ".join(graph.descriptions.get(entity, "").split())
    shown = text if len(text) <= LONGEST else text[: LONGEST - 1].rsplit(" ", 1)[0] + " …"
    return Entity(entity, graph.labels[entity], shown)


def entities(queries: Sequence[Query]) -> list[int]:
    """All entities that the queries and answers name, those of the queries first."""
    asked = [one.id for query in queries for one in (query.known, query.answer)]
    return asked + [one.entity.id for query in queries for model in query.models for one in model.best]
