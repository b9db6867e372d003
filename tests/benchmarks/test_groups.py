"""Test queries by what train and the texts say of their two entities."""

import numpy as np

from benchmarks.groups import by_text, by_train

TRAIN = np.array([[0, 0, 1], [2, 1, 3], [3, 0, 0]])


def test_queries_are_told_apart_by_what_train_says_of_their_entities():
    asked = np.array([[0, 5, 1], [1, 5, 0], [1, 0, 3], [0, 0, 9], [9, 1, 8]])
    assert by_train(asked, TRAIN).tolist() == ["joined", "joined", "neither", "unseen", "unseen"]


def test_queries_are_told_apart_by_which_of_their_entities_have_a_text():
    asked = np.array([[0, 4, 1], [0, 4, 5], [4, 0, 5]])  # relations are no entities
    assert by_text(asked, np.array([0, 1])).tolist() == ["both", "one", "none"]
