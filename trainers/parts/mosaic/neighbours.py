"""What entities like the known one answer; likeness is the cosine of their vectors in a view (text, picture, …)."""

from functools import cached_property

import numpy as np
from scipy import sparse

from trainers.parts.mosaic.facts import Facts

SHARPNESS = 15.0  # a neighbour of cosine c counts exp(15 (c − 1))
BLOCK = 1024  # rows of cosines at a time


class Neighbours:
    """One view: a unit vector for each entity that has it, a row of zeros for each that has not."""

    def __init__(self, vectors: np.ndarray | sparse.csr_array, facts: Facts):
        """`vectors` (E, D), dense or sparse, each row of length 1 or 0."""
        self.vectors, self.facts = vectors, facts
        self.present = np.asarray(abs(vectors).sum(1)).ravel() > 0

    def cosine(self, entities: np.ndarray) -> np.ndarray:
        """(B, E) float32: cosine with every entity; 0 where one of both lacks the view."""
        found = self.vectors[entities] @ self.vectors.T
        return np.asarray(found.toarray() if sparse.issparse(found) else found, dtype=np.float32)

    def weights(self, cosine: np.ndarray, entities: np.ndarray) -> np.ndarray:
        """(B, E): what every entity counts as a neighbour of each; nothing where one of both lacks the view."""
        found = np.exp(SHARPNESS * (cosine - 1)) * self.present
        found *= self.present[entities][:, None]
        found[np.arange(len(entities)), entities] = 0
        return found

    def answers(self, cosine: np.ndarray, known: np.ndarray, relation: np.ndarray) -> np.ndarray:
        """(B, E): the share of the neighbours that have the relation, by weight, whose answer is this entity."""
        out = np.zeros(cosine.shape, dtype=np.float32)
        weights = self.weights(cosine, known)
        for one in np.unique(relation):
            rows = np.flatnonzero(relation == one)
            askers = self.facts.askers[one]
            near = weights[np.ix_(rows, askers)]
            near /= near.sum(1, keepdims=True) + 1e-6
            out[rows] = near @ self.facts.matrices[one][askers]
        return out

    @cached_property
    def range(self) -> np.ndarray:
        """(2R, E) float32: how like each entity is to the answers of each relation: the log of its mean weight."""
        out = np.zeros((self.facts.relations, len(self.present)), dtype=np.float32)
        answered = self.facts.answered.minimum(1)
        for start in range(0, len(self.present), BLOCK):
            entities = np.arange(start, min(start + BLOCK, len(self.present)))
            out[:, entities] = answered @ self.weights(self.cosine(entities), entities).T
        have = answered @ self.present.astype(np.float32)
        out = np.log(out / np.maximum(have, 1)[:, None] + 1e-5) - np.log(1e-5)
        return (out * self.present).astype(np.float32)
