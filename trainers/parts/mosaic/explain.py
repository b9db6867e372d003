"""Why an entity is an answer: the rules, walks and neighbours that speak for it, in words."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from trainers.parts.mosaic import constants, rules
from trainers.parts.mosaic.evidence import Evidence
from trainers.parts.mosaic.facts import Facts

Names = Callable[[int], str]


@dataclass(frozen=True)
class Words:
    """How entities and relations are called; relations from R on are the first ones read backwards."""

    entity: Names
    relation: Names


@dataclass(frozen=True)
class Reason:
    """One thing that speaks for an answer: of which kind it is, what it says, how surely (a share, if it has one)."""

    kind: str
    says: str
    sure: float | None = None


def reasons(evidence: Evidence, known: int, relation: int, answer: int, words: Words, *, most: int = 3) -> list[Reason]:
    """The surest `most` of each kind for (known, relation, ?) and its answer, relation below 2R."""
    found = []
    if evidence.rules:
        found += by_rules(evidence, known, relation, answer, words)[:most]
        found += by_constants(evidence, known, relation, answer, words)[:most]
        found += by_walks(evidence.facts, known, answer, words)[:most]
    for view in evidence.views:
        found += by_neighbours(evidence, view, known, relation, answer, words)[:most]
    return found


def by_rules(evidence: Evidence, known: int, relation: int, answer: int, words: Words) -> list[Reason]:
    """The rules that lead from the known entity to the answer, the surest first, each with a way that it takes."""
    mined, facts = evidence.rules, evidence.facts
    if mined is None:
        return []
    hits = rules.apply(mined, facts, np.array([known]), np.array([relation]))
    found = []
    for rule in sorted(hits.rule[hits.answer == answer].tolist(), key=lambda one: -mined.confidence[one]):
        first, second = int(mined.first[rule]), int(mined.second[rule])
        says = f"{words.entity(known)} –{words.relation(first)}→ "
        if second >= 0:
            after, before = facts.matrices[first][[known]].indices, facts.matrices[facts.back(second)][[answer]].indices
            middle = np.intersect1d(after, before)
            says += f"{words.entity(int(middle[0]))} –{words.relation(second)}→ "
        says += f"{words.entity(answer)} (held {int(mined.support[rule])} times)"
        found.append(Reason("rule", says, float(mined.confidence[rule])))
    return found


def by_constants(evidence: Evidence, known: int, relation: int, answer: int, words: Words) -> list[Reason]:
    """What holds of the known entity and makes this answer likely, the surest first."""
    fixed = evidence.constants
    if fixed is None:
        return []
    hits = constants.apply(fixed, evidence.facts, np.array([known]), np.array([relation]))
    found = []
    for rule in sorted(set(hits.rule[hits.answer == answer].tolist()), key=lambda one: -fixed.confidence[one]):
        given = int(fixed.given[rule])
        what = "something" if given == constants.ANY else words.entity(given)
        says = (
            f"who –{words.relation(int(fixed.property[rule]))}→ {what} also –{words.relation(relation)}→ "
            f"{words.entity(answer)} (held {int(fixed.support[rule])} times)"
        )
        found.append(Reason("constant", says, float(fixed.confidence[rule])))
    return found


def by_walks(facts: Facts, known: int, answer: int, words: Words) -> list[Reason]:
    """The walks of three steps through the least frequented entities."""
    links = facts.links
    near, far = links[[known]].indices, links[[answer]].indices
    if not len(near) or not len(far):
        return []
    joined = links[near][:, far].tocoo()
    busy = facts.degree[near[joined.row]] * facts.degree[far[joined.col]]
    found = []
    for place in np.argsort(busy, kind="stable"):
        stops = [known, int(near[joined.row[place]]), int(far[joined.col[place]]), answer]
        if len(set(stops)) == 4:
            found.append(Reason("walk", " – ".join(words.entity(stop) for stop in stops)))
    return found


def by_neighbours(evidence: Evidence, view: str, known: int, relation: int, answer: int, words: Words) -> list[Reason]:
    """Who is like the known entity in this view and has this answer, the most alike first."""
    likeness = evidence.views[view]
    asked = np.array([known])
    cosine = likeness.cosine(asked)
    weights = likeness.weights(cosine, asked)[0]
    facts = evidence.facts
    having = facts.matrices[facts.back(relation)][[answer]].indices
    share = weights[having] / (weights[facts.askers[relation]].sum() + 1e-6)
    found = []
    for place in np.argsort(-share, kind="stable"):
        if share[place] > 0:
            one = int(having[place])
            says = f"{words.entity(one)}, which is like {words.entity(known)}, –{words.relation(relation)}→ "
            says += words.entity(answer)
            found.append(Reason(f"{view} neighbour", says, float(share[place])))
    return found
