"""A graph in memory, and the three tables that it is kept in."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pipeline import tables
from pipeline.graph.categories import categories
from pipeline.graph.vocabulary import SPLITS


@dataclass(frozen=True)
class Graph:
    """A graph as its files give it. Place i of a list belongs to id i.

    `splits` has the keys train, dev, test, each (n, 3) int64: head, relation, tail. `notes` are sentences on what the
    reader made of odd lines.
    """

    entity_keys: list[str]
    entity_labels: list[str]
    relation_keys: list[str]
    relation_labels: list[str]
    splits: dict[str, np.ndarray]
    notes: tuple[str, ...] = ()

    def with_splits(self, splits: Mapping[str, np.ndarray]) -> "Graph":
        """The same names with other triples."""
        return replace(self, splits=dict(splits))


def write_graph(folder: str | Path, graph: Graph, provenance: Mapping[str, object]) -> None:
    """Write entities, relations and triples as Parquet into `folder`. Raises UserError if the disk is full."""
    folder = Path(folder)
    columns = {"entity_id": np.arange(len(graph.entity_keys), dtype=np.int32), "key": graph.entity_keys}
    tables.write(folder / "entities.parquet", "entities", {**columns, "label": graph.entity_labels}, provenance)
    columns = {"relation_id": np.arange(len(graph.relation_keys), dtype=np.int32), "key": graph.relation_keys}
    counted = categories(graph.splits["train"], len(graph.relation_keys))
    columns |= {"label": graph.relation_labels, "category": counted}
    tables.write(folder / "relations.parquet", "relations", columns, provenance)
    rows = np.concatenate([graph.splits[split] for split in SPLITS]).astype(np.int32)
    names = np.repeat(SPLITS, [len(graph.splits[split]) for split in SPLITS])
    columns = {"head": rows[:, 0], "relation": rows[:, 1], "tail": rows[:, 2], "split": names}
    tables.write(folder / "triples.parquet", "triples", columns, provenance)
