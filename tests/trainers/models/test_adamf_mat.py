"""AdaMF-MAT's options: each does what it says, and differs from its default."""

import dataclasses

import pytest
import torch

from tests.helpers.tiny import plain
from trainers.models import adamf, adamf_mat, rotate
from trainers.training.data import Data, Features

ENTITIES, RELATIONS, LACKING = 30, 4, 6  # the first six entities lack the image, the last six the text
CPU = torch.device("cpu")


def graph() -> Data:
    draw = torch.Generator().manual_seed(0)
    train = torch.stack([torch.randint(size, (80,), generator=draw) for size in (ENTITIES, RELATIONS, ENTITIES)], 1)
    have = {"image": torch.arange(LACKING, ENTITIES), "text": torch.arange(ENTITIES - LACKING)}
    features = {
        name: Features(ids, torch.randn(len(ids), width, generator=draw) + 1)
        for (name, ids), width in zip(have.items(), (10, 7), strict=True)
    }
    return Data("options", ENTITIES, RELATIONS, train, train[:4], train[:4], features, {})


def learner(**changes) -> adamf_mat.Learner:
    changes = {"dimension": 8, "batch_size": 16, "negatives": 4, "learning_rate": 0.01, **changes}
    data, settings = graph(), adamf_mat.Settings(**changes)
    model = adamf_mat.build(data, settings, torch.Generator().manual_seed(0))
    return adamf_mat.Learner(model, data, settings, device=CPU, precision=torch.float32, seed=0)


def train(one: adamf_mat.Learner, epochs: int = 1) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    for epoch in range(epochs):
        for batch in one.batches(epoch):
            terms = one.step(batch)
    return terms


def test_mat_is_on_by_default_and_adamf_is_the_same_without_it():
    assert adamf_mat.Settings().adversarial_weight > 0
    assert adamf.Settings() == dataclasses.replace(adamf.Settings(), **vars(adamf_mat.Settings(adversarial_weight=0.0)))
    with_mat, without = learner(), learner(adversarial_weight=0.0)
    assert set(train(with_mat)) == {"link", "adversarial", "generator"}
    assert set(train(without)) == {"link"}
    assert not without.model.generators
    assert set(without.optimizers) == {"model"}


def test_the_model_and_the_generators_are_moved_by_their_own_losses_only():
    one = learner(learning_rate=0.0)
    before = {name: value.clone() for name, value in one.model.state_dict().items()}
    train(one)
    moved = {name for name, value in one.model.state_dict().items() if not torch.equal(before[name], value)}
    assert moved == {name for name in before if name.startswith("generators.")}
    one = learner(generator_learning_rate=0.0)
    before = {name: value.clone() for name, value in one.model.state_dict().items()}
    train(one)
    moved = {name for name, value in one.model.state_dict().items() if not torch.equal(before[name], value)}
    assert "entity" in moved
    assert not any(name.startswith("generators.") for name in moved)


def test_adversarial_weighting_reference_weighs_over_the_batch_per_triple_alike():
    true, fake = torch.tensor([1.0, 2.0, 0.5]), torch.tensor([0.0, 3.0, -1.0])
    miss = -torch.nn.functional.logsigmoid(-fake)
    hit = -torch.nn.functional.logsigmoid(true).mean()
    reference = learner().adversarial_loss(true, fake)
    torch.testing.assert_close(reference, (hit + (torch.softmax(2 * fake, 0) * miss).sum()) / 2)
    alike = learner(adversarial_weighting="per_triple").adversarial_loss(true, fake)
    torch.testing.assert_close(alike, (hit + miss.mean()) / 2)
    assert reference > alike


@pytest.mark.parametrize("feature_table", ["trained", "frozen"])
def test_missing_says_what_stands_for_an_absent_modality(feature_table: str):
    lacking = torch.arange(LACKING)
    image = graph().features["image"].matrix
    models = {
        missing: learner(missing=missing, feature_table=feature_table).model
        for missing in ("mean", "zero", "mask", "learned")
    }
    shown = {name: model.modality["image"] for name, model in models.items()}
    mean = shown["mean"].projection(image.mean(0))
    for name in ("mean", "learned"):
        torch.testing.assert_close(shown[name](lacking), mean.expand(LACKING, -1))
    torch.testing.assert_close(shown["zero"](lacking), shown["zero"].projection.bias.expand(LACKING, -1))
    for name, modality in shown.items():  # what is there is the same under all, whichever way it is asked for
        torch.testing.assert_close(modality()[LACKING:], modality.projection(image))
        torch.testing.assert_close(modality(torch.arange(4, 9)), modality()[4:9])
        weights = models[name].modality_weights()
        torch.testing.assert_close(weights.sum(1), torch.ones(ENTITIES))
        assert bool((weights[:LACKING, 1] == 0).all()) == (name == "mask")
        assert (weights[LACKING:, 1] > 0).all()


def test_a_learned_absence_is_one_row_for_all_and_a_mean_one_row_each():
    lacking = torch.arange(LACKING)
    learned, mean = learner(missing="learned"), learner(missing="mean")
    before = learned.model.modality["image"].absent.clone()
    train(learned), train(mean)
    assert not torch.equal(learned.model.modality["image"].absent, before)
    rows = learned.model.modality["image"](lacking)
    torch.testing.assert_close(rows, rows[:1].expand_as(rows))
    rows = mean.model.modality["image"](lacking)
    assert not torch.allclose(rows, rows[:1].expand_as(rows))


def test_an_entity_without_anything_scores_finitely_under_mask():
    one = learner(missing="mask", modalities=("image",))
    train(one)
    assert not one.model.fuse().joint[:LACKING].any()
    assert torch.isfinite(one.model.scorer()(torch.tensor([0, 20]), torch.tensor([0, 1]), "tail")).all()


def test_a_frozen_feature_table_is_neither_moved_nor_copied():
    one = learner(feature_table="frozen")
    matrix = graph().features["image"].matrix
    settings = one.settings
    data = graph()
    model = adamf_mat.build(data, settings, torch.Generator().manual_seed(0))
    assert model.modality["image"].table.data_ptr() == data.features["image"].matrix.data_ptr()
    train(one)
    assert torch.equal(one.model.modality["image"].table, matrix)
    trained = learner()
    train(trained)
    assert not torch.equal(trained.model.modality["image"].table[LACKING:], matrix)
    assert trained.model.modality["image"].table.data_ptr() != matrix.data_ptr()


def test_modalities_that_are_not_used_have_no_weights_and_no_share():
    one = learner(modalities=("structure", "text"))
    assert not any("image" in name for name in one.model.state_dict())
    assert not one.model.modality_weights()[:, 1].any()
    with pytest.raises(ValueError, match="modalities"):
        adamf_mat.Settings(modalities=())


def test_structure_alone_scores_as_rotate_does():
    one = learner(modalities=("structure",))
    assert not one.model.generators  # nothing to imitate
    data, settings = graph(), plain(rotate, dimension=8)
    other = rotate.build(data, settings, torch.Generator().manual_seed(0))
    other.range = one.model.relation_range
    with torch.no_grad():
        other.entity.copy_(one.model.entity)
        other.relation.copy_(one.model.relation)
    known, relation = torch.tensor([3, 9]), torch.tensor([1, 2])
    for side in ("head", "tail"):
        torch.testing.assert_close(one.model.scorer()(known, relation, side), other.scorer()(known, relation, side))


def test_lazy_adam_moves_only_rows_that_were_drawn_and_adam_also_the_others():
    lazy, dense = (
        learner(optimizer="lazy_adam", adversarial_weight=0.0, margin=1.0),
        learner(adversarial_weight=0.0, margin=1.0),
    )
    rows = torch.arange(5)
    first = torch.tensor([[0, 0, 1], [2, 1, 3]])
    second = torch.tensor([[10, 2, 11], [12, 1, 13]])
    for one in (lazy, dense):
        one.settings = dataclasses.replace(one.settings, negatives=0)
        one.step(one.batch(first))
    for name, value in dense.model.named_parameters():  # Adam's first step is the same, whichever way it is taken
        # …but for the place of Adam's ε, which shows where a gradient is next to nothing.
        torch.testing.assert_close(dict(lazy.model.named_parameters())[name], value, rtol=1e-5, atol=1e-4)
    held = {id(one): one.model.entity[rows].clone() for one in (lazy, dense)}
    for one in (lazy, dense):
        one.step(one.batch(second))
    assert torch.equal(lazy.model.entity[rows], held[id(lazy)])
    assert not torch.equal(dense.model.entity[:4], held[id(dense)][:4])  # its momentum carries it on
    assert not torch.equal(lazy.model.entity[10:14], learner(margin=1.0).model.entity[10:14])


def test_a_pool_bounds_the_entities_of_a_step_and_keeps_known_triples_out():
    one = learner(negative_pool=3, negatives=50)
    batch = one.triples[:20]
    torch.manual_seed(0)
    negatives = one.sampler(batch, 50, pool=3)
    known = {tuple(row) for row in one.triples.tolist()}
    rows = batch[:, None].repeat(1, 50, 1)
    rows[..., 0] = torch.where(negatives.head, negatives.entity, rows[..., 0])
    rows[..., 2] = torch.where(negatives.head, rows[..., 2], negatives.entity)
    assert not known & {tuple(row) for row in rows.flatten(0, 1).tolist()}
    common = torch.bincount(negatives.entity.flatten(), minlength=ENTITIES).sort(descending=True).values
    assert common[:3].sum() > 0.8 * common.sum()
    train(one)


def test_a_step_on_part_of_the_entities_is_that_on_all(monkeypatch: pytest.MonkeyPatch):
    whole, part = learner(), learner()
    train(whole)
    monkeypatch.setattr(adamf_mat.AdaMF, "entities", 1 << 40)
    train(part)
    for (name, one), other in zip(whole.model.named_parameters(), part.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=2e-4, msg=name)


def test_bfloat16_projects_coarsely_and_scores_in_float32():
    exact = learner()
    coarse = learner()
    coarse.precision = torch.bfloat16
    one, other = train(exact), train(coarse)
    assert other["link"].dtype == torch.float32
    assert one["link"] != other["link"]
    torch.testing.assert_close(one["link"], other["link"], rtol=0.05, atol=0)


def test_ranking_fuses_in_blocks_and_scores_the_same(monkeypatch: pytest.MonkeyPatch):
    model, known, relation = learner().model, torch.tensor([0, 29]), torch.tensor([1, 3])
    whole, weights = model.scorer()(known, relation, "tail"), model.modality_weights()
    monkeypatch.setattr(adamf_mat, "BLOCK", 7)
    seen, fuse = [], model.fuse
    monkeypatch.setattr(model, "fuse", lambda entity=None: (seen.append(entity), fuse(entity))[1])
    torch.testing.assert_close(model.scorer()(known, relation, "tail"), whole)
    torch.testing.assert_close(model.modality_weights(), weights)
    assert max(len(entity) for entity in seen) == 7
