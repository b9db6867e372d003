"""Triples and their names, from the files that graphs are published in to the three tables of a graph.

Two forms are read. OpenKE's (Han et al. 2018): `entity2id.txt`, `relation2id.txt` and `{train,valid,test}2id.txt`,
whose first line is a count and whose rows are ids in the order head, tail, relation. And a folder of names of your own:
tab-separated `head relation tail`, as `train`, `dev` (or `valid`) and `test`, or as one file `triples`; a table
`entities` (key, label) may name entities that no triple holds. Their names end in .txt or .tsv.
"""

import re
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote

import numpy as np

from pipeline import tables
from pipeline.errors import UserError
from pipeline.graph.vocabulary import SPLITS, UNSEEN

LONGEST_NAME = 2000  # characters; the longest name in DB15K has 120
_LONGEST_LINE = 6 * LONGEST_NAME  # bytes: enough for three names in UTF-8, whatever their script
_OPENKE = {"train": "train2id.txt", "dev": "valid2id.txt", "test": "test2id.txt"}
_WIKIDATA = "http://www.wikidata.org/entity/"
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True)
class Graph:
    """A graph as its files give it. Place i of a list belongs to id i.

    `splits` has the keys train, dev, test, each (n, 3) int64: head, relation, tail.
    """

    entity_keys: list[str]
    entity_labels: list[str]
    relation_keys: list[str]
    relation_labels: list[str]
    splits: dict[str, np.ndarray]

    def with_splits(self, splits: Mapping[str, np.ndarray]) -> "Graph":
        """The same names with other triples."""
        return replace(self, splits=dict(splits))


def read(folder: str | Path, form: str) -> Graph:
    """Read a folder in one of the two forms, "openke" or "names".

    Raises UserError, with the file and the line, if anything in it cannot be used.
    """
    return {"openke": read_openke, "names": read_names}[form](Path(folder))


def read_openke(folder: Path) -> Graph:
    """Read the five files of OpenKE's form. Raises UserError like `read`."""
    entities = _read_ids(folder / "entity2id.txt")
    relations = _read_ids(folder / "relation2id.txt")
    splits = {}
    for split, name in _OPENKE.items():
        splits[split] = _read_id_triples(folder / name, len(entities), len(relations))
    if not len(splits["train"]):
        raise UserError(f"{folder / _OPENKE['train']} holds no triples; there is nothing to train on.")
    return _named([_key(name) for name in entities], [_key(name) for name in relations], splits, folder)


def read_names(folder: Path) -> Graph:
    """Read a folder of names. One file `triples` becomes train, and dev and test stay empty (see splits.choose).

    Ids follow the table of entities (relations) if there is one, then the first appearance in train, dev, test.
    Raises UserError like `read`.
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
    splits = {
        split: _read_name_triples(path, entities, relations) if path else np.zeros((0, 3), dtype=np.int64)
        for split, path in found.items()
    }
    if not len(splits["train"]):
        raise UserError(f"{found['train']} holds no triples; there is nothing to train on.")
    graph = _named(list(entities), list(relations), splits, folder)
    return replace(
        graph,
        entity_labels=[
            entity_labels.get(key) or label for key, label in zip(entities, graph.entity_labels, strict=True)
        ],
        relation_labels=[
            relation_labels.get(key) or label for key, label in zip(relations, graph.relation_labels, strict=True)
        ],
    )


def readable(key: str) -> str:
    """A label for people out of a key: the last part of a URI, decoded, `_` as a space, camelCase apart."""
    name = key
    if "://" in key:
        rest = key.split("://", 1)[1]
        name = rest.split("/resource/", 1)[1] if "/resource/" in rest else re.split(r"[/#]", rest.rstrip("/#"))[-1]
        name = unquote(name)
    if re.fullmatch(r"[a-z]+([A-Z][a-z]+)+", name):
        name = re.sub(r"([A-Z])", lambda found: " " + found.group(1).lower(), name)
    return name.replace("_", " ").strip() or key


def categories(train: np.ndarray, relations: int, threshold: float = 1.5) -> list[str]:
    """The category of each relation, counted on the distinct rows of `train` (n, 3).

    A side is N if a query has on average `threshold` answers there or more (Bordes et al. 2013, section 4.2: "below
    1.5" is 1). A relation without a triple in train is "unseen".
    """
    rows = np.unique(train, axis=0)
    facts = np.bincount(rows[:, 1], minlength=relations)
    heads = np.bincount(np.unique(rows[:, :2], axis=0)[:, 1], minlength=relations)
    tails = np.bincount(np.unique(rows[:, 1:], axis=0)[:, 0], minlength=relations)
    found = []
    for count, head, tail in zip(facts.tolist(), heads.tolist(), tails.tolist(), strict=True):
        if not count:
            found.append(UNSEEN)
            continue
        left = "N" if count / tail >= threshold else "1"  # heads a (relation, tail)
        right = "N" if count / head >= threshold else "1"  # tails a (head, relation)
        found.append(f"{left}-{right}")
    return found


def write(folder: str | Path, graph: Graph, provenance: Mapping[str, object]) -> None:
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


def lines(path: Path, longest: int = _LONGEST_LINE) -> Iterator[tuple[int, str]]:
    """(number from 1, text) of each line that is not blank.

    Raises UserError if the file is missing, no UTF-8, or has a line of more than `longest` bytes.
    """
    try:
        with open(path, "rb") as handle:
            for number, raw in enumerate(iter(lambda: handle.readline(longest + 1), b""), start=1):
                if len(raw) > longest:
                    raise UserError(f"{path}, line {number} is longer than {longest} bytes; is this the right file?")
                text = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
                if text.strip():
                    yield number, text
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no UTF-8 text (line {number}); save it as UTF-8.") from error
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise UserError(f"{path} is not there; run the download, or check the graph's folder.") from error


def check_name(name: str, path: Path, number: int) -> str:
    """The name without surrounding blanks.

    Raises UserError if it is empty, absurdly long or holds control characters.
    """
    name = name.strip()
    if not name:
        raise UserError(f"{path}, line {number} holds an empty name; give every entity and relation a name.")
    if len(name) > LONGEST_NAME:
        raise UserError(
            f"{path}, line {number} holds a name of {len(name)} characters; the longest allowed is {LONGEST_NAME}."
        )
    if _CONTROL.search(name):
        raise UserError(f"{path}, line {number} holds a control character within a name; clean the file.")
    return name


def one_file(folder: Path, *stems: str) -> Path | None:
    """The one file `<stem>.txt` or `<stem>.tsv` in the folder, or None. Raises UserError if there are several."""
    found = [
        folder / f"{stem}{end}" for stem in stems for end in (".txt", ".tsv") if (folder / f"{stem}{end}").exists()
    ]
    if len(found) > 1:
        raise UserError(f"{folder} holds both {found[0].name} and {found[1].name}; keep one of them.")
    return found[0] if found else None


def _key(name: str) -> str:
    """The graph's own name: a URI without its angle brackets, Wikidata's as the bare Q-id or P-id."""
    if name.startswith("<") and name.endswith(">"):
        name = name[1:-1]
    return name.removeprefix(_WIKIDATA)


def _named(entities: list[str], relations: list[str], splits: dict[str, np.ndarray], folder: Path) -> Graph:
    for kind, keys in (("entities", entities), ("relations", relations)):
        if len(set(keys)) < len(keys):
            raise UserError(f"{folder} gives the same name to two {kind}; names must be distinct.")
    return Graph(entities, [readable(key) for key in entities], relations, [readable(key) for key in relations], splits)


def _counted(path: Path) -> tuple[int, Iterator[tuple[int, str]]]:
    """The count on the first line, and the lines after it."""
    rows = lines(path)
    number, first = next(rows, (1, ""))
    if not first.strip().isdecimal():
        raise UserError(f"{path}, line {number} should be the count of rows, but is {first[:40]!r}.")
    return int(first), rows


def _check_count(path: Path, count: int, rows: int) -> None:
    if count != rows:
        raise UserError(f"{path} says {count} rows on its first line but holds {rows}; it is cut short or edited.")


def _read_ids(path: Path) -> list[str]:
    """Names in the order of their ids, which must be 0 to count - 1, each once."""
    count, rows = _counted(path)
    names: dict[int, str] = {}
    for number, line in rows:
        parts = line.rsplit(maxsplit=1)
        if len(parts) != 2 or not parts[1].isdecimal():
            raise UserError(f"{path}, line {number} is no `name id`: {line[:80]!r}.")
        place = int(parts[1])
        if place in names:
            raise UserError(f"{path}, line {number} gives the id {place} a second time.")
        names[place] = check_name(parts[0], path, number)
    _check_count(path, count, len(names))
    if names and max(names) != len(names) - 1:
        raise UserError(f"{path} holds the id {max(names)}, but its {len(names)} ids must run from 0 without a gap.")
    return [names[place] for place in range(len(names))]


def _read_id_triples(path: Path, entities: int, relations: int) -> np.ndarray:
    """(n, 3) int64 head, relation, tail out of rows of head, tail, relation."""
    count, rows = _counted(path)
    found = array("q")
    for number, line in rows:
        parts = line.split()
        if len(parts) != 3 or not all(part.isdecimal() for part in parts):
            raise UserError(f"{path}, line {number} is no `head tail relation` of three ids: {line[:80]!r}.")
        head, tail, relation = map(int, parts)
        if head >= entities or tail >= entities or relation >= relations:
            raise UserError(
                f"{path}, line {number} is {head} {tail} {relation}, but there are only {entities} entities and "
                f"{relations} relations."
            )
        found.extend((head, relation, tail))
    _check_count(path, count, len(found) // 3)
    return np.array(found, dtype=np.int64).reshape(-1, 3)


def _read_name_triples(path: Path, entities: dict[str, int], relations: dict[str, int]) -> np.ndarray:
    """(n, 3) int64; names not met before are added to the two dictionaries."""
    found = array("q")
    for number, line in lines(path):
        parts = line.split("\t")
        if len(parts) != 3:
            raise UserError(
                f"{path}, line {number} has {len(parts)} tab-separated fields, not the three of head, relation, tail: "
                f"{line[:80]!r}."
            )
        head, relation, tail = (check_name(part, path, number) for part in parts)
        row = entities.setdefault(head, len(entities)), relations.setdefault(relation, len(relations))
        found.extend((*row, entities.setdefault(tail, len(entities))))
    return np.array(found, dtype=np.int64).reshape(-1, 3)


def _read_labels(folder: Path, stem: str) -> tuple[dict[str, int], dict[str, str]]:
    """Ids by key and labels by key out of `<stem>.tsv` (key, label; a header `key` is skipped), if it is there."""
    path = one_file(folder, stem)
    ids: dict[str, int] = {}
    labels: dict[str, str] = {}
    for number, line in lines(path) if path else ():
        key, _, label = line.partition("\t")
        if number == 1 and key == "key":
            continue
        key = check_name(key, path, number)
        if key in ids:
            raise UserError(f"{path}, line {number} names {key[:80]!r} a second time.")
        ids[key] = len(ids)
        labels[key] = label.split("\t")[0].strip()
    return ids, labels
