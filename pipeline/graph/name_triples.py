"""Triples of names, as people's files have them: with or without a header, tab-separated or as N-Triples.

What is plain is read and said (`notes`); what could be meant in two ways is refused with its line, since a name that is
read wrongly becomes an entity of its own without a word.
"""

import re
from array import array
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.errors import UserError, counted
from pipeline.graph import whole_files
from pipeline.graph.text_files import check_name, first_lines, lines

PARTS = {
    "head": ("head", "h", "subject", "subj", "s", "source", "src", "from", "head_entity", "entity1"),
    "relation": ("relation", "rel", "r", "predicate", "pred", "p", "property", "edge", "edge_type", "relationship"),
    "tail": ("tail", "t", "object", "obj", "o", "target", "dst", "to", "tail_entity", "entity2"),
}
ORDER = ("head", "relation", "tail")
_STATEMENT = re.compile(r"\s*<([^>]*)>\s+<([^>]*)>\s+<([^>]*)>\s*\.\s*")
_LITERAL = re.compile(r'\s*(<[^>]*>|_:\S+)\s+<[^>]*>\s+".*\.\s*')


def plain_name(name: str) -> str:
    """The name without the angle brackets that some files put around URIs: `<uri>` and `uri` are one entity."""
    return name[1:-1] if name.startswith("<") and name.endswith(">") and len(name) > 2 else name


class TripleLines:
    """Reads files of triples; names not met before are added to the two dictionaries of ids.

    `notes` are sentences on what was understood of odd lines, for the user.
    """

    def __init__(self, entities: dict[str, int], relations: dict[str, int]):
        self._entities, self._relations = entities, relations
        self.notes: list[str] = []

    def read(self, path: Path) -> np.ndarray:
        """(n, 3) int64 head, relation, tail.

        Raises UserError, with the line, if a line has not three names, is an N-Triples statement of a literal, or if
        the columns are plainly in another order than head, relation, tail and no header says so.
        """
        quick = self._at_once(path)
        if quick is not None:
            return quick
        rows: list[tuple[str, str, str]] = []
        order, statements, named = (0, 1, 2), 0, False
        for number, line in lines(path):
            if not rows and not statements and not named and (columns := header(line)):
                order, named = columns, True
                self.notes.append(f"{path}, line {number} is a header ({line[:80]!r}) and was left out.")
                continue
            statement = _STATEMENT.fullmatch(line)
            statements += bool(statement)
            parts = statement.groups() if statement else _fields(line, path, number)
            head, relation, tail = (plain_name(check_name(parts[place], path, number)) for place in order)
            rows.append((head, relation, tail))
        if statements:
            self.notes.append(
                f"{path}: {counted(statements, 'line')} of N-Triples; their brackets and ` .` were left out."
            )
        _refuse_other_order(path, len(rows), [set(column) for column in zip(*rows, strict=True)])
        return self._numbered(rows)

    def _at_once(self, path: Path) -> np.ndarray | None:
        """What `read` returns, of a file without an odd line; None of any other."""
        start = first_lines(path)
        order = header(start[0]) if start else None
        columns = start and whole_files.names(path, 1 if order else 0)
        if not columns:
            return None
        if start and order:
            self.notes.append(f"{path}, line 1 is a header ({start[0][:80]!r}) and was left out.")
        (heads, relations, tails) = (columns[place] for place in order or (0, 1, 2))
        _refuse_other_order(path, len(heads[0]), [set(column[1]) for column in (heads, relations, tails)])
        head, tail = self._numbers(self._entities, heads, tails)
        (relation,) = self._numbers(self._relations, relations)
        return np.stack([head, relation, tail], axis=1)

    @staticmethod
    def _numbers(known: dict[str, int], *columns: tuple[np.ndarray, list[str]]) -> list[np.ndarray]:
        """Each column's (n,) int64 ids. New names are added in the order of their places, row by row."""
        first = []
        for at, (places, names) in enumerate(columns):
            row = np.full(len(names), len(places))
            np.minimum.at(row, places, np.arange(len(places)))
            first.append(row * len(columns) + at)
        every = [name for _, names in columns for name in names]
        id_of = np.empty(len(every), dtype=np.int64)
        for place in np.argsort(np.concatenate(first)).tolist():
            id_of[place] = known.setdefault(every[place], len(known))
        ends = np.cumsum([0, *(len(names) for _, names in columns)])
        return [id_of[start:][places] for start, (places, _) in zip(ends, columns, strict=False)]

    def _numbered(self, rows: list[tuple[str, str, str]]) -> np.ndarray:
        entities, relations, found = self._entities, self._relations, array("q")
        for head, relation, tail in rows:
            row = entities.setdefault(head, len(entities)), relations.setdefault(relation, len(relations))
            found.extend((*row, entities.setdefault(tail, len(entities))))
        return np.array(found, dtype=np.int64).reshape(-1, 3)


def header(line: str) -> tuple[int, int, int] | None:
    """Where head, relation and tail stand if the line names them; None if it does not.

    A line of one-letter names (h, r, t; s, p, o) is a header as well; three entities and relations of such names in
    this very order, on the first line, are taken for one.
    """
    words = [word.strip().strip('"').lower() for word in line.split("\t")]
    if len(words) != 3:
        return None
    head, relation, tail = (next((at for at, word in enumerate(words) if word in PARTS[part]), -1) for part in ORDER)
    return (head, relation, tail) if sorted((head, relation, tail)) == [0, 1, 2] else None


def _fields(line: str, path: Path, number: int) -> list[str]:
    if _LITERAL.fullmatch(line):
        raise UserError(
            f"{path}, line {number} says a value, not a fact between two entities: {line[:80]!r}; leave such lines out."
        )
    parts = line.split("\t")
    if len(parts) != 3:
        raise UserError(
            f"{path}, line {number} has {len(parts)} tab-separated fields, not the three of head, relation, tail: "
            f"{line[:80]!r}."
        )
    if line.rstrip().endswith((" .", "\t.", "> .")) or parts[2].strip().endswith(">."):
        raise UserError(
            f"{path}, line {number} ends in ` .` like N-Triples, but its names are not all in angle brackets: "
            f"{line[:80]!r}; write <head> <relation> <tail> . or names between tabs."
        )
    return parts


def other_order(rows: Sequence[tuple[str, str, str]]) -> tuple[tuple[int, int, int], str] | None:
    """Where head, relation and tail stand, and a name that tells it, if relations are plainly not in the middle.

    Entities are heads and tails, so the columns of both have names in common, and that of relations, which are fewer,
    has none with either. None if that does not show.
    """
    return _order_told(len(rows), [set(column) for column in zip(*rows, strict=True)])


def _order_told(rows: int, columns: Sequence[set[str]]) -> tuple[tuple[int, int, int], str] | None:
    if rows < 3:
        return None
    first, second, third = columns
    for places, entities, relations in (((0, 2, 1), (first, second), third), ((1, 0, 2), (second, third), first)):
        shared = entities[0] & entities[1]
        if shared and len(relations) < min(map(len, entities)) and not relations & (entities[0] | entities[1]):
            return places, min(shared)
    return None


def _refuse_other_order(path: Path, rows: int, columns: Sequence[set[str]]) -> None:
    """Refuse a file of so many rows whose relations plainly stand in the first or the last of its columns' names."""
    if found := _order_told(rows, columns):
        places, shared = found
        order = ", ".join(sorted(ORDER, key=lambda part: places[ORDER.index(part)]))
        raise UserError(
            f"{path} seems to have the order {order}: its other columns share names such as {shared[:80]!r}, and this "
            "one none; put the columns in the order head, relation, tail, or name them in a header line."
        )
