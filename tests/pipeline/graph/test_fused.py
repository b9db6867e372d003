"""Entities that are two things: found where relations stand on one entity that stand on no other, and nowhere else."""

import numpy as np
import pytest

from pipeline.graph.audit import fused_table, two_in_one
from pipeline.graph.fused import fused
from pipeline.graph.graph import Graph

FILM, PERSON, BOTH = (0, 1), (2, 3), 4  # relations; `BOTH` is of films and of people
PLACES = 200  # an entity that is always a tail


def world(*more: tuple[int, int]) -> np.ndarray:
    """60 films (0 to 59) and 60 people (60 to 119), each with relations of its kind; and further (entity, relation)."""
    rows = [(one, relation) for one in range(60) for relation in (*FILM, BOTH)]
    rows += [(one, relation) for one in range(60, 120) for relation in (*PERSON, BOTH)]
    return np.array([(head, relation, PLACES) for head, relation in [*rows, *more]])


def test_a_film_with_the_relations_of_a_person_is_two_things():
    (found,) = fused(world((7, 2), (7, 3)), 201, 5)
    assert found.entity == 7
    assert {found.one, found.other} == {FILM, PERSON}


def test_what_is_whole_is_left_alone():
    assert fused(world(), 201, 5) == []


def test_one_strange_relation_alone_is_an_error_in_a_fact_rather_than_a_second_thing():
    assert fused(world((7, 2)), 201, 5) == []


def test_relations_that_many_entities_join_are_no_strangers():
    assert fused(world(*((one, relation) for one in range(20) for relation in PERSON)), 201, 5) == []


def test_many_that_hide_one_another_are_found_in_turn():
    """Seen from one of three, the others are 2 of 62, more than `STRANGERS`; a third kind tells one of them."""
    rare = [(one, relation) for one in range(120, 150) for relation in (5, 6)]
    some = world((7, 2), (7, 3), (8, 2), (8, 3), (8, 5), (8, 6), (9, 2), (9, 3), *rare)
    assert [one.entity for one in fused(some, 201, 7)] == [7, 8, 9]


@pytest.mark.parametrize("seed", range(3))
def test_it_does_not_matter_how_entities_are_numbered(seed):
    order = np.random.default_rng(seed).permutation(201)
    rows = world((7, 2), (7, 3))
    rows[:, [0, 2]] = order[rows[:, [0, 2]]]
    assert [one.entity for one in fused(rows, 201, 5)] == [order[7]]


def test_the_audit_names_them_counts_their_facts_and_makes_a_table():
    train = world((7, 2), (7, 3))
    test = np.array([(7, 0, PLACES), (7, 0, PLACES), (8, 0, PLACES)])
    keys = [f"e{one}" for one in range(201)]
    names = list("abcde")
    found = two_in_one(Graph(keys, keys, names, names, {"train": train, "dev": test[:0], "test": test}))
    assert found["rows"] == {"train": 5, "dev": 0, "test": 1}, "the row that is there twice counts once"
    assert fused_table(found).splitlines() == ["entity,relations_of_one,relations_of_the_other", "e7,a b,c d"]
