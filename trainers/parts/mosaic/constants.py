"""Rules about one entity: r(x, c) ← s(x, d), with c and d fixed (who plays for d is of nation c), or r(x, c) ← s(x, ·).

They are counted like the rules of `rules.py`: support is the number of entities for which both sides hold, confidence
is under partial completeness.
"""

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from trainers.parts.mosaic.facts import Facts, expand
from trainers.parts.mosaic.rules import CAUTION, Hits

FAINT = 0.01  # confidence below which a rule is forgotten
MANY = 20_000_000  # pairs of a property and an answer, of a relation; beyond, entities with the most tell nothing
ANY = -1  # in the place of d: the entity has s to whatever it be


@dataclass(frozen=True)
class Constants:
    """(n,) each, sorted by (relation, property, given): relation(x, answer) ← property(x, given)."""

    relation: np.ndarray
    property: np.ndarray
    given: np.ndarray
    answer: np.ndarray
    support: np.ndarray
    confidence: np.ndarray


def mine(facts: Facts, *, best: int = 20_000, least_support: int = 2) -> Constants:
    """The `best` rules of each relation, by confidence."""
    keys, holds = _properties(facts, least_support)
    parts = [_of_one(facts, relation, keys, holds, best, least_support) for relation in range(facts.relations)]
    number = [len(part[0]) for part in parts]
    which, answer, support, confidence = (np.concatenate(column) for column in zip(*parts, strict=True))
    relation = np.repeat(np.arange(facts.relations), number)
    prop, given = np.divmod(keys[which], facts.entities + 1)
    order = np.lexsort((answer, given, prop, relation))
    rows = (relation, prop, given - 1, answer, support, confidence)
    return Constants(*(np.ascontiguousarray(column[order]) for column in rows))


def _properties(facts: Facts, least_support: int) -> tuple[np.ndarray, sparse.csr_array]:
    """Properties that enough entities have: key (P,) = s · (E + 1) + 1 + d, and which entity has which, (P, E)."""
    edge = facts.relation * (facts.entities + 1) + 1 + facts.target
    group = facts.group_key % facts.relations * (facts.entities + 1)
    source = np.r_[facts.source, facts.group_key // facts.relations]
    keys, of, count = np.unique(np.r_[edge, group], return_inverse=True, return_counts=True)
    kept = count >= least_support
    place = np.cumsum(kept) - 1
    here = kept[of]
    ones = np.ones(here.sum(), dtype=np.float32)
    return keys[kept], sparse.csr_array((ones, (place[of[here]], source[here])), shape=(kept.sum(), facts.entities))


def _of_one(
    facts: Facts, relation: int, keys: np.ndarray, holds: sparse.csr_array, best: int, least_support: int
) -> tuple:
    """One relation's rules: (property's place, answer, support, confidence)."""
    both = (holds @ _told(holds, facts.matrices[relation])).tocoo()
    enough = both.data >= least_support
    which, answer, support = both.row[enough], both.col[enough], both.data[enough]
    pairs = holds @ facts.has[[relation]].toarray()[0]
    confidence = support / (pairs[which] + CAUTION)
    own = keys[which] == relation * (facts.entities + 1) + 1 + answer  # that an answer is given tells nothing new
    kept = np.flatnonzero((confidence >= FAINT) & ~own)
    kept = kept[np.lexsort((answer[kept], which[kept], -confidence[kept]))[:best]]
    return which[kept], answer[kept], support[kept].astype(np.int64), confidence[kept].astype(np.float32)


def _told(holds: sparse.csr_array, answers: sparse.csr_array) -> sparse.csr_array:
    """`answers` (E, E), without the rows of entities that would make more than `MANY` pairs with their properties.

    An entity with n properties and m answers makes n · m pairs; hubs of both alone would fill the memory.
    """
    properties = np.bincount(holds.indices, minlength=holds.shape[1])
    cost = properties * np.diff(answers.indptr)
    if cost.sum() <= MANY:
        return answers
    order = np.argsort(cost, kind="stable")
    small = np.zeros(len(cost), dtype=np.float32)
    small[order[np.cumsum(cost[order]) <= MANY]] = 1
    return sparse.csr_array(answers.multiply(small[:, None]))


def apply(constants: Constants, facts: Facts, known: np.ndarray, relation: np.ndarray) -> Hits:
    """Every answer that some rule gives to the queries (known, relation, ?), (B,) each."""
    span = facts.entities + 1
    keys = (constants.relation * facts.relations + constants.property) * span + constants.given + 1
    query, edge = expand(facts.first_edge[known], facts.first_edge[known + 1])
    asker, group = expand(facts.first_group[known], facts.first_group[known + 1])
    prop = np.r_[facts.relation[edge], facts.group_key[group] % facts.relations]
    given = np.r_[facts.target[edge], np.full(len(group), ANY)]
    row = np.r_[query, asker]
    asked = (relation[row] * facts.relations + prop) * span + given + 1
    which, rule = expand(np.searchsorted(keys, asked, "left"), np.searchsorted(keys, asked, "right"))
    row, answer = row[which], constants.answer[rule]
    new = (prop[which] != relation[row]) | (given[which] != answer)  # runs of earlier versions hold such rules
    return Hits(row[new], answer[new], rule[new], constants.confidence[rule[new]])
