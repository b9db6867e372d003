"""Triples from tables (TSV, CSV, Parquet, DataFrames), from RDF, and from folders in the two forms `ingest` reads."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyoxigraph

from pipeline.errors import UserError, counted
from pipeline.graph.formats import read_names, read_openke
from pipeline.graph.name_triples import ORDER, PARTS, other_order, plain_name
from pipeline.graph.text_files import check_name
from pipeline.importing.delimited import FIND_OUT, Guess, Table, read_table

Triple = tuple[str, str, str]
_RDF = {".nt": pyoxigraph.RdfFormat.N_TRIPLES, ".ttl": pyoxigraph.RdfFormat.TURTLE}
_ENOUGH = 20  # rows from which a first line whose names never come again is a header


@dataclass
class Triples:
    """`splits` has train, dev and test, or train alone; `entities` are further ones that no triple need hold."""

    splits: dict[str, list[Triple]]
    entities: list[str] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def read_triples(source: object, guess: Guess = FIND_OUT) -> Triples:
    """Read one file, one folder (OpenKE's five files, or files of names) or one pandas DataFrame.

    Raises UserError, with the line, if something in it cannot be used.
    """
    if isinstance(source, str | Path):
        path = Path(source)
        if path.is_dir():
            return _of_folder(path)
        if not path.exists():
            raise UserError(f"{path} is not there; correct the path.")
        if kind := _RDF.get(path.suffix.lower()):
            return _of_rdf(path, kind)
        if _looks_like_ntriples(path):
            return _of_rdf(path, _RDF[".nt"])
    return _of_table(read_table(source, guess), guess)


# ------------------------------------------------------------------------------------------------ folders, RDF
def _of_folder(path: Path) -> Triples:
    openke = (path / "entity2id.txt").exists()
    graph = read_openke(path) if openke else read_names(path)
    splits = {
        split: [(graph.entity_keys[h], graph.relation_keys[r], graph.entity_keys[t]) for h, r, t in rows.tolist()]
        for split, rows in graph.splits.items()
    }
    form = "OpenKE's form (ids, head tail relation)" if openke else "names in train, valid, test or triples"
    labels = dict(zip(graph.entity_keys, graph.entity_labels, strict=True))
    return Triples(splits, graph.entity_keys, labels, [f"{path}: a folder of {form}.", *graph.notes])


def _first_line(path: Path) -> bytes:
    with open(path, "rb") as handle:
        start = handle.read(4000).lstrip(b"\xef\xbb\xbf \r\n")
    return start.split(b"\n", 1)[0].strip()


def _looks_like_ntriples(path: Path) -> bool:
    first = _first_line(path)
    return first.startswith((b"<", b"_:")) and first.endswith(b".") and b">" in first


def _of_rdf(path: Path, kind: pyoxigraph.RdfFormat) -> Triples:
    rows: list[Triple] = []
    literals: Counter[str] = Counter()
    # YAGO's files name entities in angle brackets without a scheme, which N-Triples does not allow.
    bare = kind == _RDF[".nt"] and b":" not in _first_line(path)
    try:
        for one in pyoxigraph.parse(path=str(path), format=kind, lenient=bare):
            if isinstance(one.object, pyoxigraph.Literal):
                literals[one.predicate.value] += 1
            else:
                rows.append((_term(one.subject), _term(one.predicate), _term(one.object)))
    except (SyntaxError, ValueError) as error:
        raise UserError(f"{path} is not {kind.name} ({str(error)[:200]}); mend the file.") from error
    notes = [f"{path}: {kind.name}, {counted(len(rows), 'fact')} between entities."]
    if literals:
        most = ", ".join(f"{predicate} ({number:,})" for predicate, number in literals.most_common(3))
        notes.append(f"{path}: {counted(literals.total(), 'literal')} left out, of {most}.")
    return Triples({"train": rows}, notes=notes)


def _term(term: object) -> str:
    """A URI bare, a blank node as `_:name`."""
    return term.value if isinstance(term, pyoxigraph.NamedNode) else str(term)


# ----------------------------------------------------------------------------------------------------- tables
def _of_table(table: Table, guess: Guess) -> Triples:
    rows, notes = list(table.rows), list(table.notes)
    width = len(rows[0][1]) if rows else 0
    names = table.columns
    if names is None and guess.header is not False and rows and (guess.header or _is_header(rows, width)):
        number, names = rows.pop(0)
        notes.append(f"{table.name}, line {number} is a header ({', '.join(names)[:80]}); --header no if it is a fact.")
    places = _places(guess.columns, width, table.name) if guess.columns else _named(names)
    if places is None:
        if width < 3:
            raise UserError(
                f"{table.name} has {counted(width, 'column')}, but a triple is three: head, relation, tail; name the "
                "file that has all three, or say --delimiter if something else parts them."
            )
        if width != 3:
            raise UserError(
                f"{table.name} has {width} columns and no header that names head, relation and tail; say which they "
                "are with --columns, such as --columns head,relation,tail,other."
            )
        found = other_order([(fields[0], fields[1], fields[2]) for _, fields in rows])
        places = found[0] if found else (0, 1, 2)
    order = sorted(ORDER, key=lambda part: places[ORDER.index(part)])
    left_out = f" of {width} columns" if width > 3 else ""
    notes.append(f"{table.name}: columns are {', '.join(order)}{left_out}; --columns if they are not.")
    checked = [
        tuple(plain_name(check_name(fields[place], Path(table.name), number)) for place in places)
        for number, fields in rows
    ]
    return Triples({"train": checked}, notes=notes)  # type: ignore[dict-item]


def _named(names: Sequence[str] | None) -> tuple[int, int, int] | None:
    """Where a header says that head, relation and tail stand; None if it does not name all three."""
    words = [name.strip().lower().replace(" ", "_") for name in names or ()]
    found = tuple(next((at for at, word in enumerate(words) if word in PARTS[part]), -1) for part in ORDER)
    return found if len(set(found)) == 3 and min(found) >= 0 else None  # type: ignore[return-value]


def _places(columns: Sequence[str], width: int, name: str) -> tuple[int, int, int]:
    words = [column.strip().lower() for column in columns]
    if len(words) != width or any(words.count(part) != 1 for part in ORDER):
        raise UserError(
            f"--columns {','.join(columns)} does not fit {name}, which has {width} columns: name each of them once, "
            "head, relation and tail among them."
        )
    return tuple(words.index(part) for part in ORDER)  # type: ignore[return-value]


def _is_header(rows: list[tuple[int, list[str]]], width: int) -> bool:
    """Whether the first line names the columns, or holds three names of which none ever comes again."""
    first = [word.strip() for word in rows[0][1]]
    if _named(first):
        return True
    if width != 3 or len(rows) < _ENOUGH:
        return False
    rest = {word.strip() for _, fields in rows[1:] for word in fields}
    distinct = [len({fields[place] for _, fields in rows[1:]}) for place in range(3)]
    return not rest & set(first) and min(distinct) * 2 <= len(rows)


def joined(parts: Iterable[Triples]) -> Triples:
    """All of them as one, in their order."""
    whole = Triples({})
    for part in parts:
        for split, rows in part.splits.items():
            whole.splits.setdefault(split, []).extend(rows)
        whole.entities += part.entities
        whole.labels |= part.labels
        whole.notes += part.notes
    return whole
