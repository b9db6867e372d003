"""Rows of a feature store that follow from their number."""

import numpy as np

from pipeline.encoding.store import KEY, key_of

FINGERPRINT = {"family": "none", "weights": "0" * 64}


def rows(first: int, last: int) -> tuple[list[bytes], list[np.ndarray], np.ndarray, np.ndarray]:
    """Rows that follow from their number: key, tokens, feature, count."""
    numbers = range(first, last)
    return (
        [key_of(str(n)) for n in numbers],
        [np.arange(n % 5, dtype=np.int32) for n in numbers],
        np.array([[n, -n, 0.5] for n in numbers], dtype=np.float32),
        np.array([n % 7 for n in numbers], dtype=np.int32),
    )


def keys(first: int, last: int) -> np.ndarray:
    return np.array([key_of(str(n)) for n in range(first, last)], dtype=KEY)
