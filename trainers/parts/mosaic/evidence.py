"""All that speaks for an entity as an answer, beside the scorers: a column a kind of evidence, for a block of queries.

A column is (B, E) float32, 0 where there is nothing to say. Queries are (known, relation, ?) with 2R relations (see
`facts.py`).
"""

from collections.abc import Iterator

import numpy as np
from scipy import sparse

from trainers.parts.mosaic import constants, rules
from trainers.parts.mosaic.facts import Facts
from trainers.parts.mosaic.neighbours import Neighbours

WALKS = (3, 5)


class Evidence:
    """The evidence of one graph. `views` are the entities' unit vectors (E, D), by name; a row of zeros is missing."""

    def __init__(
        self,
        facts: Facts,
        mined: rules.Rules | None,
        fixed: constants.Constants | None,
        views: dict[str, np.ndarray | sparse.csr_array],
    ):
        self.facts, self.rules, self.constants = facts, mined, fixed
        self.views = {name: Neighbours(vectors, facts) for name, vectors in views.items()}
        self._degree = np.log1p(facts.degree).astype(np.float32)
        self._answered = facts.answered.log1p()

    @property
    def names(self) -> list[str]:
        """The columns, in order."""
        structure = ["rules", "rules_root", "rules_best", "constants", "constants_root", "constants_best"]
        structure += [f"{kind}_{steps}" for steps in WALKS for kind in ("walks", "walks_ending")]
        structure += ["answered", "degree"]
        own = ("neighbours", "neighbours_root", "range", "likeness")
        return (structure if self.rules and self.constants else []) + [
            f"{view}_{kind}" for view in self.views for kind in own
        ]

    def columns(self, known: np.ndarray, relation: np.ndarray) -> Iterator[np.ndarray]:
        """The columns of queries (B,), one after the other."""
        if self.rules and self.constants:
            yield from self._from_hits(rules.apply(self.rules, self.facts, known, relation), len(known))
            yield from self._from_hits(constants.apply(self.constants, self.facts, known, relation), len(known))
            yield from self._walks(known, relation)
            yield self._answered[relation].toarray()
            yield np.broadcast_to(self._degree, (len(known), len(self._degree)))
        for view in self.views.values():
            cosine = view.cosine(known)
            shares = view.answers(cosine, known, relation)
            yield shares
            yield np.sqrt(shares)
            yield view.range[relation]
            yield cosine

    def _from_hits(self, hits: rules.Hits, rows: int) -> Iterator[np.ndarray]:
        either = hits.noisy_or(rows, self.facts.entities).toarray()
        yield either
        yield np.sqrt(either)
        yield np.sqrt(hits.best(rows, self.facts.entities).toarray())

    def _walks(self, known: np.ndarray, relation: np.ndarray) -> Iterator[np.ndarray]:
        """log (1 + walks of so many steps), and of those whose last step is the relation that is asked for."""
        links = self.facts.links
        walks = links[known].toarray()
        taken = 1
        for steps in WALKS:
            while taken < steps - 1:
                walks, taken = walks @ links, taken + 1
            ending = np.empty_like(walks)
            for one in np.unique(relation):
                rows = relation == one
                ending[rows] = walks[rows] @ self.facts.matrices[one]
            walks, taken = walks @ links, taken + 1
            yield np.log1p(walks)
            yield np.log1p(ending)
