"""Tables as people's files have them: what parts the fields, quotes, and whether the first line is a header."""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import NO_JSON, UserError
from pipeline.graph.text_files import lines

_LONGEST_LINE = 200_000  # bytes
_DELIMITERS = {"\t": "a tab", ",": "a comma", ";": "a semicolon", "|": "a bar", " ": "a space"}
NAMES = {"tab": "\t", "comma": ",", "semicolon": ";", "bar": "|", "space": " "}


@dataclass(frozen=True)
class Guess:
    """What the user says instead of leaving it to the reader; None: found out.

    `delimiter` is one character or its name (tab, comma, semicolon, bar, space); `header` whether the first line
    is one; `columns` what the columns are in their order (others than those asked for are left out).
    """

    delimiter: str | None = None
    header: bool | None = None
    columns: tuple[str, ...] | None = None


FIND_OUT = Guess()


@dataclass(frozen=True)
class Table:
    """`rows` are (line, fields), all of one length; `columns` their names where the source has such for sure."""

    name: str
    rows: list[tuple[int, list[str]]]
    columns: list[str] | None
    notes: list[str]


def read_table(source: object, guess: Guess = FIND_OUT) -> Table:
    """A table of strings out of a path (text, .parquet, or .json: by key a text or fields, or a list of objects) or a
    pandas DataFrame.

    Raises UserError, with the line, if the fields of a text cannot be told apart or a value is missing.
    """
    if not isinstance(source, str | Path):
        return _of_columns("the DataFrame", {str(name): list(source[name]) for name in source.columns})  # type: ignore
    path = Path(source)
    if path.suffix.lower() in (".parquet", ".pq"):
        return _of_columns(str(path), read_parquet(path).to_pydict())
    if path.suffix.lower() == ".json":
        return _of_json(path)
    return _of_text(path, guess)


def read_parquet(path: Path) -> pa.Table:
    """The table. Raises UserError if the file is missing or no Parquet."""
    try:
        return pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise UserError(
            f"{path} cannot be read as Parquet ({str(error)[:120]}); correct the path or the file."
        ) from error


def _of_json(path: Path) -> Table:
    """Key -> text, key -> fields, or a list of objects, one a row; what is no text or list of texts is left out."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}); correct the path.") from error
    except NO_JSON as error:
        raise UserError(f"{path} is not JSON ({str(error)[:80]}); correct the file.") from error
    if isinstance(value, dict):
        value = [{"key": key, **(one if isinstance(one, dict) else {"text": one})} for key, one in value.items()]
    if not isinstance(value, list) or not value or not all(isinstance(one, dict) for one in value):
        raise UserError(f"{path} holds no table: wanted are texts or fields by key, or a list of objects.")
    names = dict.fromkeys(name for one in value for name, cell in one.items() if isinstance(cell, str | list))
    return _of_columns(str(path), {name: [one.get(name) for one in value] for name in names})


def _of_columns(name: str, columns: Mapping[str, Sequence]) -> Table:
    rows = [
        (number, [_word(value, name, number) for value in values])
        for number, values in enumerate(zip(*columns.values(), strict=True), 1)
    ]
    return Table(name, rows, list(columns), [])


def _word(value: object, name: str, number: int) -> str:
    """A cell as text; an empty one is "", and what is no name or text is refused."""
    if value is None or value != value:
        return ""
    if isinstance(value, list | tuple):
        return " | ".join(map(str, value))
    if isinstance(value, float):
        raise UserError(f"{name}, row {number} holds the number {value} where a name is expected; make it a text.")
    return str(value)


def _of_text(path: Path, guess: Guess) -> Table:
    read = list(lines(path, _LONGEST_LINE))
    if not read:
        raise UserError(f"{path} is empty; name a file that holds rows.")
    delimiter = NAMES.get(guess.delimiter, guess.delimiter) if guess.delimiter else None
    if delimiter is not None and len(delimiter) != 1:
        raise UserError(f"The delimiter {delimiter!r} is not one character; say one, or one of {', '.join(NAMES)}.")
    least = 3 if guess.columns is None else len(guess.columns)
    rows, delimiter, quoted = _fields(path, read, [delimiter] if delimiter else list(_DELIMITERS), least)
    parted = _DELIMITERS.get(delimiter, repr(delimiter))
    said = f"{path}: fields are parted by {parted}" + (", with quotes" if quoted else "")
    return Table(str(path), rows, None, [f"{said} (from line {read[0][0]})."])


def _fields(
    path: Path, read: list[tuple[int, str]], delimiters: list[str], least: int
) -> tuple[list[tuple[int, list[str]]], str, bool]:
    """Rows of one length by the first delimiter that makes such: `least` fields, else two."""
    for wanted in dict.fromkeys((least, 2)):
        for delimiter in delimiters:
            for quoted in (True, False) if any('"' in line for _, line in read) else (False,):
                rows = _split(read, delimiter, quoted)
                enough = rows and len(rows[0][1]) >= wanted and (delimiter != " " or len(rows[0][1]) == wanted)
                if enough and len({len(fields) for _, fields in rows}) == 1:
                    return rows, delimiter, quoted
    raise _uneven(path, read, delimiters)


def _split(read: list[tuple[int, str]], delimiter: str, quoted: bool) -> list[tuple[int, list[str]]]:
    """Fields by line; none if the quotes are not those of CSV."""
    if not quoted:
        return [(number, line.split(delimiter)) for number, line in read]
    reader = csv.reader((f"{line}\n" for _, line in read), delimiter=delimiter, strict=True)
    rows, at = [], 0
    try:
        for fields in reader:
            rows.append((read[at][0], fields))
            at = reader.line_num
    except csv.Error:
        return []
    return rows


def _uneven(path: Path, read: list[tuple[int, str]], delimiters: list[str]) -> UserError:
    """Which line has another number of fields than the first, by the delimiter that fits most lines."""
    delimiter = max(delimiters, key=lambda one: sum(len(line.split(one)) > 1 for _, line in read[:200]))
    first = len(read[0][1].split(delimiter))
    for number, line in read:
        if (here := len(line.split(delimiter))) != first:
            return UserError(
                f"{path}, line {number} has {here} fields where line {read[0][0]} has {first} (parted by "
                f"{_DELIMITERS.get(delimiter, repr(delimiter))}): {line[:80]!r}; mend the line, or say --delimiter."
            )
    return UserError(
        f"{path}, line {read[0][0]} cannot be parted into fields by {_DELIMITERS.get(delimiter, repr(delimiter))}: "
        f"{read[0][1][:80]!r}; say what parts them with --delimiter."
    )
