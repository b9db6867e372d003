"""Rules of one and two steps, mined from the training facts: r(x, y) ← s(x, y) and r(x, y) ← s(x, z), u(z, y).

Relations are read in both directions, so that one step covers inverse, symmetric and equivalent relations. A rule's
support is the number of r's facts that its body reaches; its confidence is counted under partial completeness (AMIE,
Galárraga et al. 2013, section 4): among the pairs (x, y) of the body, only those count against it whose x has some r.
"""

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from pipeline.graph.rows import distinct
from trainers.parts.mosaic.facts import Facts, expand

CAUTION = 5  # pairs that every rule is taken to have got wrong, so that few lucky ones do not make it certain
MANY = 2_000_000  # groundings of a body; beyond, it is counted by its paths instead of its pairs
CHUNK = 1 << 15  # facts whose paths are held at a time
QUERIES = 256  # queries whose paths are held at a time
BODIES = 2048  # bodies counted at a time


@dataclass(frozen=True)
class Rules:
    """(n,) each, sorted by relation and then by falling confidence. `second` is −1 in rules of one step."""

    relation: np.ndarray
    first: np.ndarray
    second: np.ndarray
    support: np.ndarray
    confidence: np.ndarray  # float32, above 0 and below 1

    def of(self, relation: int) -> slice:
        """Where the rules of one relation stand."""
        return slice(*np.searchsorted(self.relation, [relation, relation + 1]))


def mine(facts: Facts, *, best: int = 400, least_support: int = 2) -> Rules:
    """The `best` rules of each relation, by confidence."""
    bodies, count = _supported(facts)
    kept = count >= least_support
    relation, body, support = bodies[kept, 0], bodies[kept, 1], count[kept]
    pairs = _pairs_with_the_relation(facts, relation, body)
    confidence = (support / (pairs + CAUTION)).astype(np.float32)
    order = np.lexsort((body, -support, -confidence, relation))
    start = np.searchsorted(relation[order], np.arange(facts.relations))
    order = order[np.arange(len(order)) - start[relation[order]] < best]
    first, second = np.divmod(body[order], facts.relations + 1)
    return Rules(relation[order], first, second - 1, support[order], confidence[order])


def _supported(facts: Facts) -> tuple[np.ndarray, np.ndarray]:
    """(n, 2) relation and body, (n,) facts that it reaches of the relation; a body is first · (2R + 1) + 1 + second."""
    bodies = facts.relations * (facts.relations + 1)
    numbers, counts = [], []
    for start in range(0, len(facts.source), CHUNK):
        edges = np.arange(start, min(start + CHUNK, len(facts.source)))
        rows = distinct(np.concatenate([_one_step(facts, edges), _two_steps(facts, edges)]))  # each counts once
        number, count = np.unique(facts.relation[rows[:, 0]] * bodies + rows[:, 1], return_counts=True)
        numbers.append(number)
        counts.append(count)
    number, of = np.unique(np.concatenate(numbers), return_inverse=True)
    return np.stack(np.divmod(number, bodies), 1), np.bincount(of, weights=np.concatenate(counts)).astype(np.int64)


def _one_step(facts: Facts, edges: np.ndarray) -> np.ndarray:
    """(m, 2) edge and body: other relations that lead where the edge leads."""
    which, relation = facts.between(facts.source[edges], facts.target[edges])
    other = relation != facts.relation[edges][which]
    return np.stack([edges[which[other]], relation[other] * (facts.relations + 1)], 1)


def _two_steps(facts: Facts, edges: np.ndarray) -> np.ndarray:
    """(m, 2) edge and body: two steps that lead where the edge leads, neither of which is the edge itself.

    They are found from the end with fewer edges: a step away from it, and the pair that is left is looked up.
    """
    source, target = facts.source[edges], facts.target[edges]
    turned = facts.degree[target] < facts.degree[source]
    near, far = np.where(turned, target, source), np.where(turned, source, target)
    which, step = expand(facts.first_edge[near], facts.first_edge[near + 1])
    between = facts.target[step]
    # Ways through one of the edge's own ends use the edge itself, or a loop.
    aside = (between != source[which]) & (between != target[which])
    which, step = which[aside], step[aside]
    again, other = facts.between(facts.target[step], far[which])
    which, one = which[again], facts.relation[step[again]]
    first = np.where(turned[which], facts.back(other), one)
    second = np.where(turned[which], facts.back(one), other)
    return np.stack([edges[which], first * (facts.relations + 1) + 1 + second], 1)


def _pairs_with_the_relation(facts: Facts, relation: np.ndarray, body: np.ndarray) -> np.ndarray:
    """(n,) how many pairs (x, y) each body has whose x has some fact of the relation."""
    distinct, of = np.unique(body, return_inverse=True)
    has = facts.has
    pairs = np.empty(len(body))
    for start in range(0, len(distinct), BODIES):
        ground = sparse.vstack([_grounded(facts, one) for one in distinct[start : start + BODIES]])
        counted = (has @ ground.T).toarray()
        here = (of >= start) & (of < start + BODIES)
        pairs[here] = counted[relation[here], of[here] - start]
    return pairs


def _grounded(facts: Facts, body: int) -> sparse.csr_array:
    """(1, E): how many y the body reaches from each x."""
    first, second = divmod(int(body), facts.relations + 1)
    step = facts.matrices[first]
    if second == 0:
        count = np.diff(step.indptr)
    else:
        then = facts.matrices[second - 1]
        count = step @ np.diff(then.indptr).astype(np.float32)
        if count.sum() <= MANY:
            count = np.diff((step @ then).indptr)
    return sparse.csr_array(count[None].astype(np.float32))


@dataclass(frozen=True)
class Hits:
    """What speaks for answers: a query's `row` (n,) in a block, its `answer` (n,), the `rule` (n,), how surely (n,)."""

    row: np.ndarray
    answer: np.ndarray
    rule: np.ndarray
    confidence: np.ndarray

    def noisy_or(self, rows: int, entities: int) -> sparse.csr_array:
        """(rows, E): 1 − Π (1 − confidence) over the rules that speak for an answer."""
        doubt = sparse.csr_array((-np.log1p(-self.confidence), (self.row, self.answer)), shape=(rows, entities))
        doubt.data = -np.expm1(-doubt.data)
        return doubt

    def best(self, rows: int, entities: int) -> sparse.csr_array:
        """(rows, E): the confidence of the surest rule alone."""
        order = np.lexsort((-self.confidence, self.answer, self.row))
        row, answer = self.row[order], self.answer[order]
        first = np.flatnonzero(np.diff(row * entities + answer, prepend=-1))
        surest = self.confidence[order][first]
        return sparse.csr_array((surest, (row[first], answer[first])), shape=(rows, entities))


def apply(rules: Rules, facts: Facts, known: np.ndarray, relation: np.ndarray) -> Hits:
    """Every answer that some rule gives to the queries (known, relation, ?), (B,) each; a rule speaks once for each."""
    parts = []
    for one in np.unique(relation):
        rows, mine = np.flatnonzero(relation == one), rules.of(int(one))
        table = np.full((facts.relations, facts.relations + 1), -1, dtype=np.int32)
        table[rules.first[mine], rules.second[mine] + 1] = np.arange(mine.start, mine.stop)
        for start in range(0, len(rows), QUERIES):
            here = rows[start : start + QUERIES]
            query, rule, answer = _reached(table, facts, known[here])
            parts.append(np.stack([here[query], answer, rule]))
    row, answer, rule = np.concatenate(parts, axis=1) if parts else np.empty((3, 0), dtype=np.int64)
    return Hits(row, answer, rule, rules.confidence[rule])


def _reached(table: np.ndarray, facts: Facts, known: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distinct (query, rule, answer) of the queries about `known` (B,), by the rules in `table` (2R, 2R + 1)."""
    query, group = expand(facts.first_group[known], facts.first_group[known + 1])
    first = facts.group_key[group] % facts.relations
    useful = np.any(table >= 0, axis=1)[first]
    query, group, first = query[useful], group[useful], first[useful]
    step, edge = expand(facts.group_start[group], facts.group_start[group + 1])
    query, first, middle = query[step], first[step], facts.target[edge]
    rule = table[first, 0]
    one = (query[rule >= 0], rule[rule >= 0], middle[rule >= 0])
    # Second steps are looked at by group, so that an entity of thousands of neighbours costs as much as its relations.
    then, group = expand(facts.first_group[middle], facts.first_group[middle + 1])
    rule = table[first[then], facts.group_key[group] % facts.relations + 1]
    meant = rule >= 0
    query, rule, group = query[then[meant]], rule[meant], group[meant]
    last, edge = expand(facts.group_start[group], facts.group_start[group + 1])
    two = (query[last], rule[last], facts.target[edge])
    query, rule, answer = (np.concatenate(both).astype(np.int64) for both in zip(one, two, strict=True))
    rules = int(table.max(initial=0)) + 1
    key = np.unique((query * rules + rule) * facts.entities + answer)
    query, rule = np.divmod(key // facts.entities, rules)
    return query, rule, key % facts.entities
