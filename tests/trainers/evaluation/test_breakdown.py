"""The breakdown of a small graph, group by group, against what one reads off it."""

import numpy as np
import pytest

from pipeline import tables
from trainers.evaluation import breakdown

KEYS = ["treats", "isPartOf"]
# train: entity 0 has degree 3, 1 and 2 have 2, 3 has 1, 4 and 5 none.
TRAIN = [(0, 0, 1), (0, 0, 2), (0, 1, 3), (1, 1, 2)]
TEST = [(0, 0, 3), (4, 1, 1), (2, 1, 5)]
RANKS = {"tail": [1, 4, 5], "head": [2, 10, 100]}


@pytest.fixture
def folders(tmp_path):
    graph, encoded = tmp_path / "graph", tmp_path / "encoded"
    ids = np.arange(6, dtype=np.int32)
    tables.write(
        graph / "entities.parquet",
        "entities",
        {"entity_id": ids, "key": [f"e{i}" for i in ids], "label": ["?"] * 6},
        {},
    )
    relations = {"relation_id": [1, 0], "key": KEYS[::-1], "label": KEYS[::-1], "category": ["N-N", "1-N"]}
    tables.write(graph / "relations.parquet", "relations", relations, {})
    columns = dict(zip(("head", "relation", "tail"), zip(*TRAIN, *TEST, strict=True), strict=True))
    tables.write(graph / "triples.parquet", "triples", {**columns, "split": ["train"] * 4 + ["test"] * 3}, {})
    for modality, entities in (("text", [0, 1, 3]), ("image", [0, 4])):
        columns = {
            "entity_id": np.array(entities, dtype=np.int32),
            "embedding": np.ones((len(entities), 2), dtype=np.float32),
            "count": np.ones(len(entities), dtype=np.int32),
        }
        tables.write(encoded / modality / "features.parquet", "features", columns, {})
    return graph, encoded


@pytest.fixture
def ranks():
    triples = np.array(TEST * 2)
    realistic = np.array(RANKS["tail"] + RANKS["head"], dtype=float)
    return {
        **{name: triples[:, i] for i, name in enumerate(("head", "relation", "tail"))},
        "direction": np.array(["tail"] * 3 + ["head"] * 3),
        "realistic": realistic,
        "candidates": np.full(6, 201),
    }


@pytest.fixture
def rows(folders, ranks):
    found = breakdown.breakdown(ranks, *folders, samples=50)
    return {(row["group"], row["value"], row["direction"]): row for row in found.to_pylist()}


def mrr(*ranks):
    return pytest.approx(np.mean([1 / rank for rank in ranks]))


@pytest.mark.parametrize(
    ("group", "value", "direction", "expected"),
    [
        ("all", "all", "both", (1, 4, 5, 2, 10, 100)),
        ("all", "all", "tail", (1, 4, 5)),
        ("all", "all", "head", (2, 10, 100)),
        ("relation", "treats", "both", (1, 2)),
        ("relation", "isPartOf", "head", (10, 100)),
        ("relation_category", "1-N", "both", (1, 2)),
        ("relation_category", "N-N", "tail", (4, 5)),
        ("known_degree", "2-3", "tail", (1, 5)),  # entities 0 and 2 ask for a tail
        ("known_degree", "0", "both", (4, 100)),  # entity 4 asks for a tail, 5 for a head
        ("known_degree", "1", "both", (2,)),
        ("answer_degree", "1", "both", (1,)),
        ("answer_degree", "2-3", "both", (4, 2, 100)),
        ("unseen", "both in train", "both", (1, 2)),
        ("unseen", "known entity unseen", "both", (4, 100)),
        ("unseen", "answer unseen", "both", (5, 10)),
        ("known_text", "text", "tail", (1,)),
        ("known_text", "no text", "both", (4, 5, 100)),
        ("answer_text", "text", "both", (1, 4, 2)),
        ("known_picture", "picture", "both", (1, 4)),
        ("answer_picture", "picture", "both", (2, 10)),
        ("known_coverage", "text and picture", "both", (1,)),
        ("known_coverage", "picture only", "both", (4,)),
        ("answer_coverage", "text only", "tail", (1, 4)),
        ("answer_coverage", "neither", "both", (5, 100)),
        ("known_coverage | answer_coverage", "text and picture | text only", "both", (1,)),
        ("relation_category | answer_coverage", "N-N | text only", "both", (4,)),
    ],
)
def test_groups_hold_the_queries_they_should(rows, group, value, direction, expected):
    row = rows[group, value, direction]
    assert row["queries"] == len(expected)
    assert row["mrr"] == mrr(*expected)
    assert row["hits_at_3"] == pytest.approx(np.mean([rank <= 3 for rank in expected]))
    assert row["amri"] == pytest.approx(1 - (np.mean(expected) - 1) / 100)


def test_each_way_of_grouping_holds_each_query_once(rows):
    for direction, count in (("both", 6), ("tail", 3), ("head", 3)):
        for group in {key[0] for key in rows}:
            queries = [row["queries"] for key, row in rows.items() if (key[0], key[2]) == (group, direction)]
            assert sum(queries) == count
            assert min(queries) > 0


def test_intervals_surround_the_figure_and_are_empty_for_single_queries(rows):
    whole = rows["all", "all", "both"]
    assert whole["mrr_low"] < whole["mrr"] < whole["mrr_high"]
    assert whole["hits_at_10_low"] <= whole["hits_at_10"] <= whole["hits_at_10_high"]
    assert rows["known_degree", "1", "both"]["mrr_low"] is None


def test_a_modality_that_was_not_encoded_is_left_out(folders, ranks):
    graph, encoded = folders
    (encoded / "image" / "features.parquet").unlink()
    found = set(breakdown.breakdown(ranks, graph, encoded, samples=5)["group"].to_pylist())
    assert "answer_text" in found
    assert not {group for group in found if "picture" in group or "coverage" in group}
    assert "answer_text" not in set(breakdown.breakdown(ranks, graph, samples=5)["group"].to_pylist())


def test_tokens_count_as_coverage_too(folders, ranks):
    graph, encoded = folders
    (encoded / "image" / "features.parquet").unlink()
    tokens = {"entity_id": [2], "image_ix": [0], "token_ids": [[7, 8]]}
    tables.write(encoded / "image" / "tokens.parquet", "tokens", tokens, {})
    found = breakdown.breakdown(ranks, graph, encoded, samples=5).to_pylist()
    pictured = [
        row for row in found if (row["group"], row["value"], row["direction"]) == ("known_picture", "picture", "both")
    ]
    assert pictured[0]["mrr"] == mrr(5)
