"""Completions are the unknown facts that score best, whatever the blocks; probabilities rise with the scores."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from pipeline.graph.filter_index import FilterIndex
from trainers.answers.calibration import Calibration, calibrate, calibration_error
from trainers.answers.completions import Choice, Facts, complete
from trainers.answers.export import FORMATS

E, R = 40, 2
DRAW = torch.Generator().manual_seed(0)
TABLE = torch.randn(R, E, E, generator=DRAW)
# The more a fact scores the likelier it is true, so there is something to calibrate.
TRUE = (torch.rand(R, E, E, generator=DRAW) < torch.sigmoid(3 * TABLE - 5)).nonzero()[:, [1, 0, 2]]
TRUE = TRUE[torch.randperm(len(TRUE), generator=DRAW)]
TRAIN, DEV, TEST = TRUE[: len(TRUE) // 2], TRUE[len(TRUE) // 2 : -20], TRUE[-20:]


def score(known, relation, side):
    return TABLE[relation, known] if side == "tail" else TABLE[relation, :, known]


def index(rows):
    return FilterIndex.build(rows, E, R)


FACTS = Facts(TRAIN, index(TEST), index(TRUE), index(torch.cat([TRAIN, DEV])))


@pytest.mark.parametrize("same_types", [True, False])
@pytest.mark.parametrize("memory", [1, 1 << 30])
def test_the_best_unknown_facts_are_chosen(same_types, memory):
    found = complete(score, FACTS, [1], None, Choice(7, same_types=same_types), memory_bytes=memory)
    table = TABLE[1].clone()
    rows = TRUE[TRUE[:, 1] == 1]
    table[rows[:, 0], rows[:, 2]] = -torch.inf
    free = table.clone()
    if same_types:
        train = TRAIN[TRAIN[:, 1] == 1]
        table[~torch.isin(torch.arange(E), train[:, 0])] = -torch.inf
        table[:, ~torch.isin(torch.arange(E), train[:, 2])] = -torch.inf
    best = table.flatten().topk(7)
    assert found.missing["head"].tolist() == (best.indices // E).tolist()
    assert found.missing["tail"].tolist() == (best.indices % E).tolist()
    for head, value, rank in zip(found.missing["head"], best.values, found.missing["rank"], strict=True):
        assert rank == 1 + (free[head] > value).sum()


def test_probabilities_bound_the_choice_and_dev_measures_it():
    calibration, about = calibrate(score, DEV, FACTS.known, "tail", memory_bytes=1 << 20)
    assert 0 <= about["expected_calibration_error"] < 0.3
    assert (np.diff(calibration.y) >= 0).all()
    assert max(calibration.y) < 1
    every = complete(score, FACTS, [0, 1], calibration, Choice(30), memory_bytes=1 << 20)
    few = complete(score, FACTS, [0, 1], calibration, Choice(30, 0.2), memory_bytes=1 << 20)
    assert 0 < len(few.missing["head"]) < len(every.missing["head"])
    assert few.missing["probability"].min() >= 0.2
    assert few.precision > every.precision > len(DEV) / (R * E * E)


@pytest.mark.parametrize("memory", [1, 40 * E, 1 << 30])
def test_shares_are_of_all_rivals_whatever_the_blocks(memory):
    calibration = Calibration(0.7, [-8.0, 0.0], [0.0, 1.0])
    found = complete(score, FACTS, [0], calibration, Choice(9, same_types=False), memory_bytes=memory)
    for known, columns in ((TRUE, found.missing), (torch.cat([TRAIN, DEV]), None)):
        table = TABLE[0].double() / 0.7
        rows = known[known[:, 1] == 0]
        table[rows[:, 0], rows[:, 2]] = -torch.inf
        share = table - table.logsumexp(1, keepdim=True)
        share.fill_diagonal_(-torch.inf)  # train has no loop of this relation
        best = share.flatten().topk(9)
        if columns is not None:
            assert columns["head"].tolist() == (best.indices // E).tolist()
            assert columns["tail"].tolist() == (best.indices % E).tolist()
            np.testing.assert_allclose(columns["value"], best.values, atol=1e-5)
        else:  # as if test were unknown
            held = {(h, t) for h, r, t in TEST.tolist() if r == 0}
            assert found.of_test == sum((i // E, i % E) in held for i in best.indices.tolist()) > 0
            assert found.expected == pytest.approx(calibration.probability(best.values).mean(), abs=1e-5)


def test_too_small_a_dev_gives_no_probabilities():
    assert calibrate(score, DEV[:5], FACTS.known, "tail", memory_bytes=1 << 20) is None


def test_the_calibration_error_is_the_distance_of_shares_from_probabilities():
    assert calibration_error(np.array([0.75, 0.75, 0.25, 0.25]), np.array([1, 1, 0, 0])) == 0.25


@pytest.mark.parametrize("memory", [1, 1 << 20])
def test_an_entity_is_no_answer_to_itself_where_train_has_no_such_fact(memory):
    plain = FACTS.train[FACTS.train[:, 0] != FACTS.train[:, 2]]
    without = Facts(plain, FACTS.test, index(plain[:0]), FACTS.others)
    found = complete(score, without, [0, 1], None, Choice(200), memory_bytes=memory).missing
    assert len(found["head"]) == 400
    assert (found["head"] != found["tail"]).all()


def test_keys_become_iris_and_are_escaped():
    names = {"head_key": ["http://x.org/a b>"], "relation_key": ["genre"], "tail_key": ["é"], "probability": [0.5]}
    table = pa.table(names)
    line = "<urn:tessera:http%3A%2F%2Fx.org%2Fa%20b%3E> <urn:tessera:genre> <urn:tessera:%C3%A9> ."
    assert FORMATS["nt"](table) == f"{line}\n"
    assert FORMATS["ttl"](table) == f"{line}  # 0.5000\n"
    named = pa.table(names | {"head_key": ["dbr:Queen"]})
    assert FORMATS["nt"](named).startswith("<http://dbpedia.org/resource/Queen> ")
