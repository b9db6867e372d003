"""Reading a graph from the files that it is published in.

Two forms are read. OpenKE's (Han et al. 2018): `entity2id.txt`, `relation2id.txt` and `{train,valid,test}2id.txt`,
whose first line is a count and whose rows are ids in the order head, tail, relation. And a folder of names of your own:
tab-separated `head relation tail`, as `train`, `dev` (or `valid`) and `test`, or as one file `triples`; a table
`entities` (key, label) may name entities that no triple holds. Their names end in .txt or .tsv. A header is left out,
and N-Triples (`<head> <relation> <tail> .`) are read as what they are.
"""

from array import array
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from pipeline.errors import UserError
from pipeline.graph import whole_files
from pipeline.graph.graph import Graph
from pipeline.graph.labels import readable, table_key
from pipeline.graph.name_triples import TripleLines, plain_name
from pipeline.graph.text_files import check_name, lines, one_file, whole_number

_OPENKE = {"train": "train2id.txt", "dev": "valid2id.txt", "test": "test2id.txt"}


def read_graph(folder: str | Path, form: str) -> Graph:
    """Read a folder in one of the two forms, "openke" or "names".

    Raises UserError, with the file and the line, if anything in it cannot be used.
    """
    return {"openke": read_openke, "names": read_names}[form](Path(folder))


def read_openke(folder: Path) -> Graph:
    """Read the five files of OpenKE's form. Raises UserError like `read_graph`."""
    entities = _read_ids(folder / "entity2id.txt")
    relations = _read_ids(folder / "relation2id.txt")
    splits = {}
    for split, name in _OPENKE.items():
        splits[split] = _read_id_triples(folder / name, len(entities), len(relations))
    if not len(splits["train"]):
        raise UserError(f"{folder / _OPENKE['train']} holds no triples; there is nothing to train on.")
    return _named(entities, relations, splits)


def read_names(folder: Path) -> Graph:
    """Read a folder of names. One file `triples` becomes train, and dev and test stay empty (see splits.choose).

    Ids follow the table of entities (relations) if there is one, then the first appearance in train, dev, test.
    Raises UserError like `read_graph`.
    """
    found = {
        "train": one_file(folder, "train"),
        "dev": one_file(folder, "dev", "valid"),
        "test": one_file(folder, "test"),
    }
    whole = one_file(folder, "triples")
    if whole and any(found.values()):
        raise UserError(f"{folder} holds {whole.name} beside files of single splits; keep one or the other.")
    found = {**found, "train": whole or found["train"]}
    if found["train"] is None:
        raise UserError(
            f"{folder} holds neither train.txt nor triples.txt; put tab-separated `head relation tail` lines there."
        )
    entities, entity_labels = _read_labels(folder, "entities")
    relations, relation_labels = _read_labels(folder, "relations")
    reader = TripleLines(entities, relations)
    splits = {split: reader.read(path) if path else np.zeros((0, 3), dtype=np.int64) for split, path in found.items()}
    if not len(splits["train"]):
        raise UserError(f"{found['train']} holds no triples; there is nothing to train on.")
    graph = _named(list(entities), list(relations), splits)
    return replace(
        graph,
        notes=tuple(reader.notes),
        entity_labels=[
            entity_labels.get(key) or label for key, label in zip(entities, graph.entity_labels, strict=True)
        ],
        relation_labels=[
            relation_labels.get(key) or label for key, label in zip(relations, graph.relation_labels, strict=True)
        ],
    )


def _named(entities: list[str], relations: list[str], splits: dict[str, np.ndarray]) -> Graph:
    return Graph(entities, [readable(key) for key in entities], relations, [readable(key) for key in relations], splits)


def _counted(path: Path) -> tuple[int, Iterator[tuple[int, str]]]:
    """The count on the first line, and the lines after it."""
    rows = lines(path)
    number, first = next(rows, (1, ""))
    count = whole_number(first.strip())
    if count is None:
        raise UserError(f"{path}, line {number} should be the count of rows, but is {first[:40]!r}.")
    return count, rows


def _check_count(path: Path, count: int, rows: int) -> None:
    if count != rows:
        raise UserError(f"{path} says {count} rows on its first line but holds {rows}; it is cut short or edited.")


def _read_ids(path: Path) -> list[str]:
    """Names in the order of their ids, which must be 0 to count - 1, each once."""
    count, rows = _counted(path)
    names: dict[int, str] = {}
    line_of: dict[str, int] = {}
    for number, line in rows:
        parts = line.rsplit(maxsplit=1)
        place = whole_number(parts[1]) if len(parts) == 2 else None
        if place is None:
            raise UserError(f"{path}, line {number} is not `name id`: {line[:80]!r}.")
        if place in names:
            raise UserError(f"{path}, line {number} gives the id {place} a second time.")
        names[place] = name = table_key(check_name(parts[0], path, number))
        if line_of.setdefault(name, number) != number:
            raise UserError(f"{path}, lines {line_of[name]} and {number} both have the name {name[:80]!r}; keep one.")
    _check_count(path, count, len(names))
    if names and max(names) != len(names) - 1:
        raise UserError(f"{path} holds the id {max(names)}, but its {len(names)} ids must run from 0 without a gap.")
    return [names[place] for place in range(len(names))]


def _read_id_triples(path: Path, entities: int, relations: int) -> np.ndarray:
    """(n, 3) int64 head, relation, tail out of rows of head, tail, relation."""
    count, rows = _counted(path)
    quick = whole_files.ids(path, 3)
    if quick is not None and len(quick) == count and (quick < (entities, entities, relations)).all():
        return np.ascontiguousarray(quick[:, [0, 2, 1]])
    found = array("q")
    for number, line in rows:
        parts = line.split()
        ids = [one for one in map(whole_number, parts) if one is not None]
        if len(parts) != 3 or len(ids) != 3:
            raise UserError(f"{path}, line {number} is not `head tail relation` of three ids: {line[:80]!r}.")
        head, tail, relation = ids
        if head >= entities or tail >= entities or relation >= relations:
            raise UserError(
                f"{path}, line {number} is {head} {tail} {relation}, but there are only {entities} entities and "
                f"{relations} relations."
            )
        found.extend((head, relation, tail))
    _check_count(path, count, len(found) // 3)
    return np.array(found, dtype=np.int64).reshape(-1, 3)


def _read_labels(folder: Path, stem: str) -> tuple[dict[str, int], dict[str, str]]:
    """Ids by key and labels by key out of `<stem>.tsv` (key, label; a header `key` is skipped), if it is there."""
    path = one_file(folder, stem)
    ids: dict[str, int] = {}
    labels: dict[str, str] = {}
    if path is None:
        return ids, labels
    for number, line in lines(path):
        key, _, label = line.partition("\t")
        if number == 1 and key == "key":
            continue
        key = plain_name(check_name(key, path, number))
        if key in ids:
            raise UserError(f"{path}, line {number} names {key[:80]!r} a second time.")
        ids[key] = len(ids)
        labels[key] = label.split("\t")[0].strip()
    return ids, labels
