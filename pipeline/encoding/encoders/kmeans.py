"""The codebook that families learn from a graph's own pictures."""

from collections.abc import Sequence

import numpy as np

from pipeline.errors import UserError


def centroids(rows_of_pictures: Sequence[np.ndarray], codes: int, seed: int) -> np.ndarray:
    """At most `codes` centroids (C, W) float32 of rows (n, W) a picture, by mini-batch k-means (Sculley 2010), seeded.

    In one thread, so that the same pictures give the same codebook, bit for bit. Raises UserError if there is no
    picture.
    """
    from sklearn.cluster import MiniBatchKMeans
    from threadpoolctl import threadpool_limits

    if not rows_of_pictures:
        raise UserError("There is no picture to learn a codebook from; run the images stage first.")
    rows = np.concatenate(rows_of_pictures)
    codes = min(codes, len(np.unique(rows, axis=0)))
    with threadpool_limits(1):
        means = MiniBatchKMeans(codes, random_state=seed, batch_size=4096, n_init=1, max_iter=20).fit(rows)
    return means.cluster_centers_.astype(np.float32)
