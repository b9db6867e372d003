"""What a graph's splits hold and where they leak: the numbers of audit.json."""

import csv
import io
from collections import Counter
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.graph.categories import categories
from pipeline.graph.fused import fused
from pipeline.graph.graph import Graph
from pipeline.graph.rows import ordered, repeated, within
from pipeline.graph.vocabulary import CATEGORIES, EVALUATED, OVERLAPS, SPLITS

QUANTILES = (0, 5, 25, 50, 75, 95, 100)


def audit(released: Graph, used: Mapping[str, np.ndarray], done: Mapping[str, int], split: str) -> dict:
    """The whole audit of a graph: of the files as released, and of the triples in use under `split`.

    `used` and `done` are what splits.choose returned. All counts are of rows unless their name says otherwise.
    """
    return {
        "split": split,
        "entities": len(released.entity_keys),
        "relations": len(released.relation_keys),
        "released": measure(released),
        "used": measure(released.with_splits(used)),
        "fused": two_in_one(released.with_splits(used)),
        "done": dict(done),
    }


def two_in_one(graph: Graph) -> dict:
    """Entities that cannot be one thing (see fused.py), and how many distinct rows of each split have one at an end.

    Each entity with the keys of the relations that tell, `one` and `other`.
    """
    found = fused(graph.splits["train"], len(graph.entity_keys), len(graph.relation_keys))
    marked = np.zeros(len(graph.entity_keys), dtype=bool)
    marked[[one.entity for one in found]] = True
    return {
        "rows": {split: _touching(ordered(graph.splits[split]), marked) for split in SPLITS},
        "entities": [
            {"entity": graph.entity_keys[one.entity], "one": [graph.relation_keys[at] for at in one.one],
             "other": [graph.relation_keys[at] for at in one.other]}
            for one in found
        ],
    }  # fmt: skip


def fused_table(found: dict) -> str:
    """What `two_in_one` found as CSV: entity, then the relations of one thing and those of the other."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["entity", "relations_of_one", "relations_of_the_other"])
    table.writerows([one["entity"], " ".join(one["one"]), " ".join(one["other"])] for one in found["entities"])
    return text.getvalue()


def measure(graph: Graph) -> dict:
    """Rows, repetitions, overlaps, unseen names, leaks through other relations, degrees and coverage of one split."""
    splits, entities, relations = graph.splits, len(graph.entity_keys), len(graph.relation_keys)
    train = splits["train"]
    seen = np.zeros(entities, dtype=bool)
    seen[train[:, [0, 2]]] = True
    named = np.zeros(relations, dtype=bool)
    named[train[:, 1]] = True
    used = np.zeros(entities, dtype=bool)
    for rows in splits.values():
        used[rows[:, [0, 2]]] = True
    different = {split: ordered(splits[split]) for split in SPLITS}
    return {
        "rows": {split: len(splits[split]) for split in SPLITS},
        "distinct": {split: len(different[split]) for split in SPLITS},
        "duplicates": {split: len(splits[split]) - len(different[split]) for split in SPLITS},
        "overlaps": {f"{one}_in_{other}": int(within(splits[one], different[other]).sum()) for one, other in OVERLAPS},
        "unseen": {
            "entities": int((~seen).sum()),
            "relations": int((~named).sum()),
            **{f"{split}_with_unseen_entity": _touching(splits[split], ~seen) for split in EVALUATED},
            **{f"{split}_with_unseen_relation": int((~named)[splits[split][:, 1]].sum()) for split in EVALUATED},
        },
        "coverage": {
            "entities_in_any_split": _share(used),
            "entities_in_train": _share(seen),
            "relations_in_train": _share(named),
        },
        "degree": _degrees(train, entities, relations),
        "categories": _categories(splits["test"], different["train"], relations),
        "similar_relations": similar_relations(different["train"], graph.relation_keys),
        "test_pairs": _pairs(splits["test"], different["train"]),
    }


def similar_relations(train: np.ndarray, keys: list[str], least: float = 0.5, facts: int = 10) -> dict[str, list[dict]]:
    """Relations that repeat one another's pairs, counted on distinct train rows (Akrami et al. 2020, section 4.2).

    "reverse": (h, r, t) comes with (t, s, h); "duplicate": (h, r, t) comes with (h, s, t); "symmetric": (h, r, t)
    comes with (t, r, h). `share` is how many of r's facts do so, `share_of_other` how many of s's; both must reach
    `least`, and r must have `facts` facts.
    """
    rows = ordered(train)
    frequency = np.bincount(rows[:, 1], minlength=len(keys))
    found: dict[str, list[dict]] = {"reverse": [], "duplicate": [], "symmetric": []}
    for kind, (first, last) in (("duplicate", (0, 2)), ("reverse", (2, 0))):
        # Only rows that meet another one are joined: most pairs of entities have one relation, and stay out.
        pairs = rows[:, [0, 2]]
        some = rows[repeated(pairs) if kind == "duplicate" else within(pairs, pairs[:, ::-1])]
        forward = pa.table({"a": some[:, 0], "b": some[:, 2], "r": some[:, 1]})
        other = pa.table({"a": some[:, first], "b": some[:, last], "s": some[:, 1]})
        met = forward.join(other, keys=["a", "b"], join_type="inner")
        counted = met.group_by(["r", "s"]).aggregate([([], "count_all")]).filter(pc.field("r") <= pc.field("s"))
        for one in counted.sort_by([("r", "ascending"), ("s", "ascending")]).to_pylist():
            r, s, both = one["r"], one["s"], one["count_all"]
            shares = both / frequency[r], both / frequency[s]
            if min(shares) < least or min(frequency[r], frequency[s]) < facts or (r == s and kind == "duplicate"):
                continue
            entry = {"relation": keys[r], "facts": int(frequency[r]), "share": round(float(shares[0]), 4)}
            if r != s:
                entry |= {"other": keys[s], "share_of_other": round(float(shares[1]), 4)}
            found["symmetric" if r == s else kind].append(entry)
    return found


def _touching(rows: np.ndarray, marked: np.ndarray) -> int:
    """Rows whose head or tail is marked."""
    return int((marked[rows[:, 0]] | marked[rows[:, 2]]).sum())


def _share(marked: np.ndarray) -> float:
    return round(float(marked.mean()), 6) if len(marked) else 0.0


def _degrees(train: np.ndarray, entities: int, relations: int) -> dict[str, dict[str, float]]:
    """Quantiles (percent: value) of how many train rows an entity (as head, as tail, as either) or a relation has."""
    out, into = np.bincount(train[:, 0], minlength=entities), np.bincount(train[:, 2], minlength=entities)
    each = np.bincount(train[:, 1], minlength=relations)
    counts = {"head": out, "tail": into, "entity": out + into, "relation": each}
    return {
        name: {str(at): float(value) for at, value in zip(QUANTILES, np.percentile(count, QUANTILES), strict=True)}
        for name, count in counts.items()
        if len(count)
    }


def _categories(test: np.ndarray, train: np.ndarray, relations: int) -> dict[str, dict[str, int]]:
    """Relations, and test rows, a category."""
    each = categories(train, relations)
    counts, rows = Counter(each), Counter(each[relation] for relation in test[:, 1].tolist())
    return {name: {"relations": counts[name], "test": rows[name]} for name in CATEGORIES}


def _pairs(test: np.ndarray, train: np.ndarray) -> dict[str, int]:
    """Test rows whose pair of entities train joins already, as (head, tail) or turned round, by whatever relation."""
    joined = ordered(train[:, [0, 2]])
    return {
        "joined_in_train": int(within(test[:, [0, 2]], joined).sum()),
        "joined_in_train_reversed": int(within(test[:, [2, 0]], joined).sum()),
    }
