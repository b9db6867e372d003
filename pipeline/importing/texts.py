"""Labels, descriptions and aliases from a table of somebody's own, given to the entities that its keys mean."""

import re
from dataclasses import dataclass
from difflib import get_close_matches

from pipeline.errors import UserError
from pipeline.graph.matching import Matched, Names, numbered
from pipeline.importing.delimited import Guess, Table, read_table
from pipeline.modalities.texts import LONGEST_DESCRIPTION

FIELDS = ("key", "label", "description", "aliases")
_WORDS = {
    "key": ("key", "id", "entity", "entity_id", "qid", "uri", "iri", "node"),
    "label": ("label", "name", "title"),
    "description": ("description", "desc", "text", "abstract", "comment", "summary"),
    "aliases": ("aliases", "alias", "synonyms", "also_known_as"),
}
_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")


@dataclass(frozen=True)
class Texts:
    """`rows`: entity_id -> (label, description, aliases); `repeated` rows of entities that have one were left out."""

    rows: dict[int, tuple[str, str, str]]
    matched: Matched
    repeated: int
    notes: list[str]


def read_texts(source: object, names: Names) -> Texts:
    """Read a table of texts: a path (TSV, CSV, Parquet) or a pandas DataFrame.

    A header names the columns (key or id, label or name, description or text, aliases); without one, two columns are
    key and description, three or four key, label, description, aliases. Raises UserError, with the line, if no column
    is the key or a description is too long.
    """
    table = read_table(source, Guess(columns=("key", "text")))
    columns, table = _columns(table)
    keys = [fields[columns["key"]].strip() for _, fields in table.rows]
    matched = names.match(keys)
    if not matched.entity:
        raise UserError(
            f"{table.name}: none of its {len(keys):,} keys is an entity of the graph (such as "
            f"{', '.join(map(repr, matched.unmatched[:3]))}); its key column must hold the names that the triples have."
        )
    rows: dict[int, tuple[str, str, str]] = {}
    repeated = 0
    for (number, fields), key in zip(table.rows, keys, strict=True):
        entity = matched.entity.get(key)
        if entity is None:
            continue
        repeated += entity in rows
        values = [_plain(fields[columns[name]]) if name in columns else "" for name in FIELDS[1:]]
        if len(values[1]) > LONGEST_DESCRIPTION:
            raise UserError(
                f"{table.name}, line {number} has a description of {len(values[1])} characters; the longest allowed is "
                f"{LONGEST_DESCRIPTION}."
            )
        rows.setdefault(entity, (values[0], values[1], values[2]))
    said = ", ".join(f"column {place + 1} {name}" for name, place in columns.items())
    return Texts(rows, matched, repeated, [*table.notes, f"{table.name}: {said}."])


def read_labels(source: object) -> tuple[dict[str, str], list[str]]:
    """Labels by key out of a table of keys and labels (two columns, or a header that names them), and what to say.

    Raises UserError if the table has no such columns.
    """
    table = read_table(source, Guess(columns=("key", "text")))
    names = table.columns or (table.rows[0][1] if table.rows else [])
    words = [name.strip().lower().replace(" ", "_") for name in names]
    places = [next((at for at, word in enumerate(words) if word in _WORDS[kind]), -1) for kind in ("key", "label")]
    rows = table.rows
    if min(places) >= 0:
        rows = rows if table.columns else rows[1:]
    elif len(names) == 2:
        places = [0, 1]
    else:
        raise UserError(f"{table.name} has the columns {', '.join(names)[:120]}; labels need a key and a label.")
    found = {fields[places[0]].strip(): _plain(fields[places[1]]) for _, fields in rows}
    return found, [*table.notes, f"{table.name}: column {places[0] + 1} key, column {places[1] + 1} label."]


def _columns(table: Table) -> tuple[dict[str, int], Table]:
    """Where the four fields stand, and the table without its header."""
    width = len(table.rows[0][1]) if table.rows else 0
    names = table.columns or (table.rows[0][1] if table.rows else [])
    words = [name.strip().lower().replace(" ", "_") for name in names]
    found = {name: next((at for at, word in enumerate(words) if word in _WORDS[name]), -1) for name in FIELDS}
    if found["key"] < 0 and "name" in words:  # `name` is the key where nothing else is
        found |= {"key": words.index("name"), "label": -1}
    places = {name: at for name, at in found.items() if at >= 0}
    if "key" in places and len(places) > 1:
        return places, table if table.columns else Table(table.name, table.rows[1:], None, table.notes)
    if table.columns or not 2 <= width <= 4:
        raise UserError(
            f"{table.name} has the columns {', '.join(names)[:120]}, of which none is a key with a text; name them "
            "key, label, description, aliases."
        )
    return ({"key": 0, "description": 1} if width == 2 else dict(zip(FIELDS, range(width), strict=False))), table


def _plain(text: str) -> str:
    return _CONTROL.sub(" ", text).strip()


def nearest(name: str, keys: list[str]) -> str | None:
    """The key that is most like a name, if any is at all; "" of a number, like which many are by chance."""
    if numbered(name):
        return ""
    found = get_close_matches(name, keys, 1, 0.6)
    return found[0] if found else None
