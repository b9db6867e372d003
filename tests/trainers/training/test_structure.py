"""The objectives that the structure-only models share: each one learns, and the regularisers are the papers' sums."""

import dataclasses

import pytest
import torch

from tests.helpers.tiny import ENTITIES, RELATIONS, fit, learner_of, plain, tiny
from trainers.evaluation import ranking
from trainers.models import complex, cp, rescal, transe
from trainers.training.train import filter_index

FAST = {"dimension": 16, "optimizer": "adagrad", "learning_rate": 0.3, "batch_size": 16, "negatives": 16}


@pytest.mark.parametrize(
    ("module", "changes"),
    [
        (complex, {"objective": "one_vs_all"}),
        (complex, {"objective": "one_vs_all", "reciprocal": True, "regularizer": "dura", "dropout": 0.1}),
        (complex, {"objective": "one_vs_all", "reciprocal": True, "strangers": "mean", "schedule": "linear"}),
        (complex, {"objective": "one_vs_all", "reciprocal": True, "candidates": 8, "relation_prediction": 0.1}),
        (complex, {"objective": "k_vs_all", "reciprocal": True, "label_smoothing": 0.1}),
        (complex, {"objective": "negative_sampling", "regularizer": "dura", "regularization": 0.001}),
        (rescal, {"objective": "one_vs_all", "reciprocal": True, "relation_prediction": 0.1}),
        (cp, {"objective": "k_vs_all"}),
        (transe, {"objective": "one_vs_all", "norm": 2, "margin": 2.0, "reciprocal": True}),
    ],
    ids=str,
)
def test_every_objective_learns(module, changes, tmp_path):
    data = tiny()
    learner = learner_of(module, data, plain(module, **{**FAST, "regularization": 0.0, **changes}))
    fit(learner, data, tmp_path, 60)
    found = ranking.metrics(
        ranking.rank(learner.model.eval().scorer(), data.train, filter_index(data), entities=ENTITIES)
    )
    assert found["mrr"] > (0.4 if module is transe else 0.8)


def test_regularisers_are_means_over_triples():
    settings = plain(complex, dimension=5, reciprocal=True, init_scale=0.5)
    model = complex.build(tiny(), settings, torch.Generator().manual_seed(0))
    known, relation = torch.tensor([3, 4]), torch.tensor([0, RELATIONS + 1])
    row, answer = torch.tensor([0, 0, 1]), torch.tensor([5, 6, 7])
    h, r, t = model.entity[known][row], model.relation[relation][row], model.entity[answer]
    h, r, t = (torch.complex(*part.chunk(2, dim=1)) for part in (h, r, t))
    n3 = (h.abs() ** 3 / 2 + r.abs() ** 3 + t.abs() ** 3 / 2).sum(1).mean()
    dura = (h.abs() ** 2 + (h * r).abs() ** 2 + t.abs() ** 2 + (t * r.conj()).abs() ** 2).sum(1).mean()
    torch.testing.assert_close(model.n3(known, relation, row, answer), n3)
    torch.testing.assert_close(model.dura(known, relation, row, answer), dura)


def test_an_entity_without_a_training_fact_asks_with_the_mean_of_those_that_have_one(tmp_path):
    data = tiny()
    stranger = 22
    data = dataclasses.replace(data, train=data.train[(data.train[:, ::2] != stranger).all(1)])
    settings = plain(complex, **FAST, objective="one_vs_all", reciprocal=True, strangers="mean")
    learner = learner_of(complex, data, settings)
    fit(learner, data, tmp_path, 2)
    score = learner.model.eval().scorer()
    for side, column in (("tail", 0), ("head", 2)):
        others = torch.unique(data.train[data.train[:, 1] == 1, column])
        theirs = score(others, torch.ones_like(others), side).mean(0)
        torch.testing.assert_close(score(torch.tensor([stranger]), torch.tensor([1]), side)[0], theirs)
