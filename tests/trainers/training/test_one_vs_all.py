"""1-vs-all: its batches hold every triple once, its loss and gradients are those of plain cross entropy."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.helpers.tiny import ENTITIES, RELATIONS, plain, tiny
from trainers.models import complex, distmult, rescal
from trainers.training import one_vs_all
from trainers.training.one_vs_all import Rows, cross_entropy, draw_candidates

CPU = torch.device("cpu")


def test_an_epoch_holds_every_triple_once_in_each_direction_in_rows_of_few_answers():
    train = tiny().train
    train = torch.cat([train, torch.tensor([[0, 0, t] for t in range(9, 20)])])  # a query with many answers
    rows = Rows(train, ENTITIES, RELATIONS, 4)
    seen = []
    for batch in rows.batches(8, (0, 1), CPU):
        assert batch.pairs == len(batch.row)
        assert torch.bincount(batch.row).max() <= 4
        assert torch.bincount(batch.row, minlength=len(batch.known)).min() >= 1
        seen += torch.stack([batch.known[batch.row], batch.relation[batch.row], batch.answer], dim=1).tolist()
    there = [[h, r, t] for h, r, t in train.tolist()] + [[t, r + RELATIONS, h] for h, r, t in train.tolist()]
    assert sorted(seen) == sorted(there)
    orders = [[b.known.tolist() for b in rows.batches(8, seed, CPU)] for seed in ((0, 1), (0, 1), (0, 2))]
    assert orders[0] == orders[1] != orders[2]


@pytest.mark.parametrize("euclidean", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_loss_and_gradients_are_those_of_plain_cross_entropy(monkeypatch, euclidean, smoothing):
    monkeypatch.setitem(one_vs_all.BLOCK, "cpu", 2 * 30)  # several blocks, the last one shorter
    draw = torch.Generator().manual_seed(0)
    query, answers = torch.randn(5, 7, generator=draw), torch.randn(30, 7, generator=draw)
    row, answer = torch.tensor([0, 0, 1, 2, 3, 4, 4, 4]), torch.tensor([3, 9, 0, 3, 29, 5, 6, 7])
    ours = [query.clone().requires_grad_(), answers.clone().requires_grad_()]
    plain = [query.clone().requires_grad_(), answers.clone().requires_grad_()]
    starts = (0, 2, 3, 4, 5, 8)
    loss = cross_entropy(*ours, row, answer, pairs=8, starts=starts, smoothing=smoothing, euclidean=euclidean)
    scores = -torch.cdist(*plain) if euclidean else plain[0] @ plain[1].T
    expected = F.cross_entropy(scores[row], answer, label_smoothing=smoothing)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    (3 * loss).backward()
    (3 * expected).backward()
    for one, other in zip(ours, plain, strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-6)


def test_drawn_candidates_estimate_the_sum_over_all_entities():
    answer = np.array([2, 3, 3])
    scores = torch.randn(40, generator=torch.Generator().manual_seed(0)).exp()
    found = []
    for seed in range(400):
        torch.manual_seed(seed)
        drawn = draw_candidates(answer, 40, 10, None)
        assert drawn.entity[drawn.answer].tolist() == answer.tolist()
        assert drawn.entity.tolist() == sorted({*drawn.entity.tolist()})
        found.append((scores[drawn.entity] * drawn.offset.exp()).sum())
    torch.testing.assert_close(torch.stack(found).mean(), scores.sum(), rtol=0.05, atol=0)


@pytest.mark.parametrize("module", [complex, distmult, rescal])
@pytest.mark.parametrize("reciprocal", [False, True])
def test_turning_back_is_the_adjoint_and_a_pair_gives_the_same_score(module, reciprocal):
    settings = plain(module, dimension=6, reciprocal=reciprocal, init_scale=0.5)
    model = module.build(tiny(), settings, torch.Generator().manual_seed(0))
    x, answer = model.entity[:4], model.entity[4:8]
    relation = torch.tensor([0, RELATIONS, 2, RELATIONS + 1])
    score = (model.ask(x, relation) * answer).sum(1)
    torch.testing.assert_close((x * model.ask_back(answer, relation)).sum(1), score)
    forth = torch.tensor([0, 1, 2, 2])
    paired = (model.pair(x, answer) * model.relation[forth]).sum(1)
    torch.testing.assert_close(paired, (model.ask(x, forth) * answer).sum(1))
