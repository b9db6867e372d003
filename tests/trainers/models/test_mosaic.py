"""What is mosaic's own: each kind of evidence decides where it alone knows, and the fusion is fitted on dev alone."""

import dataclasses

import pytest
import torch

from pipeline.errors import UserError
from tests.helpers.tiny import learner_of, plain
from trainers.evaluation import ranking
from trainers.models import mosaic
from trainers.training import loop
from trainers.training.checkpoint import save_tensors
from trainers.training.data import Data, Features, Tokens
from trainers.training.one_vs_all import Batch
from trainers.training.train import dev_measure, filter_index

KINDS, EACH, SPLIT = 4, 30, (10, 20)  # people of each kind: in train, dev, test
PEOPLE = KINDS * EACH
SMALL = {"structure_ranks": (8,), "text_ranks": (8,), "image_ranks": (8,), "batch_size": 32, "dropout": 0.0}


def planted() -> Data:
    """People of four kinds, each the answer of relation 0: nothing but their picture and text says of which kind.

    One person in five has neither. Who stands in dev or test has no fact in train.
    """
    draw = torch.Generator().manual_seed(0)
    person = torch.arange(PEOPLE)
    kind, number = person % KINDS, person // KINDS
    triples = torch.stack([person, torch.zeros_like(person), PEOPLE + kind], 1)
    part = torch.bucketize(number, torch.tensor(SPLIT), right=True)
    train, dev, test = (triples[part == one] for one in range(3))
    have = person[number % 5 != 4]
    seen = torch.eye(KINDS)[kind[have]].repeat(1, 3) + 0.3 * torch.randn(len(have), 3 * KINDS, generator=draw)
    offsets = torch.arange(len(have) + 1) * 2
    words = torch.stack([kind[have], KINDS + torch.randint(6, (len(have),), generator=draw)], 1).flatten()
    tokens = Tokens(have, offsets, words, torch.arange(KINDS + 6), torch.randn(KINDS + 6, 12, generator=draw))
    features = {name: Features(have, seen) for name in ("image", "text")}
    return Data("planted", PEOPLE + KINDS, 1, train, dev, test, features, {"image": tokens, "text": tokens})


def chained() -> Data:
    """60 people, from each of whom two ways of three steps lead on; where one of them ends is the answer of relation 3.

    No vector knows the answer of another person, no rule has three steps, and the ways differ in the order of their
    relations alone.
    """
    people, places = 60, 7  # a person, then three places on either way
    person = torch.arange(people) * places
    steps = [
        torch.stack([person + (3 * way + step if step else 0), torch.full_like(person, relation),
                     person + 3 * way + step + 1], 1)
        for way, order in enumerate(((0, 1, 2), (1, 0, 2))) for step, relation in enumerate(order)
    ]  # fmt: skip
    asked = torch.stack([person, torch.full_like(person, 3), person + 3], 1)
    train = torch.cat([*steps, asked[:30]])
    return Data("chained", people * places, 4, train, asked[30:45], asked[45:], {}, {})


def trained(data: Data, folder, **changes):
    learner = learner_of(mosaic, data, plain(mosaic, **{**SMALL, **changes}))
    measure = dev_measure(data, learner.device, None, 0)
    loop.fit(learner, measure, triples=len(data.train), epochs=8, evaluate_every=8, patience=0, checkpoint_every=0,
             seed=0, work=folder, show=False)  # fmt: skip
    return learner


def tails(model, data: Data) -> torch.Tensor:
    """Reciprocal ranks of test's tails, and of which persons."""
    index = filter_index(data)
    ranks = ranking.rank(model.scorer(), data.test, index, entities=data.entities, directions=("tail",))
    return torch.from_numpy(1 / ranks["realistic"]), data.test[:, 0]


@pytest.mark.parametrize("modality", ["image", "text"])
def test_a_picture_or_a_text_decides_where_nothing_else_knows(modality, tmp_path):
    data = planted()
    blind, _ = tails(trained(data, tmp_path / "blind", modalities=("structure",)).model, data)
    found, person = tails(trained(data, tmp_path / "seeing", modalities=("structure", modality)).model, data)
    has = torch.isin(person, data.features[modality].entity)
    assert blind.mean() < 0.7  # four kinds, one as good as the other: 0.52
    assert found[has].mean() > 0.95
    assert abs(found[~has].mean() - blind[~has].mean()) < 0.3


def test_the_walker_learns_a_way_that_no_rule_has(tmp_path):
    data = chained()
    only = {"modalities": ("structure",), "walker_learning_rate": 0.02}
    without, _ = tails(trained(data, tmp_path / "without", **only, walker_layers=0).model, data)
    found, _ = tails(trained(data, tmp_path / "with", **only).model, data)
    assert without.mean() < 0.85  # the ends of both ways look alike: 0.76
    assert found.mean() > 0.95


def test_a_process_with_a_small_part_of_the_batch_steps_as_often_as_the_others(tmp_path):
    data = chained()
    model = learner_of(mosaic, data, plain(mosaic, **SMALL, modalities=("structure",), walker_queries=40)).model
    known, relation, answer = data.train[:5].T
    batch = Batch(known, relation, torch.arange(5), answer, pairs=90, starts=tuple(range(6)))  # 85 are with others
    losses = list(model.walker_losses(batch))
    assert len(losses) == 3
    assert losses[0] > 0
    assert losses[1] == losses[2] == 0
    losses[2].backward(inputs=list(model.walker.parameters()))
    assert all(torch.equal(one.grad, torch.zeros_like(one)) for one in model.walker.parameters())


def test_what_the_walker_adds_is_named(tmp_path):
    model = trained(chained(), tmp_path, modalities=("structure",), walker_learning_rate=0.02).model
    worth = model.contributions(59 * 7, 3, 59 * 7 + 3)
    assert [name for name in worth if name in model.members()] == ["structure_0", "walker"]
    assert worth["walker"] > 1


def test_of_a_new_entity_the_walker_says_what_it_says_of_those_that_stand_in(tmp_path):
    data = chained()
    model = trained(data, tmp_path, modalities=("structure",), walker_learning_rate=0.02).model
    near = torch.zeros(1, data.entities)
    near[0, 3], near[0, 10] = 0.25, 0.75
    with torch.no_grad():
        after = dataclasses.replace(data, entities=data.entities + 1)
        model.grow(data, after, lambda table: torch.cat([table, near @ table]))
        known = torch.tensor([0, 7, 59 * 7])
        walked = model.log_probabilities()(known, torch.full_like(known, 3))[-1]
    assert walked[0, 3] > walked[0, 10] + 1
    torch.testing.assert_close(walked[:, -1:], walked[:, :-1] @ near.T)


def test_the_fusion_sees_no_fact_of_test(tmp_path):
    data = planted()
    other = dataclasses.replace(data, test=data.test.flip(0)[:5])
    first, second = (trained(one, tmp_path / str(len(one.test))).model for one in (data, other))
    assert torch.equal(first.fusion.everywhere, second.fusion.everywhere)
    assert torch.equal(first.fusion.by_relation, second.fusion.by_relation)


def test_the_figure_of_dev_is_found_by_cross_validation(tmp_path):
    learner = trained(planted(), tmp_path)
    figures = learner.finish()
    assert figures["dev_mrr"] == figures["dev_mrr_by_cross_validation"]
    assert 0 < figures["dev_mrr"] < 1
    # What was fitted on all of dev ranks dev in another way.
    assert abs(figures["dev_mrr"] - dev_measure(learner.data, learner.device, None, 0)(learner.model)) > 1e-3


def test_where_a_fold_is_left_out_its_answers_are_rivals(tmp_path, monkeypatch):
    """As test's answers are for the fusion that is kept: each other kind's people, who have no fact in train."""
    learner = trained(planted(), tmp_path)
    known = []
    monkeypatch.setattr(learner, "_fit", lambda lists, plan: known.append(lists) or learner.model.fusion)
    learner.finish()
    heads = [lists.relation == learner.model.relations for lists in known]
    spared = [torch.isfinite(lists.offset[rows, -16:]).sum(1) for lists, rows in zip(known, heads, strict=True)]
    assert len(known) == 4
    assert all(one.min() >= 1 for one in spared[:3])
    assert spared[3].sum() == 0


def test_facts_of_test_that_a_released_dev_repeats_are_not_fitted_on(tmp_path):
    data = planted()
    leaking = dataclasses.replace(data, dev=torch.cat([data.train[:5], data.test[:9], data.dev, data.dev[:4]]))
    learner = learner_of(mosaic, leaking, plain(mosaic, **SMALL))
    assert torch.equal(learner.unlearnt, data.dev)


def test_of_a_large_dev_the_fusion_is_fitted_on_a_part(monkeypatch):
    monkeypatch.setattr(mosaic, "FITTED", 10)
    data = planted()
    few, again = (learner_of(mosaic, data, plain(mosaic, **SMALL)).unlearnt for _ in range(2))
    assert len(few.unique(dim=0)) == 10
    assert torch.equal(few, again)
    assert torch.isin(few[:, 0], data.dev[:, 0]).all()


@pytest.mark.parametrize("left", [0, 2])
def test_too_few_facts_to_fit_the_fusion_on_are_missed_before_training(left):
    data = planted()
    few = dataclasses.replace(data, dev=torch.cat([data.train[:5], data.dev[:left]]))
    with pytest.raises(UserError, match=f"^{left} dev facts of planted are neither"):
        learner_of(mosaic, few, plain(mosaic, **SMALL))


def test_where_the_facts_to_learn_from_are_changed_ranking_filters_by_the_graph_s(tmp_path):
    data = planted()
    fewer = dataclasses.replace(data, train=data.train[::2], facts=torch.cat([data.train, data.dev, data.test]))
    index, whole = filter_index(fewer), filter_index(data)
    known, relation = data.train[1:2, 2], data.train[1:2, 1]
    assert [len(one.answers(known, relation, "head")[1]) for one in (index, whole)] == [EACH, EACH]


def test_no_scorer_is_refused():
    with pytest.raises(ValueError, match="no scorer"):
        plain(mosaic, **{**SMALL, "structure_ranks": ()}, modalities=("structure",))


def test_on_train_and_dev_together_the_fusion_is_taken_over_from_another_run(tmp_path):
    data = planted()
    chosen = trained(data, tmp_path / "work").model
    save_tensors(tmp_path / "run" / "weights.safetensors", chosen.state_dict())
    both = dataclasses.replace(data, train=torch.cat([data.train, data.dev]))
    with pytest.raises(UserError, match="fusion_from"):
        trained(both, tmp_path / "refused")
    again = trained(both, tmp_path / "again", fusion_from=str(tmp_path / "run"))
    assert torch.equal(again.model.fusion.by_relation, chosen.fusion.by_relation)
    assert len(again.model.facts) == len(data.train) + len(data.dev)
    with pytest.raises(UserError, match="is not there"):
        trained(both, tmp_path / "missing", fusion_from=str(tmp_path / "nowhere"))
    others = {"structure_ranks": (8, 8), "text_ranks": ()}  # as many columns, but of other members
    with pytest.raises(UserError, match=r"weighs image_0, structure_0, text_0, walker on 1 relations, this model has"):
        trained(both, tmp_path / "others", fusion_from=str(tmp_path / "run"), **others)
