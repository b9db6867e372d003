"""Test queries by what train and the texts say of their two entities."""

import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from benchmarks import groups
from benchmarks.groups import by_text, by_train
from pipeline import tables

TRAIN = np.array([[0, 0, 1], [2, 1, 3], [3, 0, 0]])


def test_queries_are_told_apart_by_what_train_says_of_their_entities():
    asked = np.array([[0, 5, 1], [1, 5, 0], [1, 0, 3], [0, 0, 9], [9, 1, 8]])
    assert by_train(asked, TRAIN).tolist() == ["joined", "joined", "neither", "unseen", "unseen"]


def test_queries_are_told_apart_by_which_of_their_entities_have_a_text():
    asked = np.array([[0, 4, 1], [0, 4, 5], [4, 0, 5]])  # relations are no entities
    assert by_text(asked, np.array([0, 1])).tolist() == ["both", "one", "none"]


@pytest.fixture
def graph(tmp_path, monkeypatch):
    """A graph whose entities 0 and 1 have a text, and two models' ranks of three test queries, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    text = {"entity_id": range(10), "name": "n", "description": [*"ab", *[None] * 8]}
    read = {"text": pa.table(pd.DataFrame(text))}
    monkeypatch.setattr(tables, "read", lambda path, name: read[name])
    monkeypatch.setattr(groups, "train_facts", lambda graph: TRAIN)
    asked = pd.DataFrame([[0, 5, 1], [1, 0, 3], [9, 1, 8]], columns=["head", "relation", "tail"])
    given = {"mosaic": [1.0, 2.0, 4.0], "complex": [2.0, 4.0, 8.0]}
    monkeypatch.setattr(groups, "test_ranks", lambda graph, model, seed: asked.assign(realistic=given[model]))
    return tmp_path


def test_what_is_printed_is_kept_and_other_models_stay(graph, monkeypatch, capsys):
    for model in ("mosaic", "complex"):
        monkeypatch.setattr(sys, "argv", ["groups", "--graph", "MKG-Y", "--models", model])
        groups.main()
    found = tables.read_json(graph / "benchmarks/results/MKG-Y/groups-seed0.json")
    assert (found["graph"], found["seed"]) == ("MKG-Y", 0)
    assert found["test"]["mosaic"]["joined"] == {"mrr": 1.0, "queries": 1}
    assert found["test"]["mosaic"]["one"] == {"mrr": 0.5, "queries": 1}
    assert found["test"]["complex"]["unseen"] == {"mrr": 0.125, "queries": 1}
    assert found["test"]["complex"]["all"] == {"mrr": (1 / 2 + 1 / 4 + 1 / 8) / 3, "queries": 3}
    printed = capsys.readouterr().out.split("Test MRR")[-1]
    (unseen,) = (line.split()[1:] for line in printed.splitlines() if line.startswith("unseen"))
    assert [float(value) for value in unseen] == [1, 12.5]
