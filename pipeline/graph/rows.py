"""Rows of ids as sets: each row becomes one number, since numbers are sorted many times faster than rows."""

from collections.abc import Sequence

import numpy as np


def keys(rows: np.ndarray, bounds: Sequence[int]) -> np.ndarray:
    """(n,) int64: one number for each of `rows` (n, k), equal for equal rows and ordered as the rows are.

    Column j holds whole numbers from 0 to below `bounds[j]`. Raises ValueError if the numbers do not fit in 63 bits.
    """
    if not fits(bounds):
        raise ValueError(f"columns below {tuple(bounds)} do not fit one number of 63 bits")
    found = np.zeros(len(rows), dtype=np.int64)
    for column, bound in enumerate(bounds):
        found *= bound
        found += rows[:, column]
    return found


def fits(bounds: Sequence[int]) -> bool:
    """Whether rows with columns below `bounds` can be one number each."""
    product = 1
    for bound in bounds:
        product *= max(int(bound), 1)
    return product < 1 << 63


def bounds_of(*tables: np.ndarray) -> list[int]:
    """What each column of all these tables (n, k) stays below."""
    width = tables[0].shape[1]
    return [max((int(table[:, j].max()) + 1 for table in tables if len(table)), default=1) for j in range(width)]


def distinct(rows: np.ndarray) -> np.ndarray:
    """The rows (n, k) without repetitions, each where it first stood."""
    bounds = bounds_of(rows)
    if not fits(bounds):
        _, first = np.unique(rows, axis=0, return_index=True)
        return rows[np.sort(first)]
    numbers = keys(rows, bounds)
    again = np.flatnonzero(repeated(rows))  # few: only these are sorted with their places
    if not len(again):
        return rows
    order = again[np.argsort(numbers[again], kind="stable")]
    stays = np.ones(len(rows), dtype=bool)
    stays[order[1:][numbers[order[1:]] == numbers[order[:-1]]]] = False
    return rows[stays]


def ordered(rows: np.ndarray) -> np.ndarray:
    """The rows (n, k) without repetitions, in ascending order."""
    bounds = bounds_of(rows)
    if not fits(bounds):
        return np.unique(rows, axis=0)
    rest = _once(ascending(keys(rows, bounds)))
    if len(rest) == len(rows) and len(rows) and _rises(keys(rows, bounds)):
        return rows
    columns = []
    for bound in reversed(bounds):
        rest, column = np.divmod(rest, bound)
        columns.append(column)
    return np.stack(columns[::-1], axis=1)


def repeated(rows: np.ndarray) -> np.ndarray:
    """(n,) bool: which of `rows` (n, k) stand there more than once."""
    bounds = bounds_of(rows)
    if not fits(bounds):
        _, same, count = np.unique(rows, axis=0, return_inverse=True, return_counts=True)
        return count[same.reshape(-1)] > 1
    numbers = keys(rows, bounds)
    there = ascending(numbers)
    return among(numbers, there[1:][there[1:] == there[:-1]])


def within(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(n,) bool: which of `rows` (n, k) stand among `others` (m, k)."""
    bounds = bounds_of(rows, others)
    if fits(bounds):
        return among(keys(rows, bounds), ascending(keys(others, bounds)))
    _, same = np.unique(np.concatenate([others, rows]), axis=0, return_inverse=True)
    same = same.reshape(-1)
    return np.isin(same[len(others) :], same[: len(others)])


def among(numbers: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(n,) bool: which of `numbers` (n,) stand among `others` (m,), which ascend."""
    if not len(others):
        return np.zeros(len(numbers), dtype=bool)
    place = np.searchsorted(others, numbers)
    return others[np.minimum(place, len(others) - 1, out=place)] == numbers


def ascending(numbers: np.ndarray) -> np.ndarray:
    """The numbers in order; themselves if they are."""
    return numbers if _rises(numbers) else np.sort(numbers)


def _rises(numbers: np.ndarray) -> bool:
    return bool((numbers[1:] >= numbers[:-1]).all())


def _once(numbers: np.ndarray) -> np.ndarray:
    """Ascending numbers without repetitions. (numpy's own `unique` hashes, and takes ten times as long.)"""
    first = np.ones(len(numbers), dtype=bool)
    np.not_equal(numbers[1:], numbers[:-1], out=first[1:])
    return numbers if first.all() else numbers[first]
