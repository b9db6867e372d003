"""Where a model ranks well and where it does not: the metrics of ranks.parquet, group by group.

The groups: relation, relation category, how often the known entity and the answer stand in train, entities never seen
in train, and coverage: which modalities do the known entity and the answer have. Each is given for both directions
together and for each alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from scipy import sparse

from pipeline import tables
from pipeline.graph.vocabulary import CATEGORIES
from pipeline.modalities import MODALITIES
from pipeline.modalities.coverage import coverage
from trainers.evaluation.metrics import METRICS, combine, headline
from trainers.evaluation.ranking import DIRECTIONS, Ranks
from trainers.evaluation.significance import bootstrap_means, percentile_interval

BOTH = "both"
# Degrees in bins that double: an entity of degree 300 differs from one of 200 as one of 3 does from one of 2.
_DEGREES = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256)


@dataclass(frozen=True)
class Groups:
    """One way of grouping queries: query i is in the group `values[codes[i]]`."""

    name: str
    values: tuple[str, ...]
    codes: np.ndarray  # (N,) int64


@dataclass(frozen=True)
class Facts:
    """What the groups are made of, by entity and by relation."""

    relation_keys: tuple[str, ...]
    category: np.ndarray  # (R,) int64: index of CATEGORIES
    degree: np.ndarray  # (E,) int64: train triples with the entity at either end
    covered: dict[str, np.ndarray]  # modality -> (E,) bool; without the modalities that were not encoded


def read_facts(graph: str | Path, encoded: str | Path | None = None) -> Facts:
    """Read `<graph>/{entities,relations,triples}.parquet` and who has which modality.

    Coverage comes from the entities that `<encoded>/<modality>/` holds a feature or tokens of. A modality that was
    not encoded is left out, and so are the groups that need it.

    Raises UserError if a table is missing or damaged.
    """
    graph = Path(graph)
    entities = tables.read(graph / "entities.parquet", "entities", ["entity_id"]).num_rows
    relations = tables.read(graph / "relations.parquet", "relations").sort_by("relation_id")
    triples = tables.read(graph / "triples.parquet", "triples")
    train = triples["split"].to_numpy(zero_copy_only=False) == "train"
    ends = np.concatenate([triples[side].to_numpy()[train] for side in ("head", "tail")])
    category = [CATEGORIES.index(name) for name in relations["category"].to_pylist()]
    return Facts(
        relation_keys=tuple(relations["key"].to_pylist()),
        category=np.array(category, dtype=np.int64),
        degree=np.bincount(ends, minlength=entities),
        covered={} if encoded is None else _covered(Path(encoded), entities),
    )


def _covered(encoded: Path, entities: int) -> dict[str, np.ndarray]:
    found = {}
    for modality in MODALITIES:
        paths = {kind: encoded / modality / f"{kind}.parquet" for kind in ("features", "tokens")}
        ids = [tables.read(path, kind, ["entity_id"])["entity_id"] for kind, path in paths.items() if path.exists()]
        if ids:
            found[modality] = np.zeros(entities, dtype=bool)
            found[modality][np.concatenate([column.to_numpy() for column in ids])] = True
    return found


def groups(ranks: Ranks, facts: Facts) -> list[Groups]:
    """Every way in which `breakdown` groups the queries."""
    tail = np.asarray(ranks["direction"]) == "tail"
    ends = {
        "known": np.where(tail, ranks["head"], ranks["tail"]),
        "answer": np.where(tail, ranks["tail"], ranks["head"]),
    }
    relation = np.asarray(ranks["relation"], dtype=np.int64)
    category = Groups("relation_category", CATEGORIES, facts.category[relation])
    found = [
        Groups("all", ("all",), np.zeros(len(relation), dtype=np.int64)),
        category,
        Groups("relation", facts.relation_keys, relation),
        _unseen(facts, ends),
        *(_degree(facts, end, ids) for end, ids in ends.items()),
    ]
    labelled = {MODALITIES[name].label: has for name, has in facts.covered.items()}
    for end, ids in ends.items():
        for label, has in labelled.items():
            found.append(Groups(f"{end}_{label}", (f"no {label}", label), has[ids].astype(np.int64)))
    if len(labelled) > 1:  # with one alone, its own groups say all
        sets = coverage(labelled)
        both = [Groups(f"{end}_coverage", sets.names, sets.of[ids]) for end, ids in ends.items()]
        found += [*both, cross(*both), *(cross(category, part) for part in both)]
    return found


def _unseen(facts: Facts, ends: Mapping[str, np.ndarray]) -> Groups:
    values = ("both in train", "known entity unseen", "answer unseen", "both unseen")
    known, answer = ((facts.degree[ids] == 0).astype(np.int64) for ids in (ends["known"], ends["answer"]))
    return Groups("unseen", values, known + 2 * answer)


def _degree(facts: Facts, end: str, ids: np.ndarray) -> Groups:
    nexts = (*(low - 1 for low in _DEGREES[1:]), None)
    names = [
        f"{low}+" if last is None else str(low) if low == last else f"{low}-{last}"
        for low, last in zip(_DEGREES, nexts, strict=True)
    ]
    return Groups(f"{end}_degree", tuple(names), np.searchsorted(_DEGREES, facts.degree[ids], side="right") - 1)


def cross(a: Groups, b: Groups) -> Groups:
    """The groups of queries that share their group in `a` and in `b`."""
    values = tuple(f"{left} | {right}" for left in a.values for right in b.values)
    return Groups(f"{a.name} | {b.name}", values, a.codes * len(b.values) + b.codes)


def breakdown(
    ranks: Ranks,
    graph: str | Path,
    encoded: str | Path | None = None,
    *,
    samples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> pa.Table:
    """The metrics of the realistic rank in every group that has a query.

    Columns: group (what is grouped by), value (which group), direction ("both", "tail", "head"), queries, every metric
    of `METRICS`, and `<metric>_low`, `<metric>_high` of the headline metrics: bootstrap intervals, null where a group
    has one query only, which says nothing about the spread.

    Raises UserError if a table is missing or damaged.
    """
    return table(ranks, groups(ranks, read_facts(graph, encoded)), samples=samples, level=level, seed=seed)


def table(ranks: Ranks, by: Sequence[Groups], *, samples: int = 1000, level: float = 0.95, seed: int = 0) -> pa.Table:
    """As `breakdown`, for the given groups."""
    members, labels = _members(ranks, by)
    queries = np.diff(members.indptr)
    rank = np.asarray(ranks["realistic"], dtype=np.float64)
    values = {name: metric.of_a_rank(rank) for name, metric in METRICS.items()}
    by_chance = (members @ (np.asarray(ranks["candidates"], dtype=np.float64) - 1)) / 2 / queries
    columns = combine({name: (members @ one) / queries for name, one in values.items()}, by_chance)
    resampled = np.stack([values[name] for name in headline()], axis=1)
    bounds = percentile_interval(
        bootstrap_means(resampled, sparse.csr_array(members.T), samples=samples, seed=seed), level
    )
    for i, name in enumerate(headline()):
        for suffix, bound in zip(("low", "high"), bounds, strict=True):
            columns[f"{name}_{suffix}"] = pa.array(bound[:, i], mask=queries < 2)
    return pa.table({**labels, "queries": queries.astype(np.int64), **columns})


def _members(ranks: Ranks, by: Sequence[Groups]) -> tuple[sparse.csr_array, dict[str, list[str]]]:
    """(groups that have a query, N): 1 where the query belongs; and what each of these groups is called."""
    direction = np.asarray(ranks["direction"])
    sides = [np.ones(len(direction), dtype=bool), *(direction == side for side in DIRECTIONS)]
    blocks, labels = [], []
    for grouping in by:
        for side, mask in zip((BOTH, *DIRECTIONS), sides, strict=True):
            rows = np.flatnonzero(mask)
            present, codes = np.unique(grouping.codes[rows], return_inverse=True)
            shape = (len(present), len(direction))
            blocks.append(sparse.csr_array((np.ones(len(rows)), (codes, rows)), shape=shape))
            labels += [(grouping.name, grouping.values[code], side) for code in present]
    names = ("group", "value", "direction")
    return sparse.csr_array(sparse.vstack(blocks)), dict(zip(names, map(list, zip(*labels, strict=True)), strict=True))
