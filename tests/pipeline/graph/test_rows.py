"""Sets of rows by one number each: the same rows as by comparing whole rows."""

import numpy as np
import pytest

from pipeline.graph import rows

WIDE = [3, 2, 5], [1 << 31, 1 << 20, 1 << 31]  # fits one number; does not


def drawn(count: int, bounds: list[int], seed: int) -> np.ndarray:
    """Rows of which many are alike, with one that reaches the bounds."""
    few = np.random.default_rng(seed).integers(0, 3, size=(count, 3)) * (np.array(bounds) // 3)
    few[-1:] = np.array(bounds) - 1
    return few


@pytest.mark.parametrize("bounds", WIDE)
@pytest.mark.parametrize("count", [0, 1, 60])
def test_sets_of_rows_are_what_comparing_rows_gives(count, bounds):
    found, others = drawn(count, bounds, 0), drawn(max(count - 20, 0), bounds, 1)
    told = [tuple(row) for row in found.tolist()]
    assert [tuple(row) for row in rows.distinct(found).tolist()] == list(dict.fromkeys(told))
    assert [tuple(row) for row in rows.ordered(found).tolist()] == sorted(set(told))
    assert [tuple(row) for row in rows.ordered(rows.ordered(found)).tolist()] == sorted(set(told))
    assert rows.within(found, others).tolist() == [row in set(map(tuple, others.tolist())) for row in told]
    assert rows.repeated(found).tolist() == [told.count(row) > 1 for row in told]


def test_rows_that_do_not_fit_one_number_are_refused_as_such():
    assert rows.fits(WIDE[0])
    assert not rows.fits(WIDE[1])
    with pytest.raises(ValueError, match="do not fit"):
        rows.keys(drawn(2, WIDE[1], 0), WIDE[1])
