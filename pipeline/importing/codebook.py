"""Tokens made from features, for models that read tokens where a graph has only vectors.

Residual quantisation (as in RVQ; Gray 1984, Juang and Gray 1982): k-means of the vectors gives the first token, k-means
of what is left of them the second, and so on. The embedding of a token is its centroid, so an entity's tokens add up to
its vector but for the last rest.
"""

import json
from dataclasses import dataclass

import numpy as np
from sklearn.cluster import MiniBatchKMeans
from threadpoolctl import threadpool_limits

from pipeline.errors import UserError

CODES = 256  # centroids of a step, at most
_ROWS_A_CODE = 4  # rows of features that a centroid stands for at least


@dataclass(frozen=True)
class Quantised:
    """`tokens` (N, T) int, tokens of step s from s * codes on; `codebook` (T * codes, D) float32; `kept`, the share of
    the vectors' variance that the tokens explain.
    """

    tokens: np.ndarray
    codebook: np.ndarray
    kept: float

    def lists(self, keys: list[str]) -> str:
        """JSON of key -> token ids, as `encoded: released` reads it."""
        return json.dumps(dict(zip(keys, self.tokens.tolist(), strict=True)), ensure_ascii=False)


def quantise(matrix: np.ndarray, tokens: int, *, codes: int = CODES, seed: int = 0) -> Quantised:
    """Tokens of the vectors (N, D), `tokens` of each.

    Raises UserError if there are too few vectors to learn from.
    """
    codes = min(codes, len(matrix) // _ROWS_A_CODE)
    if codes < 2:
        raise UserError(f"{len(matrix)} vectors are too few to learn a codebook from; leave --tokens out.")
    centre = matrix.mean(0, dtype=np.float64).astype(np.float32)
    rest = matrix.astype(np.float32) - centre
    whole = float(np.square(rest, dtype=np.float64).sum())
    found, books = [], []
    for step in range(tokens):
        with threadpool_limits(1):  # the same vectors give the same codebook on any number of cores
            means = MiniBatchKMeans(codes, n_init=1, batch_size=4096, random_state=seed + step).fit(rest)
        found.append(means.labels_.astype(np.int64) + step * codes)
        books.append(means.cluster_centers_.astype(np.float32))
        rest = rest - books[-1][means.labels_]
    books[0] = books[0] + centre
    kept = 1 - float(np.square(rest, dtype=np.float64).sum()) / max(whole, 1e-30)
    return Quantised(np.stack(found, 1), np.concatenate(books), kept)
