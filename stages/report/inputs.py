"""What the report reads: runs, graphs and what was counted about them, as plain values.

Whatever may not exist yet (a picture table, an audit) is empty here rather than an error: a report on what there is
beats no report. A run that `params.yaml` names must be there, since DVC orders the report after it.
"""

import csv
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline import tables
from pipeline.errors import UserError
from trainers.evaluation import ranking


@dataclass(frozen=True)
class Run:
    """One trained and evaluated model: the contents of `runs/<graph>/<model>/`."""

    graph: str
    model: str
    folder: Path
    about: dict  # run.json
    dev: dict
    test: dict
    history: dict[str, np.ndarray]  # column -> float64, NaN where the file is empty
    ranks: dict[str, np.ndarray]  # the test rows of ranks.parquet

    @property
    def seconds(self) -> float:
        """Of training."""
        return self.about["seconds"]


@dataclass(frozen=True)
class Graph:
    """One graph and what was counted about it. Texts and pictures are indexed by entity; E entities."""

    name: str
    folder: Path
    audit: dict
    labels: list[str]
    relations: list[str]
    categories: np.ndarray  # of the relations
    triples: np.ndarray  # (n, 3) int64
    split: np.ndarray  # (n,)
    descriptions: dict[int, str]
    has_text: np.ndarray  # (E,) bool
    has_picture: np.ndarray  # (E,) bool
    text_status: Counter  # status -> entities
    picture_status: Counter  # outcome -> entities, by the best of an entity's rows
    pictures: int
    drawn: bool  # the pictures are drawings made by code

    @property
    def picture(self) -> str:
        """What this graph's pictures are called: a drawing is never called a picture."""
        return "drawing" if self.drawn else "picture"


def read_runs(root: Path, graphs: Sequence[str], models: Sequence[str]) -> list[Run]:
    """The runs of all `graphs` × `models`, in that order. Raises UserError if one is missing or damaged."""
    return [read_run(root / "runs" / graph / model, graph, model) for graph in graphs for model in models]


def read_run(folder: Path, graph: str, model: str) -> Run:
    return Run(
        graph=graph,
        model=model,
        folder=folder,
        about=read_json(folder / "run.json"),
        dev=read_json(folder / "dev.json"),
        test=read_json(folder / "test.json"),
        history=read_history(folder / "history.csv"),
        ranks=ranking.read(folder / "ranks.parquet", "test"),
    )


def read_json(path: Path) -> dict:
    """A JSON object. Raises UserError if the file is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path} is not there; run the stage that writes it (dvc repro).") from error
    except ValueError as error:
        raise UserError(f"{path} is no JSON ({error}); delete it and run the stage that writes it again.") from error


def read_history(path: Path) -> dict[str, np.ndarray]:
    """The columns of a history.csv. Raises UserError if it is missing or holds what is no number."""
    try:
        with open(path, encoding="utf-8", newline="") as handle:
            rows = list(csv.DictReader(handle))
        names = list(rows[0]) if rows else []
        return {name: np.array([float(row[name] or "nan") for row in rows]) for name in names}
    except FileNotFoundError as error:
        raise UserError(f"{path} is not there; train the model again (dvc repro).") from error
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}); delete it and train the model again.") from error


def read_graph(root: Path, name: str) -> Graph:
    """One graph from `data/<name>/`. Raises UserError if its own tables are missing or damaged."""
    folder = root / "data" / name
    entities = tables.read(folder / "graph" / "entities.parquet", "entities").sort_by("entity_id")
    relations = tables.read(folder / "graph" / "relations.parquet", "relations").sort_by("relation_id")
    triples = tables.read(folder / "graph" / "triples.parquet", "triples")
    audit = folder / "graph" / "audit.json"
    count = entities.num_rows
    labels = [label or key for label, key in zip(*(entities[c].to_pylist() for c in ("label", "key")), strict=True)]
    descriptions, has_text, text_status = _read_text(folder / "text.parquet", count, labels)
    has_picture, picture_status, pictures, drawn = _read_pictures(picture_parts(folder), count)
    return Graph(
        name=name,
        folder=folder,
        audit=read_json(audit) if audit.exists() else {},
        labels=labels,
        relations=[r or k for r, k in zip(*(relations[c].to_pylist() for c in ("label", "key")), strict=True)],
        categories=relations["category"].to_numpy(zero_copy_only=False),
        triples=np.stack([triples[c].to_numpy() for c in ("head", "relation", "tail")], axis=1).astype(np.int64),
        split=triples["split"].to_numpy(zero_copy_only=False),
        descriptions=descriptions,
        has_text=has_text,
        has_picture=has_picture,
        text_status=text_status,
        picture_status=picture_status,
        pictures=pictures,
        drawn=drawn,
    )


def picture_parts(folder: Path) -> list[Path]:
    return sorted((folder / "images").glob("part-*.parquet"))


def _read_text(path: Path, entities: int, labels: list[str]) -> tuple[dict[int, str], np.ndarray, Counter]:
    """Descriptions by entity, who has a text, statuses; a label found with the text replaces a bare key."""
    has = np.zeros(entities, dtype=bool)
    if not path.exists():
        return {}, has, Counter()
    descriptions: dict[int, str] = {}
    status: Counter = Counter()
    columns = ["entity_id", "label", "description", "text", "status"]
    for row in tables.read(path, "text", columns).to_pylist():
        entity = row["entity_id"]
        status[row["status"]] += 1
        has[entity] = bool(row["text"])
        labels[entity] = row["label"] or labels[entity]
        if row["description"]:
            descriptions[entity] = row["description"]
    if len(status) and status.total() < entities:
        status["no row"] = entities - status.total()
    return descriptions, has, status


def _read_pictures(parts: Iterable[Path], entities: int) -> tuple[np.ndarray, Counter, int, bool]:
    """Who has a picture, the status of each entity's best row, how many pictures, whether they are drawings."""
    has = np.zeros(entities, dtype=bool)
    outcome: dict[int, str] = {}
    pictures, drawn = 0, False
    for part in parts:
        drawn = drawn or "drawing" in json.dumps(tables.provenance(part)).lower()
        table = tables.read(part, "images", ["entity_id", "sha256", "status", "error"])
        for row in table.to_pylist():
            entity, fine = row["entity_id"], row["sha256"] is not None
            pictures += fine
            if fine or entity not in outcome:
                outcome[entity] = row["status"] if fine else _reason(row["status"], row["error"])
            has[entity] |= fine
    counts = Counter(outcome.values())
    if counts and len(outcome) < entities:
        counts["no row"] = entities - len(outcome)
    return has, counts, pictures, drawn


def _reason(status: str, error: str | None) -> str:
    """Status and the general part of its reason: what follows a colon is of one picture alone."""
    return f"{status}: {error.split(':')[0]}" if error else status
