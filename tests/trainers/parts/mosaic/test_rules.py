"""Rules and constants must be counted as their definitions say: compared with what loops over all facts find."""

from collections import defaultdict

import numpy as np
import pytest

from trainers.parts.mosaic import constants, rules
from trainers.parts.mosaic.facts import Facts

ENTITIES, RELATIONS = 12, 3


def graph(seed: int = 0, facts: int = 60) -> np.ndarray:
    draw = np.random.default_rng(seed)
    columns = [draw.integers(n, size=facts) for n in (ENTITIES, RELATIONS, ENTITIES)]
    triples = np.unique(np.stack(columns, 1), axis=0)
    return triples[triples[:, 0] != triples[:, 2]]  # the ways around loops are left out of what is mined


def both_ways(triples: np.ndarray) -> dict[int, set[tuple[int, int]]]:
    """Relation, from R on the way back -> its pairs."""
    pairs = defaultdict(set)
    for head, relation, tail in triples.tolist():
        pairs[relation].add((head, tail))
        pairs[relation + RELATIONS].add((tail, head))
    return pairs


def steps(pairs: dict, first: int, second: int) -> set[tuple[int, int]]:
    """The pairs that one step connects, or two."""
    if second < 0:
        return pairs[first]
    return {(x, y) for x, z in pairs[first] for w, y in pairs[second] if w == z}


def supports(pairs: dict, relation: int, first: int, second: int) -> set[tuple[int, int]]:
    """Facts of the relation that the body reaches without using the fact itself."""
    found = set()
    for x, y in pairs[relation]:
        if second < 0:
            found |= {(x, y)} if relation != first and (x, y) in pairs[first] else set()
        elif any((z, y) in pairs[second] for w, z in pairs[first] if w == x and z not in (x, y)):
            found.add((x, y))
    return found


@pytest.mark.parametrize("seed", range(3))
def test_rules_have_the_support_and_the_confidence_of_their_definition(seed):
    triples = graph(seed)
    pairs, facts = both_ways(triples), Facts(triples, ENTITIES, RELATIONS)
    mined = rules.mine(facts, best=10_000)
    expected = {}
    for relation in range(2 * RELATIONS):
        askers = {x for x, _ in pairs[relation]}
        for first in range(2 * RELATIONS):
            for second in range(-1, 2 * RELATIONS):
                support = len(supports(pairs, relation, first, second))
                counted = sum(x in askers for x, _ in steps(pairs, first, second))
                if support >= 2:
                    expected[relation, first, second] = support, support / (counted + rules.CAUTION)
    rows = zip(mined.relation, mined.first, mined.second, mined.support, mined.confidence, strict=True)
    found = {(r, a, b): (n, sure) for r, a, b, n, sure in rows}
    assert len(expected) > 20
    assert found.keys() == expected.keys()
    for rule, (support, confidence) in expected.items():
        assert found[rule] == (support, pytest.approx(confidence))


def test_only_the_best_rules_of_a_relation_are_kept():
    facts = Facts(graph(), ENTITIES, RELATIONS)
    every, best = rules.mine(facts, best=10_000), rules.mine(facts, best=3)
    for relation in range(2 * RELATIONS):
        whole, kept = every.confidence[every.of(relation)], best.confidence[best.of(relation)]
        assert kept.tolist() == whole[:3].tolist() == sorted(whole, reverse=True)[:3]


def test_a_rule_speaks_once_for_each_answer_that_it_reaches():
    triples = graph()
    pairs, facts = both_ways(triples), Facts(triples, ENTITIES, RELATIONS)
    mined = rules.mine(facts)
    known, relation = np.repeat(np.arange(ENTITIES), 2 * RELATIONS), np.tile(np.arange(2 * RELATIONS), ENTITIES)
    hits = rules.apply(mined, facts, known, relation)
    found = list(zip(known[hits.row].tolist(), hits.rule.tolist(), hits.answer.tolist(), strict=True))
    expected = {
        (x, rule, y)
        for rule, (first, second) in enumerate(zip(mined.first.tolist(), mined.second.tolist(), strict=True))
        for x, y in steps(pairs, first, second)
    }
    assert len(found) == len(set(found))
    assert set(found) == expected
    assert (relation[hits.row] == mined.relation[hits.rule]).all()
    either, best = (make(len(known), ENTITIES).toarray() for make in (hits.noisy_or, hits.best))
    for row, answer in zip(hits.row[:50], hits.answer[:50], strict=True):
        sure = hits.confidence[(hits.row == row) & (hits.answer == answer)]
        assert either[row, answer] == pytest.approx(1 - np.prod(1 - sure), rel=1e-5)
        assert best[row, answer] == sure.max()


def test_constants_are_counted_and_speak_as_their_definition_says():
    triples = graph()
    pairs, facts = both_ways(triples), Facts(triples, ENTITIES, RELATIONS)
    mined = constants.mine(facts)
    expected = {}
    for relation in range(2 * RELATIONS):
        askers = {x for x, _ in pairs[relation]}
        for prop in range(2 * RELATIONS):
            for given in range(-1, ENTITIES):
                have = {x for x, d in pairs[prop] if given in (-1, d)}
                for answer in range(ENTITIES):
                    support = sum((x, answer) in pairs[relation] for x in have)
                    confidence = support / (len(have & askers) + rules.CAUTION)
                    new = (relation, answer) != (prop, given)  # that an answer is given tells nothing about itself
                    if support >= 2 and confidence >= constants.FAINT and new:
                        expected[relation, prop, given, answer] = support, confidence
    columns = (mined.relation, mined.property, mined.given, mined.answer)
    keys = list(zip(*(column.tolist() for column in columns), strict=True))
    assert keys == sorted(expected)
    for key, support, confidence in zip(keys, mined.support, mined.confidence, strict=True):
        assert expected[key] == (support, pytest.approx(confidence))

    known, relation = np.repeat(np.arange(ENTITIES), 2 * RELATIONS), np.tile(np.arange(2 * RELATIONS), ENTITIES)
    hits = constants.apply(mined, facts, known, relation)
    found = set(zip(known[hits.row].tolist(), hits.rule.tolist(), strict=True))
    speaks = {
        (x, rule)
        for rule, (_, prop, given, _) in enumerate(keys)
        for x in range(ENTITIES)
        if any(y == x and given in (-1, d) for y, d in pairs[prop])
    }
    assert found == speaks
    assert (mined.answer[hits.rule] == hits.answer).all()


def test_a_rule_about_itself_takes_no_other_s_place():
    """20 of 25 have the answer 30, 18 of these a property beside it: surer than that would be the answer itself."""
    answers = [[person, 0, 30 if person < 20 else 31] for person in range(25)]
    mined = constants.mine(Facts(np.array(answers + [[person, 1, 32] for person in range(18)]), 33, 2), best=1)
    rule = np.flatnonzero(mined.relation == 0)
    assert mined.property[rule].tolist() == [1]
    assert mined.answer[rule].tolist() == [30]
    assert mined.confidence[rule].tolist() == [pytest.approx(18 / (18 + rules.CAUTION))]


def test_what_hubs_would_fill_the_memory_with_is_left_out(monkeypatch):
    """Two hubs of 300 common leaves tell 90,000 pairs; five people with a nation and a club tell a dozen."""
    leaves = np.arange(10, 310)
    hubs = np.concatenate([np.c_[np.full(300, hub), np.zeros(300, dtype=int), leaves] for hub in (0, 1)])
    people = np.concatenate([[[person, 1, 7], [person, 2, 8]] for person in range(2, 7)])
    facts = Facts(np.concatenate([hubs, people]), 310, 3)
    whole = constants.mine(facts)
    monkeypatch.setattr(constants, "MANY", 10_000)
    mined = constants.mine(facts)
    assert (whole.relation == 0).sum() > 10_000
    assert (mined.relation == 0).sum() == 0
    for name in ("property", "given", "answer", "support"):
        assert np.array_equal(getattr(mined, name)[mined.relation == 1], getattr(whole, name)[whole.relation == 1])
    assert (mined.relation == 1).sum() > 1
