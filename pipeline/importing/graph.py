"""From somebody's files to `data/<graph>/source` and `configs/graphs/<graph>.yaml`, or to one sentence and nothing."""

import csv
import io
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from pipeline import tables
from pipeline.errors import UserError
from pipeline.graph.audit import audit
from pipeline.graph.formats import read_graph
from pipeline.graph.graph import Graph
from pipeline.graph.labels import readable
from pipeline.graph.matching import Matched, Names, match_files, p_id, q_id
from pipeline.graph.name_triples import ORDER, header
from pipeline.graph.splits import choose
from pipeline.importing.codebook import quantise
from pipeline.importing.delimited import FIND_OUT, Guess
from pipeline.importing.features import Features, read_features
from pipeline.importing.texts import Texts, nearest, read_labels, read_texts
from pipeline.importing.triples import Triples, joined, read_triples
from pipeline.modalities import MODALITIES
from pipeline.modalities.archives import open_archive
from pipeline.modalities.texts import by_table

WRITTEN = (
    "# Written by `python -m stages.import_graph`, which replaces it; configs/graphs/mini.yaml explains every key.\n"
)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_PREFIXED = re.compile(r"[a-z][a-z0-9]*:([a-z]+(?:[A-Z][a-z]+)*)")  # dbo:bandMember
_PLAIN = re.compile(r"[A-Za-z0-9./_][\w./-]*")
_RECORD = "imported.json"  # a source folder without it is not ours to replace
_FILES = {_RECORD, "train.tsv", "valid.tsv", "test.tsv", "triples.tsv", "entities.tsv", "relations.tsv", "text.tsv"}
_FILES |= {f"{modality}-{kind}" for modality in MODALITIES
           for kind in ("features.parquet", "tokens.json", "codebook.npy")}  # fmt: skip
FROM_WEB = {"wikidata", "wikipedia"}  # texts that the stages ask for by Q-id or title, instead of a table


@dataclass(frozen=True)
class Found:
    """What became of one source of texts, pictures or features: how many entities have one, which names are nobody's.

    `strangers` are (name, nearest entity or None), the first few of `unmatched`.
    """

    entities: int
    unmatched: int
    ambiguous: int
    strangers: list[tuple[str, str | None]]


@dataclass(frozen=True)
class Imported:
    """What was written, and what is to be known of it. `audit` is that of `ingest` (pipeline/graph/audit.py)."""

    source: Path
    config: Path
    entities: int
    relations: int
    audit: dict
    matched: dict[str, Found] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def import_graph(
    name: str, triples: object, *, valid: object = None, test: object = None, texts: object = None,
    pictures: str | Path | None = None, features: object = None, order: str | Path | None = None,
    modality: str = "image", tokens: int = 0, labels: object = None, relations: object = None,
    guess: Guess = FIND_OUT, replace: bool = False, project: str | Path = ".",
) -> Imported:  # fmt: skip
    """Bring a graph into `project`: its triples, and texts, pictures and features where there are such.

    `triples` (and `valid`, `test`) is a path or a pandas DataFrame, or a list of such; `texts` a path or a DataFrame;
    `pictures` a folder or archive of <entity>/<file>, which stays where it is; `features` a path, a DataFrame (key,
    embedding) or a dict of vectors, of which `modality` ("text" or "image") says what they are of; `order` lists the
    keys of an array that has none; `tokens`: so many are made of each vector (see codebook.py), 0: none. `labels` and
    `relations` are tables of key and label, of entities and of relations, or ask Wikidata: functions from ids (Q-ids,
    P-ids) to their labels, as `pipeline.wikimedia.labels` has them. `texts` may be "wikidata" or "wikipedia", and
    `pictures` "commons": the stages then ask there, by Q-id or title. `guess` corrects what is found out about files of
    triples.

    Raises UserError, and has then written nothing, if anything cannot be used or the graph is there already.
    """
    project = Path(project)
    source, config = project / "data" / name / "source", project / "configs" / "graphs" / f"{name}.yaml"
    _refuse_present(name, source, config, replace)
    read = _read(triples, valid, test, guess)
    if not any(read.splits.values()):
        raise UserError("The files hold no triples between entities; there is nothing to train on.")
    keys = list(
        dict.fromkeys([*read.entities, *(one for rows in read.splits.values() for row in rows for one in row[::2])])
    )
    called = [read.labels.get(key) or readable(key) for key in keys]
    names = Names(keys, called)
    matched: dict[str, Found] = {}
    if labels is not None:
        matched["labels"], called = _labelled(labels, names, keys, called, read.notes)
        names = Names(keys, called)
    named = _named(relations, read)
    described = None
    if texts is not None and not _from_web(texts):
        described = read_texts(texts, names)
        read.notes += described.notes
        matched["texts"] = _found(described.matched, keys)
        called = [described.rows[at][0] if at in described.rows and described.rows[at][0] else label
                  for at, label in enumerate(called)]  # fmt: skip
        names = Names(keys, called)
    if pictures is not None and pictures != "commons":
        matched["pictures"] = _pictures(pictures, names, keys)
    vectors = None
    if features is not None:
        vectors = read_features(features, names, order)
        read.notes += vectors.notes
        matched[f"features ({modality})"] = _found(vectors.matched, keys)
    elif tokens:
        raise UserError(
            "Tokens are made from features, of which none are given; name their file, or leave --tokens out."
        )
    (project / "data").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".import-{name}-", dir=project / "data") as scratch:
        new = Path(scratch) / "source"
        new.mkdir()
        _write(new, read, keys, called, described)
        _write_relations(new, named)
        graph, found = _as_ingest_reads(new, source, described is not None)
        tables.write_json(new / _RECORD, {"notes": read.notes, "entities": len(keys)})
        if vectors is not None:
            pq.write_table(vectors.table(keys), new / f"{modality}-features.parquet")
            _write_tokens(new, vectors, keys, modality, tokens, read.notes)
        about = _config(source.relative_to(project), texts, pictures, modality if vectors else None, tokens)
        _publish(new, source, config, about, Path(scratch))
    return Imported(source, config, len(keys), len(graph.relation_keys), found, matched, read.notes)


def _from_web(texts: object) -> bool:
    return isinstance(texts, str) and texts in FROM_WEB


def _refuse_present(name: str, source: Path, config: Path, replace: bool) -> None:
    if not _NAME.fullmatch(name) or name == "common":
        raise UserError(
            f"A graph cannot be called {name!r}: a name is letters (a-z), digits, _ and -, no - or _ first."
        )
    present = [path for path in (source, config) if path.exists()]
    if present and not replace:
        raise UserError(f"{present[0]} is there already; choose another name, or say --replace.")
    if config.exists() and not config.read_text(encoding="utf-8").startswith(WRITTEN):
        raise UserError(f"{config} was written by hand and is not replaced; choose another name, or remove the file.")
    if source.exists() and not (source / _RECORD).exists():
        raise UserError(f"{source} holds files of your own and is not replaced; choose another name.")
    if source.exists() and (own := sorted({path.name for path in source.iterdir()} - _FILES)):
        raise UserError(f"{source / own[0]} was not written by an import and would be lost; move it away first.")


def _read(triples: object, valid: object, test: object, guess: Guess) -> Triples:
    """All splits as one. A file of train must not bring splits of its own where others are named."""
    whole = joined(read_triples(one, guess) for one in _several(triples))
    for split, given in (("dev", valid), ("test", test)):
        if given is None:
            continue
        if whole.splits.get(split):
            raise UserError(f"The folder of triples has a split {split} already; leave the file for it out.")
        part = joined(read_triples(one, guess) for one in _several(given))
        whole.splits[split] = part.splits.get("train", [])
        whole.notes += part.notes
    return whole


def _several(given: object) -> Sequence:
    return given if isinstance(given, list | tuple) else [given]


# ---------------------------------------------------------------------------------------------- what matched
def _found(matched: Matched, keys: list[str]) -> Found:
    strangers = [(name, nearest(name, keys)) for name in matched.unmatched[:3]]
    return Found(len(set(matched.entity.values())), len(matched.unmatched), len(matched.ambiguous), strangers)


def _pictures(path: str | Path, names: Names, keys: list[str]) -> Found:
    with open_archive(path) as archive:
        matched, places = match_files(archive.names, names)
        if not places:
            raise UserError(
                f"{path}: none of its {len(archive.names):,} files is named as an entity of the graph (it has "
                f"{', '.join(map(repr, matched.unmatched[:3])) or 'no files'}; expected <entity>/<file>)."
            )
    return _found(matched, keys)


# -------------------------------------------------------------------------------------------------- writing
def _write(folder: Path, read: Triples, keys: list[str], labels: list[str], texts: Texts | None) -> None:
    if read.splits.get("dev") or read.splits.get("test"):
        names = {"train": "train.tsv", "dev": "valid.tsv", "test": "test.tsv"}
    else:
        names = {"train": "triples.tsv"}
    for split, name in names.items():
        if rows := read.splits.get(split):
            # A fact that reads like a header is none only below one.
            first = [ORDER] if header("\t".join(rows[0])) else []
            tables.write_text(folder / name, "".join("\t".join(row) + "\n" for row in (*first, *rows)))
    tables.write_text(folder / "entities.tsv", _lines(("key", "label"), zip(keys, labels, strict=True), plain=True))
    if texts is not None:
        described = ((keys[at], labels[at], *texts.rows[at][1:]) for at in sorted(texts.rows))
        tables.write_text(folder / "text.tsv", _lines(("key", "label", "description", "aliases"), described))


def _labelled(
    source: object, names: Names, keys: list[str], called: list[str], notes: list[str]
) -> tuple[Found, list[str]]:
    """What became of a table of labels, and what the entities are called with it."""
    if callable(source):
        found, said = _asked(source, {key: q_id(key) for key in keys}, "entities", "Q-id")
    else:
        found, said = read_labels(source)
    notes += said
    matched = names.match(found)
    own = {entity: found[name] for name, entity in matched.entity.items() if found[name]}
    return _found(matched, keys), [own.get(at) or label for at, label in enumerate(called)]


def _asked(
    ask: Callable[[list[str]], Mapping[str, str]], ids: Mapping[str, str | None], what: str, kind: str
) -> tuple[dict[str, str], list[str]]:
    """Labels by key out of what Wikidata calls their ids, and what to say."""
    wanted = list(dict.fromkeys(one for one in ids.values() if one))
    if not wanted:
        raise UserError(
            f"No key of the {what} is or ends in a {kind} of Wikidata (such as {next(iter(ids))!r}); give a table of "
            "keys and labels instead."
        )
    labels = ask(wanted)
    found = {key: labels[one] for key, one in ids.items() if one is not None and one in labels}
    return found, [f"Wikidata: {len(labels):,} of {len(wanted):,} {what} have a label there."]


def _named(relations: object, read: Triples) -> dict[str, str]:
    """The relations' labels by key out of a table, else out of prefixed names; those of no relation are counted."""
    known = dict.fromkeys(row[1] for rows in read.splits.values() for row in rows)  # ids follow the first appearance
    if relations is None:
        parts = {key: _PREFIXED.fullmatch(key) for key in known}
        return {key: readable(found[1]) for key, found in parts.items() if found}
    if callable(relations):
        found, said = _asked(relations, {key: p_id(key) or q_id(key) for key in known}, "relations", "P-id")
    else:
        found, said = read_labels(relations)
    read.notes += [*said, f"{len(known.keys() & set(found)):,} of {len(known):,} relations have a label."]
    return {key: found[key] for key in known if found.get(key)}


def _write_relations(folder: Path, named: dict[str, str]) -> None:
    if named:
        rows = "".join(f"{key}\t{label}\n" for key, label in named.items())
        tables.write_text(folder / "relations.tsv", f"key\tlabel\n{rows}")


def _write_tokens(
    folder: Path, vectors: Features, keys: list[str], modality: str, tokens: int, notes: list[str]
) -> None:
    """Tokens and their codebook beside the features, and aloud how well they stand for them."""
    if not tokens:
        return
    made = quantise(vectors.matrix, tokens)
    tables.write_text(
        folder / f"{modality}-tokens.json", made.lists([keys[one] for one in vectors.entity_ids.tolist()])
    )
    np.save(folder / f"{modality}-codebook.npy", made.codebook)
    notes.append(
        f"{tokens} tokens an entity were made from the features of {modality}, of a learned codebook of "
        f"{len(made.codebook):,}; they keep {made.kept:.0%} of the features' variance."
    )


def _lines(names: Sequence[str], rows, plain: bool = False) -> str:
    """Lines between tabs; quoted as CSV does, unless the reader takes quotes as they stand."""
    if plain:
        return "".join("\t".join(row) + "\n" for row in (names, *rows))
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    writer.writerow(names)
    writer.writerows(rows)
    return text.getvalue()


def _as_ingest_reads(new: Path, source: Path, texts: bool) -> tuple[Graph, dict]:
    """The graph as `ingest` and `text` will read it, so that what they would refuse is refused now; and its audit."""
    try:
        graph = read_graph(new, "names")
        if texts:
            by_table(graph.entity_keys, new)
        used, done = choose(graph.splits, "clean", dev_share=0.1, seed=0, least_dev=0.5)
    except UserError as error:
        raise UserError(str(error).replace(str(new), str(source))) from error
    return graph, audit(graph, used, done, "clean")


def _publish(new: Path, source: Path, config: Path, about: str, scratch: Path) -> None:
    """Put the folder in its place and write the graph's file; what stood there goes once both stand."""
    source.parent.mkdir(parents=True, exist_ok=True)
    try:
        if source.exists():
            source.rename(scratch / "before")
        new.rename(source)
        tables.write_text(config, about)
    except (OSError, UserError) as error:
        if not new.exists():  # it has taken its place
            source.rename(new)
        if (scratch / "before").exists():
            shutil.move(scratch / "before", source)
        if isinstance(error, UserError):
            raise
        raise UserError(f"{source} cannot be written ({error.strerror}); free space or rights there.") from error


def _config(source: Path, texts: object, pictures: object, modality: str | None, tokens: int) -> str:
    """The graph's file, in the form that DVC writes; `modality`: whose features came with it."""
    lines = ["form: names", f"folder: {_quoted(source.as_posix())}"]
    if texts is not None:
        lines += ["text:", f"  source: {texts if _from_web(texts) else 'table'}"]
    if pictures == "commons":
        lines += ["images:", "  source: commons"]
    elif pictures is not None:
        lines += ["images:", "  source: folder", f"  path: {_quoted(str(pictures))}"]
    if modality is not None:
        files = {"features": "features.parquet"}
        files |= {"tokens": "tokens.json", "codebook": "codebook.npy"} if tokens else {}
        lines += ["encoded: released", "released:", f"  {modality}:"]
        lines += [f"    {kind}: {_quoted((source / f'{modality}-{name}').as_posix())}" for kind, name in files.items()]
        lines += ["    padding_rows: 0"] if tokens else []
    return WRITTEN + "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """A path as YAML has it: plain where that cannot be misread."""
    if _PLAIN.fullmatch(text) and re.search(r"[A-Za-z]", text):
        return text
    return "'" + text.replace("'", "''") + "'" if text.isprintable() else json.dumps(text)
