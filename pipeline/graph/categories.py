"""The category of a relation: how many heads and tails its queries have."""

import numpy as np

from pipeline.graph.rows import ordered
from pipeline.graph.vocabulary import UNSEEN


def categories(train: np.ndarray, relations: int, threshold: float = 1.5) -> list[str]:
    """The category of each relation, counted on the distinct rows of `train` (n, 3).

    A side is N if a query has on average `threshold` answers there or more (Bordes et al. 2013, section 4.2: "below
    1.5" is 1). A relation without a triple in train is "unseen".
    """
    rows = ordered(train)
    facts = np.bincount(rows[:, 1], minlength=relations)
    heads = np.bincount(ordered(rows[:, :2])[:, 1], minlength=relations)
    tails = np.bincount(ordered(rows[:, 1:])[:, 0], minlength=relations)
    found = []
    for count, head, tail in zip(facts.tolist(), heads.tolist(), tails.tolist(), strict=True):
        if not count:
            found.append(UNSEEN)
            continue
        left = "N" if count / tail >= threshold else "1"  # heads per (relation, tail)
        right = "N" if count / head >= threshold else "1"  # tails per (head, relation)
        found.append(f"{left}-{right}")
    return found
