"""Synthetic graphs of any size with something to learn in them, written as the project's tables in bounded memory.

What is planted. Each entity belongs to a cluster, and clusters are the points of a torus: four whole coordinates modulo
n. A relation is a shift of the torus, so it maps each cluster to one cluster, and (h, r, t) holds for t drawn from the
cluster that r makes of h's. The text's features carry the first two coordinates (as cosines and sines, through a random
matrix, under normal noise), the picture's the other two, and so do the tokens, among random ones. A tenth of the
entities has no text, a fifth no picture.

So a model that learns the relations and how to read the features ranks a truth among the members of its cluster: an MRR
of about `ceiling`, against `chance` for random scores.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline import tables

RELATIONS, TRIPLES, WIDTH, CODE_WIDTH = 20, 10, 768, 32
MEMBERS = 10  # of a cluster, in the mean
AXES = {"text": (0, 1), "image": (2, 3)}
SHARE = {"text": 0.9, "image": 0.8}
HELD_OUT = 5000  # triples of dev and of test, at most
ROWS = 16384  # features made at a time
RANDOM_TOKENS = 8


@dataclass(frozen=True)
class Planted:
    """The hidden structure: `place` (E, 4) of each entity, `shift` (R, 4) of each relation, modulo `side`."""

    side: int
    place: np.ndarray
    shift: np.ndarray


def write(folder: Path, entities: int, *, seed: int = 0, width: int = WIDTH) -> None:
    """Write `<folder>/graph` and `<folder>/encoded`: 10 triples an entity, features of `width`, and tokens."""
    generator = np.random.default_rng([seed, entities])
    hidden = plant(entities, generator)
    provenance = {"synthetic": {"entities": entities, "seed": seed, "side": hidden.side}, "split": "synthetic"}
    write_graph(folder / "graph", hidden, generator, provenance)
    for name in AXES:
        have = np.flatnonzero(generator.random(entities) < SHARE[name]).astype(np.int32)
        write_features(folder / "encoded" / name / "features.parquet", hidden, name, have, width, generator, provenance)
        write_tokens(folder / "encoded" / name, hidden, name, have, generator, provenance)


def plant(entities: int, generator: np.random.Generator) -> Planted:
    """A torus with about one cluster for ten entities."""
    side = max(2, round((entities / MEMBERS) ** 0.25))
    return Planted(
        side,
        generator.integers(side, size=(entities, 4), dtype=np.int32),
        generator.integers(side, size=(RELATIONS, 4), dtype=np.int32),
    )


def draw_triples(hidden: Planted, generator: np.random.Generator) -> np.ndarray:
    """(n, 3) int64 distinct triples, about 10 an entity, in random order."""
    cluster = _number(hidden.place, hidden.side)
    members = np.argsort(cluster, kind="stable")
    start = np.searchsorted(cluster[members], np.arange(hidden.side**4 + 1))
    head = np.repeat(np.arange(len(cluster)), TRIPLES)
    relation = generator.integers(RELATIONS, size=len(head))
    target = _number((hidden.place[head] + hidden.shift[relation]) % hidden.side, hidden.side)
    count = start[target + 1] - start[target]
    tail = members[np.minimum(start[target] + (generator.random(len(head)) * count).astype(np.int64), len(members) - 1)]
    keep = (count > 0) & (tail != head)
    key = np.unique((head[keep] * RELATIONS + relation[keep]) * len(cluster) + tail[keep])
    generator.shuffle(key)
    rest, tail = np.divmod(key, len(cluster))
    return np.stack([rest // RELATIONS, rest % RELATIONS, tail], axis=1)


def write_graph(folder: Path, hidden: Planted, generator: np.random.Generator, provenance: dict) -> None:
    entities = len(hidden.place)
    triples = draw_triples(hidden, generator)
    held_out = min(HELD_OUT, len(triples) // 20)
    which = np.zeros(len(triples), dtype=np.int8)
    which[:held_out], which[held_out : 2 * held_out] = 1, 2
    split = pa.DictionaryArray.from_arrays(which, ["train", "dev", "test"]).cast(pa.string())
    columns = dict(zip(("head", "relation", "tail"), triples.astype(np.int32).T, strict=True))
    tables.write(folder / "triples.parquet", "triples", {**columns, "split": split}, provenance)
    for kind, key, number in (("entities", "entity_id", entities), ("relations", "relation_id", RELATIONS)):
        names = pa.array(np.arange(number)).cast(pa.string())
        rest = {"category": ["N-N"] * number} if kind == "relations" else {}
        ids = np.arange(number, dtype=np.int32)
        tables.write(folder / f"{kind}.parquet", kind, {key: ids, "key": names, "label": names, **rest}, provenance)


def write_features(
    path: Path,
    hidden: Planted,
    name: str,
    have: np.ndarray,
    width: int,
    generator: np.random.Generator,
    provenance: dict,
) -> None:
    """Two coordinates as angles: cosines and sines through a random (4, width) matrix, and noise as large as they."""
    mixing = generator.standard_normal((4, width), dtype=np.float32)
    with tables.TableWriter(path, "features", provenance, width) as writer:
        for start in range(0, len(have), ROWS):
            ids = have[start : start + ROWS]
            angle = (hidden.place[ids][:, AXES[name]] * (2 * np.pi / hidden.side)).astype(np.float32)
            rows = np.concatenate([np.cos(angle), np.sin(angle)], axis=1) @ mixing
            rows += 1.4 * generator.standard_normal(rows.shape, dtype=np.float32)
            rows /= 2 * np.sqrt(width)  # of length 1 in the mean, as encoders' features are
            columns = {"entity_id": ids, "embedding": tables.embedding_column(rows), "count": np.ones_like(ids)}
            writer.write(columns)


def write_tokens(
    folder: Path, hidden: Planted, name: str, have: np.ndarray, generator: np.random.Generator, provenance: dict
) -> None:
    """Three times each of two tokens that name the coordinates, and as many random ones of the same codebook."""
    codes = 2 * hidden.side + 64
    told = hidden.place[have][:, AXES[name]] + np.array([0, hidden.side], dtype=np.int32)
    noise = generator.integers(codes, size=(len(have), RANDOM_TOKENS), dtype=np.int32)
    values = np.concatenate([np.repeat(told, 3, axis=1), noise], axis=1)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])
    columns = {"entity_id": have, "image_ix": np.zeros_like(have), "token_ids": lists.cast(pa.list_(pa.int32()))}
    tables.write(folder / "tokens.parquet", "tokens", columns, provenance)
    codebook = generator.standard_normal((codes, CODE_WIDTH), dtype=np.float32)
    ids = np.arange(codes, dtype=np.int32)
    tables.write(folder / "codebook.parquet", "codebook", {"token_id": ids, "embedding": codebook}, provenance)


def chance(entities: int) -> float:
    """The expected MRR of random scores: the mean of 1/k over the ranks k."""
    return float((np.log(entities) + 0.5772) / entities)


def ceiling() -> float:
    """About the MRR of one who knows the clusters but not which member it is: the mean of 1/k over its members."""
    return float((1 / np.arange(1, MEMBERS + 1)).mean())


def _number(place: np.ndarray, side: int) -> np.ndarray:
    """(…,) int64: the cluster of coordinates (…, 4)."""
    return place.astype(np.int64) @ side ** np.arange(4)
