"""Line by line through the text files of a graph, each refused line named."""

import re
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import UserError

LONGEST_NAME = 2000  # characters; the longest name in DB15K has 120
_LONGEST_LINE = 6 * LONGEST_NAME  # bytes: enough for three names in UTF-8, whatever their script
_MOST_DIGITS = 18
CONTROL = re.compile(r"[\x00-\x1f\x7f]")


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
        raise UserError(f"{path} is not UTF-8 text (line {number}); save it as UTF-8.") from error
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise UserError(f"{path} is not there; correct the path, or run the download.") from error


def first_lines(path: Path) -> tuple[str, str] | None:
    """The first line and the second, if there are such, the first is not blank and both are short; else None."""
    try:
        with open(path, "rb") as handle:
            found = [handle.readline(_LONGEST_LINE + 1) for _ in range(2)]
            first, second = (line.decode() for line in found)
    except (OSError, UnicodeDecodeError):
        return None
    usual = first.strip() and second.strip() and max(map(len, found)) <= _LONGEST_LINE and first[0] != "\ufeff"
    return (first.rstrip("\r\n"), second.rstrip("\r\n")) if usual else None


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
    if CONTROL.search(name):
        raise UserError(f"{path}, line {number} holds a control character within a name; clean the file.")
    return name


def whole_number(text: str) -> int | None:
    """The number that decimal digits name, or None: also for more digits than any count or id of a graph has."""
    return int(text) if text.isdecimal() and len(text) <= _MOST_DIGITS else None


def one_file(folder: Path, *stems: str) -> Path | None:
    """The one file `<stem>.txt` or `<stem>.tsv` in the folder, or None. Raises UserError if there are several."""
    found = [
        folder / f"{stem}{end}" for stem in stems for end in (".txt", ".tsv") if (folder / f"{stem}{end}").exists()
    ]
    if len(found) > 1:
        raise UserError(f"{folder} holds both {found[0].name} and {found[1].name}; keep one of them.")
    return found[0] if found else None
