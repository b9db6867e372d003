"""Drawings: pictures that code makes of a graph's entities, for a graph that has no photographs.

An entity's drawing is a mosaic of its training facts: one tile per fact, whose rim is coloured by the relation and the
entity's side of it, and whose inside by the neighbour. So entities with facts in common have tiles in common, which is
a signal that a model can use; and nothing of dev or test is in it, since no other split is looked at. Colours come
from the names, not from ids, so a drawing does not depend on the order of a table. They are no photographs, and are
called drawings wherever they appear.
"""

import hashlib
import io
from collections.abc import Collection, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from pipeline.errors import UserError
from pipeline.graph.text_files import lines, one_file

TILE = 8  # pixels per side
GRID = 8  # tiles per side
SKIP = "without_picture"  # the file beside a graph's triples that lists keys of entities which get no drawing


def draw(
    triples: pa.Table, entities: pa.Table, relations: pa.Table, skip: Collection[str] = ()
) -> Iterator[tuple[int, bytes]]:
    """(entity_id, PNG bytes of a square of GRID * TILE pixels) of each entity that has a fact in train, by id.

    The tables are those of DESIGN's contracts; of `triples` only the rows of train are read. `skip` holds keys of
    entities that get no drawing. Raises UserError if it names one that the graph does not have.
    """
    keys = dict(zip(entities["entity_id"].to_pylist(), entities["key"].to_pylist(), strict=True))
    names = dict(zip(relations["relation_id"].to_pylist(), relations["key"].to_pylist(), strict=True))
    unknown = sorted(set(skip) - set(keys.values()))
    if unknown:
        raise UserError(f"{SKIP} names {unknown[0]!r}, which is not an entity of the graph; correct the list.")
    facts: dict[int, set[tuple[str, str, str]]] = {entity: set() for entity in sorted(keys)}
    train = triples.filter(pc.equal(triples["split"], "train"))
    for head, relation, tail in zip(*(train[name].to_pylist() for name in ("head", "relation", "tail")), strict=True):
        facts[head].add((names[relation], "head", keys[tail]))
        facts[tail].add((names[relation], "tail", keys[head]))
    for entity, own in facts.items():
        if own and keys[entity] not in skip:
            yield entity, mosaic(own)


def mosaic(facts: Collection[tuple[str, str, str]]) -> bytes:
    """A PNG of one tile per fact (relation, side, neighbour), repeated until the square is full, sorted by relation.

    Of more facts than there are tiles a fixed choice is drawn, the same whatever else the graph holds.
    """
    places = GRID * GRID
    chosen = sorted(facts, key=_digest)[:places]
    filled = sorted(chosen * (places // len(chosen)) + chosen[: places % len(chosen)])
    pixels = np.zeros((GRID, TILE, GRID, TILE, 3), dtype=np.uint8)
    for place, (relation, side, neighbour) in enumerate(filled):
        tile = pixels[place // GRID, :, place % GRID]
        tile[:] = _colour("relation", relation, side)
        tile[1:-1, 1:-1] = _colour("entity", neighbour)
    image = Image.fromarray(pixels.reshape(GRID * TILE, GRID * TILE, 3))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def skipped(folder: str | Path) -> set[str]:
    """The keys listed in `without_picture.txt` of a graph's folder, one per line; none if there is no such file."""
    path = one_file(Path(folder), SKIP)
    return {line.strip() for _, line in lines(path)} if path else set()


def _digest(words: tuple[str, ...]) -> bytes:
    return hashlib.sha256("\t".join(words).encode()).digest()


@cache
def _colour(*words: str) -> tuple[int, int, int]:
    """A colour that depends on the words alone."""
    red, green, blue = _digest(words)[:3]
    return red, green, blue
