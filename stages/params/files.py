"""Files of YAML as plain values, with the line of each key for those who must say where something is wrong."""

import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipeline.errors import UserError
from pipeline.settings import Misfit

_MOST_VALUES = 100_000  # of one file with its aliases written out; the project's own have some hundred
_MOST_BITS = 63  # of a whole number: what torch, Arrow and JSON's readers take


class File:
    """One file of keys. `values` is plain Python; `line(key)` says where a key stands.

    Raises UserError if it is not there, is no YAML, or stands for more than any memory holds.
    """

    def __init__(self, path: Path):
        self.path = path
        self._text = _text(path)
        self.values = _values(path, self._text)
        for node in _walk(path, self.values):
            if isinstance(node.value, int) and node.value.bit_length() > _MOST_BITS:
                way = node.way()
                said = "this number has more digits than any key takes; put it in quotes if it is a text, or shorten it"
                raise self.refusal(way, f"{'.'.join(map(str, way))}: {said}.")

    @functools.cached_property
    def _lines(self) -> object:
        """The same tree with the lines in it; slow to read, and needed only when something is wrong."""
        return YAML(typ="rt").load(self._text)

    def line(self, key: Sequence[str | int]) -> int:
        """The line (from 1) on which a key stands; that of its nearest enclosing key if it stands nowhere."""
        line, lines = 1, self._lines
        for part in key:
            try:
                position = lines.lc.item(part) if isinstance(part, int) else lines.lc.key(part)  # type: ignore[attr-defined]
                line, lines = position[0] + 1, lines[part]  # type: ignore[index]
            except (KeyError, IndexError, AttributeError, TypeError):
                break
        return line

    def refusal(self, key: Sequence[str | int], said: str) -> UserError:
        """What is wrong, and where."""
        return UserError(f"{self.path}, line {self.line(key)}: {said}")

    def misfit(self, found: Misfit, block: str = "") -> UserError:
        """The same of a value that does not fit, in `block` if that is given."""
        return self.refusal((block, *found.loc) if block else found.loc, found.said(block))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UserError(f"{path} is not there; run from the project's folder.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: this is no YAML ({error.reason}).") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}).") from error


def _values(path: Path, text: str) -> dict:
    try:
        # pure: libyaml, which is taken where it is installed, crashes on keys that are nested too deep
        values = YAML(typ="safe", pure=True).load(text)
    except RecursionError as error:
        raise UserError(f"{path} nests its keys too deep to be read; take the project's own and edit it.") from error
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise UserError(f"{path}{where}: this is no YAML ({_problem(error)}).") from error
    except (ValueError, OverflowError) as error:  # a number or a date that Python cannot hold
        raise UserError(f"{path}{_unreadable(text)}: a value that cannot be read ({_problem(error)}).") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} holds no keys; take the project's own and edit it.")
    return values


def _unreadable(text: str) -> str:
    """Where the number stands that has more digits than Python turns into one."""
    for number, line in enumerate(text.splitlines(), 1):
        if re.search(r"\d{4000}", line.replace("_", "")):
            return f", line {number}"
    return ""


def _problem(error: Exception) -> str:
    """What the reader of YAML says, on one line."""
    return " ".join(str(getattr(error, "problem", None) or error).split())[:200]


@dataclass(frozen=True)
class _Node:
    """A value, and how it is reached."""

    value: object
    key: str | int = ""
    parent: "_Node | None" = None

    def way(self) -> tuple[str | int, ...]:
        found: list[str | int] = []
        node = self
        while node.parent is not None:
            found.append(node.key)
            node = node.parent
        return tuple(reversed(found))


def _walk(path: Path, values: object) -> Iterator[_Node]:
    """Every value. A few lines of aliases can stand for more values than any memory holds, or for endlessly many."""
    waiting, seen = [_Node(values)], 0
    while waiting:
        node = waiting.pop()
        seen += 1
        if seen > _MOST_VALUES:
            raise UserError(f"{path} stands for over {_MOST_VALUES:,} values; write out what its aliases (*) repeat.")
        yield node
        one = node.value
        inner = one.items() if isinstance(one, dict) else enumerate(one) if isinstance(one, list) else ()
        waiting.extend(_Node(value, key, node) for key, value in inner)
