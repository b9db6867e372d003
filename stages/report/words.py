"""What an audit says, in words: each finding with the numbers it rests on, leaks flagged."""

import re
from collections.abc import Mapping

from pipeline.errors import counted
from pipeline.graph.vocabulary import EVALUATED, SPLITS
from stages.report.content import Counts, Finding, Leak

# What the terms of the losses are, by their column of history.csv.
LOSSES = {
    "loss": "the sum of the terms",
    "link": "how far true triples stand from corrupted ones",
    "generator": "of the networks that generate embeddings to fool the model: it rises as the model learns to tell "
    "these apart, which is no divergence",
    "adversarial": "true triples against ones with generated embeddings",
    "mutual_information": "how much the experts of a modality repeat one another",
    "estimators": "of the networks that estimate mutual information, which take steps of their own",
    "contrastive": "an entity's embedding against that of others, under two dropouts",
    "regularization": "the size of the embeddings",
    "relation": "predicting the relation between head and tail",
}


def counts(audit: Mapping) -> Counts | None:
    """The counts of an audit.json; None if it is empty."""
    if not audit:
        return None
    quantiles = audit["used"]["degree"].get("entity", {})
    named = {"50": "median", "95": "one in twenty", "100": "most"}
    return Counts(
        split=audit["split"],
        entities=audit["entities"],
        relations=audit["relations"],
        used=audit["used"]["rows"],
        released=audit["released"]["rows"],
        degree={word: quantiles[at] for at, word in named.items() if quantiles},
    )


def released_dev(audit: Mapping) -> str:
    """What is wrong with the released dev rows, in half a sentence; empty if nothing is or nothing is known."""
    released = audit.get("released")
    if not released:
        return ""
    rows, overlaps = released["rows"]["dev"], released["overlaps"]
    if not overlaps["dev_in_train"] and not overlaps["dev_in_test"]:
        return ""
    return f"of {rows:,} dev rows {overlaps['dev_in_train']:,} stand in train, {overlaps['dev_in_test']:,} in test"


def findings(audit: Mapping) -> list[Finding]:
    """Sentences on the released files and on what is used."""
    if not audit:
        return []
    released, used = audit["released"], audit["used"]
    return [
        *_overlaps(released, "As released"),
        *_done(audit),
        *_overlaps(used, "In use"),
        *_repetitions(released),
        *_unseen(used),
        *_unseen_relations(used),
        *_relations(used["similar_relations"]),
        *_pairs(used),
        *_fused(audit),
    ]


def _fused(audit: Mapping) -> list[Finding]:
    """On entities that are two things, where the audit looked for them."""
    found = audit.get("fused")
    if not found:
        return []
    if not found["entities"]:
        return [_say("No entity has relations that otherwise never meet on one thing.", "no")]
    count, rows = len(found["entities"]), audit["used"]["distinct"]
    shares = ", ".join(
        f"{100 * found['rows'][split] / rows[split]:.1f}\u00a0% of {split}" for split in SPLITS if rows[split]
    )
    who = "1 entity seems" if count == 1 else f"{count:,} entities seem"
    return [_say(f"{who} to be two things under one name; facts with one at an end are {shares}.")]


def _say(text: str, leak: Leak = "note") -> Finding:
    return Finding(text, leak)


def _overlaps(part: Mapping, who: str) -> list[Finding]:
    rows = part["rows"]
    said = []
    for name, count in part["overlaps"].items():
        one, other = name.split("_in_")
        if count and rows[one]:
            share = 100 * count / rows[one]
            text = f"{who}, {count:,} of the {rows[one]:,} {one} rows ({share:.1f}\u00a0%) also stand in {other}."
            said.append(_say(text, "yes"))
    return said or [_say(f"{who}, no triple stands in two of train, dev and test.", "no")]


def _done(audit: Mapping) -> list[Finding]:
    """What was done to the released rows."""
    done = audit.get("done", {})
    said = []
    if done.get("dev_in_train_or_test_dropped"):
        shared = done["dev_in_train_or_test_dropped"]
        said.append(_say(f"{shared:,} released dev rows that train or test holds are dropped."))
    if done.get("leaking_dev_dropped"):
        rest = done["leaking_dev_dropped"]
        said.append(_say(f"The {rest:,} dev rows left are too few to choose by, and are dropped as well."))
    if done.get("test_in_train_dropped"):
        said.append(_say(f"{done['test_in_train_dropped']:,} test rows that train holds are dropped."))
    for split in EVALUATED:
        if done.get(f"carved_{split}"):
            said.append(
                _say(
                    f"A {split} set of {done[f'carved_{split}']:,} rows is carved out of train, such that train keeps "
                    "every entity and relation it had."
                )
            )
    if audit.get("split") == "released" and not said:
        said.append(_say("The released files are used as they are."))
    return said


def _repetitions(part: Mapping) -> list[Finding]:
    repeated = {split: count for split, count in part["duplicates"].items() if count}
    if not repeated:
        return [_say("As released, no row is repeated within its file.", "no")]
    distinct = part["distinct"]
    words = ", ".join(f"{count:,} in {split} ({distinct[split]:,} distinct)" for split, count in repeated.items())
    return [_say(f"As released, rows are repeated within their file: {words}.", "note")]


def _unseen(part: Mapping) -> list[Finding]:
    unseen, rows = part["unseen"], part["rows"]
    if not unseen["entities"]:
        return [_say("Every entity has a fact in train.", "no")]
    touching = unseen["test_with_unseen_entity"]
    text = (
        f"{unseen['entities']:,} entities have no fact in train; {touching:,} of {rows['test']:,} test triples name "
        "one. They are ranked like all others, and only their text and picture can tell a model anything of them."
    )
    return [_say(text)]


def _unseen_relations(part: Mapping) -> list[Finding]:
    unseen, rows = part["unseen"], part["rows"]
    if not unseen["relations"]:
        return []
    touching = unseen["test_with_unseen_relation"]
    relations = counted(unseen["relations"], "relation")
    text = f"{relations} without a fact in train; {touching:,} of {rows['test']:,} test triples "
    return [_say(text + "name one. They are ranked like all others, in the category “unseen”.")]


def _relations(similar: Mapping) -> list[Finding]:
    said = []
    kinds: tuple[tuple[str, str, str, Leak], ...] = (
        (
            "reverse",
            "pair of relations says the same, turned round,",
            "pairs of relations say the same, turned round,",
            "yes",
        ),
        ("duplicate", "pair of relations says the same", "pairs of relations say the same", "yes"),
        ("symmetric", "relation holds both ways", "relations hold both ways", "note"),
    )
    for kind, one_does, many_do, leak in kinds:
        found = similar.get(kind, [])
        if found:
            most = max(found, key=lambda one: one["share"])
            names = " and ".join(short(most[name]) for name in ("relation", "other") if name in most)
            words = f"1 {one_does}" if len(found) == 1 else f"{len(found):,} {many_do}"
            which = "" if len(found) == 1 else "most of all "
            most_often = f"{which}{names} ({_percent(most['share'])})"
            said.append(_say(f"{words} in at least half of the facts, which a model can copy: {most_often}.", leak))
    return said or [_say("No relation repeats, reverses or mirrors another for half of its facts.", "no")]


def _percent(share: float) -> str:
    return f"{100 * share:.0f}\u00a0%"


def _pairs(part: Mapping) -> list[Finding]:
    pairs, test = part["test_pairs"], part["rows"]["test"]
    if not test:
        return []
    either = max(pairs["joined_in_train"], pairs["joined_in_train_reversed"])
    text = (
        f"Of {test:,} test triples, {pairs['joined_in_train']:,} ask for two entities that train joins already by some "
        f"relation, and {pairs['joined_in_train_reversed']:,} for two that it joins the other way round."
    )
    return [_say(text, "note" if either else "no")]


def short(key: str) -> str:
    """The last part of a URI or of a prefixed name: what a reader knows it by."""
    return re.split(r"[/#]|(?<=\w):(?=\w)", key.rstrip("/>"))[-1]
