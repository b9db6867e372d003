"""Test queries of three kinds and what each model answers: labels, descriptions, thumbnails, right ones marked."""

import base64
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
from stages.report.tables import in_order
from trainers.about import about_model
from trainers.training.runs import load_run

EACH = 4  # queries shown of each kind
SPARE = 4  # drawn beside them, for those that turn out to show a broken entity
FAR = 10  # a rank beyond this is wrong
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


@dataclass(frozen=True)
class Kind:
    """One kind of example: its rule in words, and which of the runs' queries are of it, (N,) bool."""

    words: str
    of: np.ndarray


def kinds(runs: Sequence[Run]) -> list[Kind]:
    """The kinds of example, over the test queries of `runs`, whose rows are in one order."""
    ranks = np.stack([run.ranks["realistic"] for run in runs])
    reads = np.array([bool(about_model(run.model).reads) for run in runs])
    many = len(runs) > 1
    who = "Every model has" if many else f"{about_model(runs[0].model).name} has"
    found = [Kind(f"{who} the answer first", np.asarray((ranks == 1).all(axis=0)))]
    if reads.any() and not reads.all():
        only = np.asarray((ranks[reads] == 1).all(axis=0) & (ranks[~reads] > FAR).all(axis=0))
        told = "Every model that reads texts and pictures has the answer first, every other beyond rank"
        found.append(Kind(f"{told} {FAR}", only))
    return [*found, Kind(f"{who} the answer beyond rank {FAR}", np.asarray((ranks > FAR).all(axis=0)))]


def predictions(
    graph: Graph, runs: Sequence[Run], *, seed: int = 0, load: Callable[[Path], Scoring] = load_run
) -> tuple[list[Query], list[tuple[str, int]]]:
    """The queries with each model's best answers, and the kinds that they are of with how many queries each has.

    Facts of train and dev are left out of the answers, since a model has seen them. Of each kind EACH queries are
    drawn by `seed`, no relation twice while there are others, none that shows an entity which is two things.
    """
    runs = [replace(run, ranks=in_order(run.ranks)) for run in runs]
    test = np.unique(graph.triples[graph.split == "test"], axis=0)
    known = FilterIndex.build(graph.triples[graph.split != "test"], len(graph.labels), len(graph.relations))
    true = FilterIndex.build(test, len(graph.labels), len(graph.relations))
    found = kinds(runs)
    asked = [choose(runs[0].ranks, kind.of, graph.broken, seed) for kind in found]
    every = [row for rows in asked for row in rows]
    answers = [_answers(load(run.folder), run.ranks, every, known, true) for run in runs]
    queries, start = [], 0
    for kind, rows in zip(found, asked, strict=True):
        whole = [
            place for place in range(start, start + len(rows))
            if not graph.broken & {entity for mine in answers for entity, *_ in mine[place]}
        ]  # fmt: skip
        queries += [_query(graph, runs, kind, every[at], [mine[at] for mine in answers]) for at in whole[:EACH]]
        start += len(rows)
    return queries, [(kind.words, int(kind.of.sum())) for kind in found]


def _query(graph: Graph, runs: Sequence[Run], kind: Kind, row: int, answers: Sequence[list]) -> Query:
    """The query in this row of the ranks, with each model's answers."""
    ranks = runs[0].ranks
    side = str(ranks["direction"][row])
    head, relation, tail = (int(ranks[name][row]) for name in ("head", "relation", "tail"))
    asked = tail if side == "tail" else head
    return Query(
        kind=kind.words,
        side=side,
        relation=graph.relations[relation],
        known=entity_of(graph, head if side == "tail" else tail),
        answer=entity_of(graph, asked),
        models=[
            Answers(
                run.model,
                float(run.ranks["realistic"][row]),
                [Answer(entity_of(graph, one), right, one == asked, place, score) for one, right, place, score in mine],
            )
            for run, mine in zip(runs, answers, strict=True)
        ],
    )


def choose(ranks: Mapping[str, np.ndarray], of: np.ndarray, broken: frozenset[int], seed: int) -> list[int]:
    """Up to EACH + SPARE rows among those of a kind, `of` (N,) bool, in an order drawn by the seed."""
    ends = np.stack([ranks["head"], ranks["tail"]])
    fit = of & ~np.isin(ends, list(broken)).any(axis=0)
    first: list[int] = []
    rest: list[int] = []
    used: set[int] = set()
    for row in np.random.default_rng(seed).permutation(np.flatnonzero(fit)):
        relation = int(ranks["relation"][row])
        (rest if relation in used else first).append(int(row))
        used.add(relation)
    return (first + rest)[: EACH + SPARE]


def _answers(
    run: Scoring, ranks: Mapping[str, np.ndarray], asked: Sequence[int], known: FilterIndex, true: FilterIndex
) -> list[list[tuple[int, bool, int, float]]]:
    """For each query (entity, whether test says it is right, place, score): the TOP first, and the asked one where it
    comes after them. Facts of train and dev are left out, and count for no place."""
    found = []
    with torch.inference_mode():
        for row in asked:
            side = str(ranks["direction"][row])
            ends = [int(ranks[name][row]) for name in ("head", "tail")]
            given, wanted = ends if side == "tail" else ends[::-1]
            entity, relation = torch.tensor([given]), torch.tensor([int(ranks["relation"][row])])
            scores = run.score(entity, relation, side)[0].float().nan_to_num(-torch.inf)
            right = set(true.answers(entity, relation, side)[1].tolist())
            seen = [one for one in known.answers(entity, relation, side)[1].tolist() if one not in right]
            scores[seen] = -torch.inf
            order = torch.sort(scores, descending=True, stable=True).indices.tolist()
            at = order.index(wanted)
            shown = [*range(min(TOP, len(order))), *([at] if at >= TOP else [])]
            found.append([(order[i], order[i] in right, i + 1, float(scores[order[i]])) for i in shown])
    return found


def entity_of(graph: Graph, entity: int) -> Entity:
    """An entity as the page shows it."""
    text = " ".join(graph.descriptions.get(entity, "").split())
    shown = text if len(text) <= LONGEST else text[: LONGEST - 1].rsplit(" ", 1)[0] + " …"
    return Entity(entity, graph.labels[entity], shown, link(graph.keys[entity]))


def link(key: str) -> str:
    """The address of an entity that a key names: a URI as it stands, a Q-id at Wikidata; else empty."""
    if re.fullmatch(r"https?://[^\s\"'<>]+", key):
        return key
    return f"https://www.wikidata.org/wiki/{key}" if re.fullmatch(r"Q[1-9][0-9]*", key) else ""


def entities(queries: Sequence[Query]) -> list[int]:
    """All entities that the queries and answers name, those of the queries first."""
    asked = [one.id for query in queries for one in (query.known, query.answer)]
    return asked + [one.entity.id for query in queries for model in query.models for one in model.best]
