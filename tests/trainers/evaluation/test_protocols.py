"""The papers' protocols, against their own procedures written out query by query."""

import numpy as np
import pytest

from trainers.about import protocol_of
from trainers.evaluation import protocols
from trainers.evaluation.protocols import protocol_metrics, protocol_ranks, reported

PROTOCOLS = {name: protocol_of(name) for name in ("adamf_mat", "momok", "mygo")}


def queries(count=3000, entities=12, levels=4, seed=0):
    """Scores with many ties, the truth at a random place, and the ranks of them."""
    generator = np.random.default_rng(seed)
    scores = generator.integers(0, levels, (count, entities)).astype(np.float32)
    truth = generator.integers(0, entities, count)
    mine = scores[np.arange(count), truth]
    above, at_least = (scores > mine[:, None]).sum(axis=1), (scores >= mine[:, None]).sum(axis=1)
    ranks = {
        "optimistic": 1 + above,
        "pessimistic": at_least,
        "realistic": (1 + above + at_least) / 2,
        "candidates": np.full(count, entities),
        "score": mine,
    }
    return scores, truth, ranks


def test_adamf_mat_counts_what_is_strictly_better():
    scores, truth, ranks = queries()
    expected = [1 + sum(score > row[at] for score in row) for row, at in zip(scores, truth, strict=True)]
    assert protocol_ranks(PROTOCOLS["adamf_mat"], ranks).tolist() == expected


def test_mygo_stands_behind_half_of_the_tied_rounded_down():
    scores, truth, ranks = queries()
    expected = []
    for row, at in zip(scores, truth, strict=True):
        rivals = np.delete(row, at)
        expected.append(1 + (rivals > row[at]).sum() + (rivals == row[at]).sum() // 2)
    assert protocol_ranks(PROTOCOLS["mygo"], ranks).tolist() == expected


def test_momok_places_the_truth_among_the_tied_by_lot():
    scores, truth, ranks = queries()
    generator = np.random.default_rng(1)
    theirs = []
    for row, at in zip(scores, truth, strict=True):
        rivals = np.delete(row, at)
        place = generator.integers(0, len(row))
        order = np.argsort(-np.insert(rivals, place, row[at]), kind="stable")
        theirs.append(1 + np.flatnonzero(order == place)[0])
    found = protocol_ranks(PROTOCOLS["momok"], ranks)
    assert (found >= ranks["optimistic"]).all()
    assert (found <= ranks["pessimistic"]).all()
    assert np.mean(found) == pytest.approx(np.mean(theirs), abs=0.15)
    assert np.mean(1 / found) == pytest.approx(np.mean(1 / np.array(theirs)), abs=0.02)
    assert (found == protocol_ranks(PROTOCOLS["momok"], ranks)).all()
    assert (found != protocol_ranks(PROTOCOLS["momok"], ranks, seed=1)).any()


def test_the_protocols_of_ties_order_as_they_should_on_constant_scores():
    _, _, ranks = queries(levels=1)
    mrr = {name: protocol_metrics(protocol, ranks)["mrr"] for name, protocol in PROTOCOLS.items()}
    assert mrr["adamf_mat"] == 1  # knowing nothing is rewarded with a perfect figure
    assert mrr["mygo"] == pytest.approx(1 / 6)
    assert mrr["momok"] == pytest.approx(np.mean(1 / np.arange(1, 13)), abs=0.02)


def test_nan_comes_first_where_the_code_compares_and_last_where_it_sorts():
    ranks = {key: np.full(3, 12) for key in ("optimistic", "pessimistic", "candidates")}
    ranks["score"] = np.array([np.nan, 0.5, np.inf])
    assert protocol_ranks(PROTOCOLS["adamf_mat"], ranks).tolist() == [1, 12, 12]
    assert protocol_ranks(PROTOCOLS["mygo"], ranks).tolist() == [1, 12, 12]
    assert protocol_ranks(PROTOCOLS["momok"], ranks).tolist() == [12, 12, 12]


def test_each_protocol_reports_the_epoch_it_would():
    by_epoch = {
        100: {"mrr": 0.30, "mr": 50.0, "hits_at_1": 0.25},
        200: {"mrr": 0.35, "mr": 80.0, "hits_at_1": 0.20},
        300: {"mrr": 0.31, "mr": 60.0, "hits_at_1": 0.22},
    }

    def epochs(name):
        return {metric: found["epoch"] for metric, found in reported(PROTOCOLS[name], by_epoch).items()}

    assert epochs("adamf_mat") == {"mrr": 300, "mr": 300, "hits_at_1": 300}
    assert epochs("mygo") == {"mrr": 200, "mr": 200, "hits_at_1": 200}
    assert epochs("momok") == {"mrr": 200, "mr": 100, "hits_at_1": 100}
    assert reported(PROTOCOLS["mygo"], by_epoch)["mr"]["value"] == 80
    with pytest.raises(ValueError, match="no epoch"):
        reported(PROTOCOLS["mygo"], {})


def test_looks_fall_on_the_protocols_epochs_and_keep_what_it_would_report():
    def look_at(name, epochs, stopped):
        asked = []
        _, _, ranks = queries(count=50)
        looks = protocols.TestProbe(
            PROTOCOLS[name], lambda model: asked.append(model) or ranks, epochs, evaluate_every=30
        )
        history = [{"epoch": epoch, **looks(epoch, epoch)} for epoch in range(1, stopped + 1)]
        assert len({tuple(row) for row in history}) == 1  # the same columns in each row of the CSV
        return asked, looks.summary(history)

    assert look_at("momok", 250, 250)[0] == [100, 200, 250]
    assert look_at("mygo", 120, 120)[0] == [50, 100, 120]
    asked, found = look_at("adamf_mat", 100, 60)  # stopped early, which happens where dev is measured only
    assert asked == [30, 60]
    assert found["reported"]["mrr"]["epoch"] == 60
    assert (found["name"], found["split"]) == ("adamf_mat", "released")
    assert look_at("momok", 250, 60)[1]["reported"] == {}
