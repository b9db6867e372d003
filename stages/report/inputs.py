"""What the report reads: runs, graphs and what was counted about them, as plain values.

Whatever may not exist yet (a picture table, an audit) is empty here rather than an error: a report on what there is
beats no report. A run that `params.yaml` names must be there, since DVC orders the report after it.
"""

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline import tables
from pipeline.errors import UserError
from pipeline.modalities import MODALITIES, Modality
from pipeline.tables import read_json
from trainers.evaluation import ranking
from trainers.training.train import check_inputs


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
    completed: dict  # completions.json; empty where `complete` has not run since the training
    completions: list[dict]  # the rows of completions.parquet, the most probable first

    @property
    def seconds(self) -> float:
        """Of training."""
        return self.about["seconds"]


@dataclass(frozen=True)
class Covered:
    """Who has one modality in one graph of E entities, and what became of the others."""

    label: str  # what this graph's are called
    plural: str
    has: np.ndarray  # (E,) bool
    status: Counter  # outcome -> entities, by the best of an entity's rows
    inputs: int  # texts, pictures


@dataclass(frozen=True)
class Graph:
    """One graph and what was counted about it; E entities."""

    name: str
    folder: Path
    audit: dict
    keys: list[str]
    labels: list[str]
    relations: list[str]
    categories: np.ndarray  # of the relations
    triples: np.ndarray  # (n, 3) int64
    split: np.ndarray  # (n,)
    descriptions: dict[int, str]
    covered: dict[str, Covered]  # by the modality's name

    @property
    def picture(self) -> str:
        """What this graph's pictures are called: a drawing is never called a picture."""
        return self.covered["image"].label

    @property
    def drawn(self) -> bool:
        """Whether the pictures are drawings made by code."""
        return self.picture == MODALITIES["image"].drawn

    @property
    def broken(self) -> frozenset[int]:
        """Entities that the audit holds for two things under one name."""
        named = {one["entity"] for one in self.audit.get("fused", {}).get("entities", ())}
        return frozenset(entity for entity, key in enumerate(self.keys) if key in named)

    @property
    def encoded(self) -> list[str]:
        """The modalities of which there is an encoded table, by name."""
        return [one for one in MODALITIES if any((self.folder / "encoded" / one).glob("*.parquet"))]

    @property
    def letters(self) -> str:
        """What the letters of a coverage mean."""
        return ", ".join(f"{one.label[0].upper()} {one.label}" for one in self.covered.values()) + ", – none"

    def in_its_words(self, text: str) -> str:
        """A text that calls modalities as `MODALITIES` does, as this graph's are called."""
        for name, covered in self.covered.items():
            text = text.replace(MODALITIES[name].label, covered.label)
        return text


def read_runs(root: Path, graphs: Sequence[str], models: Sequence[str]) -> list[Run]:
    """The runs of all `graphs` × `models`, in that order.

    Raises UserError if one is missing, damaged, or of other triples than those that lie there now.
    """
    runs = [read_run(root / "runs" / graph / model, graph, model) for graph in graphs for model in models]
    for run in runs:
        of_graph = {name: sha for name, sha in run.about.get("inputs", {}).items() if name.endswith("triples.parquet")}
        check_inputs(run.folder, {"inputs": of_graph}, root / "data" / run.graph / "graph")
    return runs


def read_run(folder: Path, graph: str, model: str) -> Run:
    about = read_json(folder / "run.json")
    completed, completions = read_completions(folder, about)
    return Run(
        graph=graph,
        model=model,
        folder=folder,
        about=about,
        dev=read_json(folder / "dev.json"),
        test=read_json(folder / "test.json"),
        history=read_history(folder / "history.csv"),
        ranks=ranking.read(folder / "ranks.parquet", "test"),
        completed=completed,
        completions=completions,
    )


def read_completions(folder: Path, about: dict) -> tuple[dict, list[dict]]:
    """What `complete` left of this training, nothing if it has not run since. Raises UserError if it is damaged."""
    if not (folder / "completions.json").exists():
        return {}, []
    completed = read_json(folder / "completions.json")
    if completed["provenance"].get("fingerprint") != about.get("fingerprint"):
        return {}, []
    rows = tables.read(folder / "completions.parquet", "completions").to_pylist()
    return completed, sorted(rows, key=lambda row: -(row["probability"] or 0.0))


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
    descriptions = _names_of_texts(folder, labels)
    return Graph(
        name=name,
        folder=folder,
        audit=read_json(audit) if audit.exists() else {},
        keys=entities["key"].to_pylist(),
        labels=labels,
        relations=[r or k for r, k in zip(*(relations[c].to_pylist() for c in ("label", "key")), strict=True)],
        categories=relations["category"].to_numpy(zero_copy_only=False),
        triples=np.stack([triples[c].to_numpy() for c in ("head", "relation", "tail")], axis=1).astype(np.int64),
        split=triples["split"].to_numpy(zero_copy_only=False),
        descriptions=descriptions,
        covered={name: read_covered(modality, folder, count) for name, modality in MODALITIES.items()},
    )


def _names_of_texts(folder: Path, labels: list[str]) -> dict[int, str]:
    """Descriptions by entity; a label found with the text replaces a bare key in `labels`."""
    descriptions: dict[int, str] = {}
    for path in MODALITIES["text"].files(folder):
        for row in tables.read(path, "text", ["entity_id", "label", "description"]).to_pylist():
            labels[row["entity_id"]] = row["label"] or labels[row["entity_id"]]
            if row["description"]:
                descriptions[row["entity_id"]] = row["description"]
    return descriptions


def read_covered(modality: Modality, folder: Path, entities: int) -> Covered:
    """Who of E entities has something to encode, and what became of the others."""
    has = np.zeros(entities, dtype=bool)
    outcome: dict[int, str] = {}
    inputs = 0
    told = [name for name in ("status", "error") if name in tables.SCHEMAS[modality.kind].names]
    for path in modality.files(folder):
        columns = list(dict.fromkeys(["entity_id", modality.column, *told]))
        for row in tables.read(path, modality.kind, columns).to_pylist():
            entity, fine = row["entity_id"], row[modality.column] not in (None, "")
            inputs += fine
            if fine or entity not in outcome:
                status = row.get("status", "ok" if fine else "absent")
                outcome[entity] = status if fine else _reason(status, row.get("error"))
            has[entity] |= fine
    status = Counter(outcome.values())
    if status and len(outcome) < entities:
        status["no row"] = entities - len(outcome)
    return Covered(modality.called(folder), modality.plural.replace(modality.label, modality.called(folder)),
                   has, status, inputs)  # fmt: skip


def _reason(status: str, error: str | None) -> str:
    """Status and the general part of its reason: what follows a colon is of one picture alone."""
    return f"{status}: {error.split(':')[0]}" if error else status
