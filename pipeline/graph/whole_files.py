"""Whole files of triples at once, where no line of them is odd: millions of lines in seconds.

What is read here is exactly what the readers that go line by line make of the same file; at the first sign of anything
else these functions return None, and those readers read it, and say which line is wrong.
"""

import mmap
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import csv

from pipeline.graph.text_files import CONTROL, LONGEST_NAME, first_lines

_LONE_RETURN = re.compile(rb"\r(?!\n)")
_NOT_IDS = re.compile(rb"[^0-9 \t\n]")
_BLOCK = 1 << 24  # bytes that are parsed at a time


def ids(path: Path, columns: int) -> np.ndarray | None:
    """(n, columns) int64 of the whole numbers on the lines after the first, or None: the file is no plain table."""
    start = first_lines(path)
    if start is None or _found(path, _NOT_IDS):
        return None
    _, second = start
    table = _table(path, "\t" if "\t" in second else " ", {str(column): pa.int64() for column in range(columns)}, 1)
    return None if table is None else np.stack([column.to_numpy() for column in table.columns], axis=1)


def names(path: Path, skip: int) -> list[tuple[np.ndarray, list[str]]] | None:
    """Three columns of names after `skip` lines, each as (n,) places in a list of its distinct names; or None.

    None unless lines are three names between tabs, none of them empty, bracketed, quoted or with blanks around it.
    """
    if first_lines(path) is None or _found(path, _LONE_RETURN):
        return None
    kind = pa.dictionary(pa.int32(), pa.string())
    table = _table(path, "\t", {str(column): kind for column in range(3)}, skip)
    if table is None:
        return None
    found = []
    for column in table.unify_dictionaries().columns:
        whole = column.combine_chunks()
        whole = whole.chunk(0) if isinstance(whole, pa.ChunkedArray) else whole
        each = whole.dictionary.to_pylist()
        if not all(map(_plain, each)):
            return None
        found.append((whole.indices.to_numpy(), each))
    return found


def _plain(name: str) -> bool:
    """Whether the name stands in the file as it stands in the graph."""
    if not name or len(name) > LONGEST_NAME // 4 or name[0].isspace() or name[-1].isspace() or CONTROL.search(name):
        return False
    return not (name == "." or name.endswith(" .") or "<" in name or ">" in name or '"' in name)


def _table(path: Path, delimiter: str, types: dict[str, pa.DataType], skip: int) -> pa.Table | None:
    try:
        return csv.read_csv(
            path,
            csv.ReadOptions(column_names=list(types), skip_rows=skip, block_size=_BLOCK),
            csv.ParseOptions(delimiter=delimiter, quote_char=False, double_quote=False),
            csv.ConvertOptions(column_types=types, null_values=[], strings_can_be_null=False),
        )
    except (pa.ArrowInvalid, UnicodeDecodeError):
        return None  # the readers that go line by line say what and where


def _found(path: Path, what: re.Pattern) -> bool:
    with open(path, "rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return what.search(content) is not None
