"""Drawings: the same facts give the same picture, and nothing but train is in it."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from pipeline import tables
from pipeline.errors import UserError
from pipeline.graph.formats import read_graph
from pipeline.graph.graph import write_graph
from pipeline.modalities.drawings import GRID, TILE, draw, mosaic, skipped

TRAIN = [(0, 0, 1), (1, 0, 2), (2, 1, 0), (3, 1, 3)]
ENTITIES = pa.table({"entity_id": [0, 1, 2, 3, 4], "key": list("abcde"), "label": list("ABCDE")})
RELATIONS = pa.table({"relation_id": [0, 1], "key": ["r", "s"], "label": ["r", "s"], "category": ["1-1", "1-1"]})


def triples(train=tuple(TRAIN), test=((0, 1, 3),)) -> pa.Table:
    rows = [(*row, split) for split, part in (("train", train), ("test", test)) for row in part]
    return pa.table(dict(zip(("head", "relation", "tail", "split"), map(list, zip(*rows, strict=True)), strict=True)))


def drawn(*arguments, **named) -> dict[int, bytes]:
    return dict(draw(triples(*arguments, **named), ENTITIES, RELATIONS))


def test_entities_with_a_training_fact_get_a_small_square_picture():
    found = drawn()
    assert list(found) == [0, 1, 2, 3]  # e has no fact
    for data in found.values():
        picture = Image.open(io.BytesIO(data))
        assert (picture.format, picture.mode, picture.size) == ("PNG", "RGB", (GRID * TILE, GRID * TILE))


def test_test_triples_leave_no_trace():
    assert drawn() == drawn(test=((4, 0, 1), (2, 1, 3)))


def test_a_training_fact_changes_the_pictures_of_its_two_entities_alone():
    was, now = drawn(), drawn(train=[*TRAIN, (0, 1, 1)])
    assert {entity for entity in now if now[entity] != was.get(entity)} == {0, 1}


def test_relation_side_and_neighbour_all_show():
    pictures = {
        mosaic([fact]) for fact in [("r", "head", "x"), ("r", "tail", "x"), ("s", "head", "x"), ("r", "head", "y")]
    }
    assert len(pictures) == 4


def test_order_and_ids_do_not_matter():
    assert drawn() == drawn(train=[*TRAIN[::-1], TRAIN[0]])
    turned = {4 - entity: key for entity, key in zip(range(5), "abcde", strict=True)}
    entities = pa.table({"entity_id": list(turned), "key": list(turned.values()), "label": list(turned.values())})
    other = triples(train=[(4 - head, relation, 4 - tail) for head, relation, tail in TRAIN])
    assert {4 - entity: data for entity, data in draw(other, entities, RELATIONS)} == drawn()


def test_shared_facts_are_shared_tiles():
    def tiles(data: bytes) -> set[bytes]:
        pixels = np.asarray(Image.open(io.BytesIO(data))).reshape(GRID, TILE, GRID, TILE, 3)
        return {pixels[row, :, column].tobytes() for row in range(GRID) for column in range(GRID)}

    one, other = [("r", "head", name) for name in "abc"], [("r", "head", name) for name in "bcd"]
    assert len(tiles(mosaic(one))) == 3
    assert len(tiles(mosaic(one)) & tiles(mosaic(other))) == 2
    many = [("r", "head", str(name)) for name in range(1000)]
    assert len(tiles(mosaic(many))) == GRID * GRID


def test_entities_on_the_list_get_none(tmp_path):
    assert skipped(tmp_path) == set()
    (tmp_path / "without_picture.txt").write_text("a\n\nc \n")
    assert list(dict(draw(triples(), ENTITIES, RELATIONS, skipped(tmp_path)))) == [1, 3]
    with pytest.raises(UserError, match="without_picture names 'z'"):
        list(draw(triples(), ENTITIES, RELATIONS, {"z"}))


def test_mini_leaves_the_listed_entities_bare(tmp_path):
    source = Path(__file__).resolve().parents[3] / "data/mini/source"
    write_graph(tmp_path, read_graph(source, "names"), {})
    read = {kind: tables.read(tmp_path / f"{kind}.parquet", kind) for kind in ("triples", "entities", "relations")}
    found = dict(draw(read["triples"], read["entities"], read["relations"], skipped(source)))
    assert len(found) == 920
    assert max(map(len, found.values())) < 2000  # bytes
