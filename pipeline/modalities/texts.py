"""Labels, descriptions and aliases of entities, and the text of each that an encoder will read.

Descriptions come from a table of Wikidata's (CC0) that is keyed by Freebase id and names the Q-id and the Wikipedia
article of each row (`entity2wikidata.json` of villmow/datasets_knowledge_embedding), or from a table of your own.
Which row belongs to an entity is found by links (DBpedia's sameAs), by Q-id or by article title. What is not found
stays a row that says so; nothing is guessed.
"""

import csv
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from pipeline.errors import NO_JSON, UserError
from pipeline.graph.labels import readable
from pipeline.graph.name_triples import plain_name
from pipeline.graph.text_files import check_name, lines, one_file

FIELDS = ("label", "description", "aliases")
LONGEST_DESCRIPTION = 20_000  # characters; Wikidata's own limit is 250
_LONGEST_LINE = 8 * LONGEST_DESCRIPTION  # bytes
_HEADER = ("key", "label", "description", "aliases")
_SAMEAS = re.compile(r"(\S+)\s+<SameAs>\s+<([^>]*)>\s*\.?")


@dataclass(frozen=True)
class Described:
    """What is known of one entity in words. `source` names where it is from, for the reader of the table."""

    label: str
    description: str | None
    aliases: tuple[str, ...]
    source: str


@dataclass(frozen=True)
class Wikidata:
    """One row of the table of Wikidata's descriptions."""

    described: Described
    qid: str | None
    title: str | None  # of the English Wikipedia's article, with `_` for spaces


def read_wikidata(path: Path) -> dict[str, Wikidata]:
    """Rows by Freebase id. Raises UserError if the file is missing, no JSON, or not of this form."""
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        return {freebase: _wikidata(row) for freebase, row in table.items()}
    except (FileNotFoundError, IsADirectoryError) as error:
        raise UserError(f"{path} is not there; run the download stage.") from error
    except (*NO_JSON, AttributeError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not a table of Wikidata's descriptions ({error!r}); download it again.") from error


def read_links(path: Path) -> dict[str, list[str]]:
    """Freebase ids by DBpedia URI, out of lines `<freebase id> <SameAs> <URI> .`; raises UserError on other lines."""
    found: dict[str, list[str]] = {}
    for number, line in lines(path):
        match = _SAMEAS.fullmatch(line.strip())
        if not match:
            raise UserError(f"{path}, line {number} is not `id <SameAs> <URI> .`: {line[:80]!r}.")
        found.setdefault(match[2], []).append(match[1])
    return found


def by_links(
    keys: Sequence[str], links: Mapping[str, Sequence[str]], table: Mapping[str, Wikidata]
) -> list[Described | None]:
    """For each entity's URI the first linked row that has a description, else the first linked row, else None."""
    found = []
    for key in keys:
        rows = [table[freebase].described for freebase in links.get(key, ()) if freebase in table]
        found.append(next((row for row in rows if row.description), rows[0] if rows else None))
    return found


def by_qid(keys: Sequence[str], table: Mapping[str, Wikidata]) -> list[Described | None]:
    """For each Q-id its row, or None."""
    rows = {row.qid: row.described for row in reversed(list(table.values())) if row.qid}
    return [rows.get(key) for key in keys]


def by_title(keys: Sequence[str], table: Mapping[str, Wikidata]) -> list[Described | None]:
    """For each title of an English Wikipedia article (`_` for spaces) its row, or None."""
    rows = {row.title: row.described for row in reversed(list(table.values())) if row.title}
    return [rows.get(key.replace(" ", "_")) for key in keys]


def by_table(keys: Sequence[str], folder: Path) -> tuple[list[Described | None], dict[str, int]]:
    """Rows of `text.tsv` in the folder: a header `key label [description [aliases]]`, aliases parted by ` | `.

    Fields may be quoted as pandas and spreadsheets do it. A row without a label has the one that its key reads as. Also
    returns counts: rows of `other_entities`, which are left out, so that one table can serve several graphs, and
    `without_label`. Raises UserError, with the line, if the table is missing, has another header, or one key twice.
    """
    path = one_file(folder, "text")
    if path is None:
        raise UserError(
            f"{folder} holds no text.tsv; put a table of key, label, description, aliases beside the triples, or "
            "choose another `text: source` in the graph's file below configs/graphs (none: no texts)."
        )
    rows = _table_rows(path)
    _, header = next(rows, (1, []))
    columns = tuple(header)
    if columns[:2] != _HEADER[:2] or columns != _HEADER[: len(columns)]:
        raise UserError(f"{path}, line 1 should name the tab-separated columns {', '.join(_HEADER)}: "
                        f"{' '.join(header)[:80]!r}.")  # fmt: skip
    wanted, found, counts = set(keys), {}, {"other_entities": 0, "without_label": 0}
    for number, parts in rows:
        key = plain_name(check_name(parts[0], path, number))
        if len(parts) != len(columns):
            raise UserError(f"{path}, line {number} has {len(parts)} fields under {len(columns)} columns.")
        if key in found:
            raise UserError(f"{path}, line {number} describes {key[:80]!r} a second time.")
        if key not in wanted:
            counts["other_entities"] += 1
            continue
        label, description, aliases = [*parts[1:], "", ""][:3]
        if len(description) > LONGEST_DESCRIPTION:
            raise UserError(
                f"{path}, line {number} has a description of {len(description)} characters; "
                f"the longest allowed is {LONGEST_DESCRIPTION}."
            )
        names = tuple(name for name in map(str.strip, aliases.split(" | ")) if name)
        counts["without_label"] += not label.strip()
        label = check_name(label, path, number) if label.strip() else readable(key)
        found[key] = Described(label, description.strip() or None, names, path.name)
    return [found.get(key) for key in keys], counts


def _table_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line number and fields of each row of a tab-separated table.

    A table whose quotes are all those of CSV, as pandas writes them around tabs, quotes and line ends, is read so; in
    any other a quote is a character like others.
    """
    rows = list(lines(path, _LONGEST_LINE))
    if not any('"' in line for _, line in rows):
        return ((number, line.split("\t")) for number, line in rows)
    reader = csv.reader((f"{line}\n" for _, line in rows), delimiter="\t", strict=True)
    read, at = [], 0
    try:
        for fields in reader:
            read.append((rows[at][0], fields))
            at = reader.line_num
    except csv.Error:
        read = []
    if read and all(len(fields) == len(read[0][1]) for _, fields in read):
        return iter(read)
    return ((number, line.split("\t")) for number, line in rows)


def compose(described: Described, fields: Sequence[str], separator: str) -> str | None:
    """What is encoded: the named fields that are known (of FIELDS; aliases by commas), joined; None if none is."""
    values = (described.label, described.description, ", ".join(described.aliases))
    known = dict(zip(FIELDS, values, strict=True))
    return separator.join(" ".join(value.split()) for name in fields if (value := known[name])) or None


def with_captions(one: Described | None, label: str, captions: Sequence[str], source: str) -> Described:
    """What is known of an entity, its description followed by what its pictures show, from `source`.

    `label` names an entity of which nothing else is known.
    """
    parts = [one.description] if one and one.description else []
    words = " ".join([*(f"{part.rstrip('.')}." for part in parts), *captions])[:LONGEST_DESCRIPTION]
    if one is None:
        return Described(label, words, (), source)
    return Described(one.label, words, one.aliases, f"{one.source} + {source}")


def rows(
    labels: Sequence[str], found: Sequence[Described | None], *, fields: Sequence[str], separator: str, fallback: str
) -> tuple[dict[str, list], dict[str, int | float]]:
    """The columns of the text table, and its counts.

    `labels` are the entities' own readable names; `fallback` says what is encoded where nothing is found: "none", or
    "label" for that name. Status: found (with a description), no_description, label_only, absent (no text).
    """
    table: dict[str, list] = {name: [] for name in ("label", "description", "aliases", "text", "source", "status")}
    for label, one in zip(labels, found, strict=True):
        status = "absent" if one is None else "found" if one.description else "no_description"
        if one is None and fallback == "label":
            one, status = Described(label, None, (), "key"), "label_only"
        table["label"].append(one.label if one else None)
        table["description"].append(one.description if one else None)
        table["aliases"].append(list(one.aliases) if one else [])
        table["text"].append(compose(one, fields, separator) if one else None)
        table["source"].append(one.source if one else None)
        table["status"].append(status)
    counted = Counter(table["status"])
    with_text = sum(text is not None for text in table["text"])
    counts = {
        "entities": len(labels),
        "found": counted["found"] + counted["no_description"],
        "with_description": counted["found"],
        "with_aliases": sum(bool(aliases) for aliases in table["aliases"]),
        "label_only": counted["label_only"],
        "absent": counted["absent"],
        "with_text": with_text,
        "coverage": round(with_text / len(labels), 6) if labels else 0.0,
    }
    return {"entity_id": list(range(len(labels))), **table}, counts


def _wikidata(row: dict) -> Wikidata:
    title = unquote(row["wikipedia"].rsplit("/wiki/", 1)[-1]) if row["wikipedia"] else None
    qid = row["wikidata_id"]
    described = Described(row["label"], row["description"] or None, tuple(row["alternatives"]), f"wikidata:{qid}")
    return Wikidata(described, qid, title.replace(" ", "_") if title else None)
