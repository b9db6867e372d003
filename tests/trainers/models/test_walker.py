"""What is the walker's own: it finds facts by ways through the graph, whoever stands on them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.helpers.tiny import learner_of, plain
from trainers.evaluation import ranking
from trainers.models import walker
from trainers.training import loop
from trainers.training.data import Data
from trainers.training.train import filter_index

PEOPLE = 60
SMALL = {"facts": None, "batch_size": 16, "layers": 3, "width": 16, "learning_rate": 0.01, "dropout": 0.0}


@pytest.fixture(scope="module")
def families() -> Data:
    """Relation 2 leads where relation 0 and then relation 1 lead; of a quarter of its facts only these two are known.

    Each person has its own, drawn, so that nothing but the way says which.
    """
    draw = np.random.default_rng(0)
    people = np.arange(PEOPLE)
    parent, partner = draw.permutation(PEOPLE), draw.permutation(PEOPLE)
    facts = np.concatenate([
        np.stack([people, np.zeros(PEOPLE, int), parent], 1),
        np.stack([people, np.ones(PEOPLE, int), partner], 1),
        np.stack([people, np.full(PEOPLE, 2), partner[parent]], 1),
    ])  # fmt: skip
    rows = torch.from_numpy(facts)
    held = PEOPLE // 4
    return Data("families", PEOPLE, 3, rows[:-held], rows[-held:], rows[:0], {}, {})


def mrr_on_dev(model, data: Data) -> float:
    ranks = ranking.rank(model.eval().scorer(), data.dev, filter_index(data), entities=data.entities)
    return ranking.metrics(ranks)["mrr"]


def trained(data: Data, work) -> walker.WalkerModel:
    learner = learner_of(walker, data, plain(walker, **SMALL, epochs=12))
    loop.fit(
        learner, lambda model: mrr_on_dev(model, data), triples=len(data.train), epochs=12, evaluate_every=12,
        patience=0, checkpoint_every=0, seed=0, work=work, show=False,
    )  # fmt: skip
    return learner.model


def test_it_finds_what_a_way_of_two_steps_leads_to(families, tmp_path):
    assert mrr_on_dev(learner_of(walker, families, plain(walker, **SMALL, epochs=12)).model, families) < 0.5
    assert mrr_on_dev(trained(families, tmp_path / "whole"), families) > 0.9
    # Without the second step of the way there is nothing to find: no entity is known by itself.
    cut = replace(families, train=families.train[families.train[:, 1] != 1])
    assert mrr_on_dev(trained(cut, tmp_path / "cut"), cut) < 0.3


def test_what_is_learnt_holds_for_entities_that_training_never_met(families, tmp_path):
    """The weights of one graph, asked about another of the same relations."""
    learnt = trained(families, tmp_path / "work")
    order = torch.from_numpy(np.random.default_rng(1).permutation(PEOPLE))
    train, dev = families.train.clone(), families.dev.clone()
    for rows in (train, dev):
        rows[:, [0, 2]] = order[rows[:, [0, 2]]]
    others = replace(families, train=train, dev=dev)
    model = walker.build(others, plain(walker, **SMALL, epochs=12), torch.Generator().manual_seed(9))
    model.walker.load_state_dict(learnt.walker.state_dict())
    assert mrr_on_dev(model, others) == pytest.approx(mrr_on_dev(learnt, families))


def test_an_epoch_asks_for_each_fact_by_both_ends_or_for_so_many_drawn_anew(families):
    def asked(facts: int | None, epoch: int) -> list[tuple[int, ...]]:
        learner = learner_of(walker, families, plain(walker, **{**SMALL, "facts": facts}, epochs=2))
        batches = list(learner.batches(epoch))
        assert len(batches) == learner.steps_per_epoch
        assert max(batch.size for batch in batches) <= 16
        rows = [torch.stack([batch.known, batch.relation, batch.answer], 1) for batch in batches]
        return [tuple(row) for row in torch.cat(rows).tolist()]

    both = [tuple(row) for row in families.train.tolist()]
    both += [(tail, relation + 3, head) for head, relation, tail in both]
    assert sorted(asked(None, 0)) == sorted(both)
    assert asked(None, 0) != asked(None, 1)
    few = asked(40, 0)
    assert len(set(few)) == 40
    assert set(few) <= set(both)
    assert set(few) != set(asked(40, 1))


def test_an_entity_that_no_walk_reaches_scores_nothing(families):
    lonely = replace(families, entities=PEOPLE + 1)
    model = learner_of(walker, lonely, plain(walker, **SMALL, epochs=1)).model
    score = model.scorer()([0, PEOPLE], [2, 2], "tail")
    assert score[0, PEOPLE] == 0
    assert (score[0] != 0).sum() > 5
    assert (score[1, :PEOPLE] == 0).all()
