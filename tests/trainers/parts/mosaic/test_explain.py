"""A reason must be one that holds in the graph, and say so in its names."""

import numpy as np

from trainers.parts.mosaic import constants, rules
from trainers.parts.mosaic.evidence import Evidence
from trainers.parts.mosaic.explain import Words, reasons
from trainers.parts.mosaic.facts import Facts

LIVES, IN, CITIZEN = 0, 1, 2  # who lives in a town of a country is its citizen
PEOPLE, TOWNS, COUNTRIES = 12, 4, 2
ENTITIES = PEOPLE + TOWNS + COUNTRIES


def evidence() -> Evidence:
    """Person p lives in town p % 4, town t is in country t % 2; of person 0 nobody knows whose citizen it is."""
    town, country = PEOPLE, PEOPLE + TOWNS
    lives = [(p, LIVES, town + p % TOWNS) for p in range(PEOPLE)]
    inside = [(town + t, IN, country + t % COUNTRIES) for t in range(TOWNS)]
    citizens = [(p, CITIZEN, country + p % COUNTRIES) for p in range(1, PEOPLE)]
    facts = Facts(np.array(lives + inside + citizens), ENTITIES, 3)
    likeness = np.zeros((ENTITIES, 2), dtype=np.float32)
    likeness[np.arange(PEOPLE), np.arange(PEOPLE) % 2] = 1
    return Evidence(facts, rules.mine(facts), constants.mine(facts), {"image": likeness})


def test_rules_constants_walks_and_neighbours_are_told_in_words():
    relation = {0: "lives in", 1: "is in", 2: "is citizen of"}
    words = Words(lambda one: f"e{one}", lambda one: relation[one % 3] + ("⁻¹" if one >= 3 else ""))
    every = reasons(evidence(), 0, CITIZEN, PEOPLE + TOWNS, words)
    found = {one.kind: one for one in reversed(every)}  # the surest of each kind
    assert found["rule"].says == "e0 –lives in→ e12 –is in→ e16 (held 11 times)"
    assert found["rule"].sure == np.float32(11 / (11 + rules.CAUTION))
    assert "who –lives in→ e12 also –is citizen of→ e16 (held 2 times)" in [one.says for one in every]
    assert found["walk"].says.startswith("e0 – e12 – ")
    assert found["walk"].says.endswith(" – e16")
    assert found["image neighbour"].says == "e2, which is like e0, –is citizen of→ e16"
    assert 0 < found["image neighbour"].sure < 1
