"""The MRR of queries with and without an entity that is two things."""

import numpy as np
import pytest

from benchmarks.fused import with_and_without


def test_a_query_counts_by_either_end():
    triples = np.array([[7, 0, 1], [1, 7, 2], [3, 0, 7], [3, 0, 4]])  # relation 7 is no entity
    found = with_and_without(triples, np.array([1.0, 2.0, 4.0, 10.0]), {7})
    assert found["with"] == (pytest.approx((1 + 1 / 4) / 2), 2)
    assert found["without"] == (pytest.approx((1 / 2 + 1 / 10) / 2), 2)
    assert found["all"][1] == 4
    assert np.isnan(with_and_without(triples, np.ones(4), set())["with"][0])
