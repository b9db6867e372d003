"""MoMoK's options: each is shown by the difference that it makes."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from trainers.models import momok
from trainers.models.momok import JOINT, Settings
from trainers.parts.features import pool
from trainers.training.data import Data, Features
from trainers.training.kvsall import draw_candidates

ENTITIES, RELATIONS = 15, 3
SMALL = Settings(batch_size=16, dimension=6, relation_dimension=5, feature_dimension=8)


@pytest.fixture(autouse=True)
def one_thread():
    """Starting threads costs more than these sizes do."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def graph() -> Data:
    draw = torch.Generator().manual_seed(0)
    triples = torch.stack([torch.randint(n, (40,), generator=draw) for n in (ENTITIES, RELATIONS, ENTITIES)], dim=1)
    have = {"image": torch.arange(2, ENTITIES), "text": torch.arange(0, ENTITIES, 2)}
    features = {name: Features(ids, torch.rand(len(ids), 12, generator=draw)) for name, ids in have.items()}
    return Data("small", ENTITIES, RELATIONS, triples, triples[:5], triples[:5], features, {})


def learner(seed: int = 0, **changes) -> momok.Learner:
    data, settings = graph(), dataclasses.replace(SMALL, **changes)
    model = momok.build(data, settings, torch.Generator().manual_seed(seed))
    return momok.Learner(model, data, settings, device=torch.device("cpu"), precision=torch.float32, seed=seed)


def trained(steps: int = 1, **changes) -> tuple[momok.Learner, dict[str, torch.Tensor]]:
    one = learner(**changes)
    one.model.train()
    torch.manual_seed(0)
    for _, batch in zip(range(steps), one.batches(0), strict=False):
        terms = one.step(batch)
    return one, terms


def scores(model: momok.MoMoK, side: str = "tail") -> torch.Tensor:
    known = torch.arange(ENTITIES)
    return model.scorer()(known, known % RELATIONS, side)


def test_build_draws_from_its_generator_alone():
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first, again, other = (learner(seed).model.state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["relation.structure"], other["relation.structure"])


def test_mean_and_zero_start_a_row_for_those_who_lack_the_image():
    mean, zero = (learner(missing=missing).model.tables["image"].table for missing in ("mean", "zero"))
    assert torch.equal(zero[:2], torch.zeros(2, 8))
    torch.testing.assert_close(mean[0], zero[2:].mean(0))
    assert torch.equal(mean[2:], zero[2:])


def test_learned_gives_one_vector_to_all_who_lack_the_image():
    one, _ = trained(missing="learned")
    table = one.model.tables["image"]
    assert table.table.shape == (ENTITIES - 2, 8)
    assert torch.equal(table(torch.tensor([0, 1, 0])), table.absent.expand(3, -1))
    assert not torch.equal(table.absent, learner(missing="learned").model.tables["image"].absent)


def test_mask_asks_a_modality_only_where_both_sides_have_it():
    model = learner(missing="mask").model
    before = scores(model)
    with torch.no_grad():
        model.scorers["image"].bn1.bias += 5  # what the image says changes …
    changed = scores(model) != before
    assert not changed[:2].any()  # … but not for known entities without one,
    assert not changed[:, :2].any()  # nor for candidates without one
    assert changed[2:, 2:].all()


def test_mask_trains_nothing_with_what_is_not_there():
    one = learner(missing="mask", modalities=("image", "text"))
    one.model.train()
    batch = next(one.batches(0))
    lacks = torch.tensor([0, 1])
    alone = dataclasses.replace(batch, known=lacks[torch.arange(len(batch.known)) % 2])
    found, _ = one.model.represent(alone.known, alone.relation)
    queries = one.model.queries(found, alone)
    seen, _ = one.model.represent(None)
    counted = one.model.counted("image", alone, draw_candidates(alone, one.model.entities, None))
    loss = momok.link_loss(queries["image"], seen["image"], alone.row, alone.answer, **counted)
    assert float(loss.detach()) == 0
    assert int(counted["entities"]) == ENTITIES - 2


def test_fusion_leaves_a_masked_modality_out():
    fusion = momok.Fusion({"a": 4, "b": 4}, 4, 0.0)
    a, b = torch.rand(3, 4), torch.rand(3, 4)
    present = torch.tensor([[True, False], [True, True], [False, False]])
    with_b, without_b = fusion({"a": a, "b": b}, present), fusion({"a": a, "b": b + 1}, present)
    assert torch.equal(with_b[0], without_b[0])
    assert not torch.equal(with_b[1], without_b[1])
    assert torch.equal(with_b[2], torch.zeros(4))


def test_the_four_answers_to_missing_features_differ():
    results = [scores(trained(2, missing=missing)[0].model) for missing in ("mean", "zero", "mask", "learned")]
    for i, one in enumerate(results):
        assert torch.isfinite(one).all()
        assert all(not torch.allclose(one, other) for other in results[:i])


@pytest.mark.parametrize("changes", [{"information_weight": 0.0}, {"experts": 1}], ids=str)
def test_without_mutual_information_there_are_no_estimators(changes):
    _, terms = trained(**changes)
    one, _ = trained(**changes)
    assert set(terms) == {"link"}
    assert not one.model.estimators
    assert set(one.optimizers) == {"model"}


def test_mutual_information_is_weighted_by_mu_and_pulls_on_the_experts_alone():
    _, terms = trained(information_weight=1e-4)
    _, heavier = trained(information_weight=2e-4)
    assert set(terms) == {"link", "mutual_information", "estimators"}
    assert float(heavier["mutual_information"]) == pytest.approx(2 * float(terms["mutual_information"]), rel=1e-4)
    model = learner().model
    _, outputs = model.represent(torch.arange(5), torch.zeros(5, dtype=torch.int64))
    model.mutual_information(outputs, (0, 2), torch.randperm(5)).backward()
    pulled = {name for name, value in model.named_parameters() if value.grad is not None and value.grad.any()}
    assert {name.split(".")[0] for name in pulled} == {"tables", "experts", "estimators"}
    gradient = model.experts["text"].weight.grad
    assert gradient[0].any()
    assert gradient[2].any()
    assert not gradient[1].any()


def test_each_optimizer_moves_its_own_parameters_only():
    one = learner()
    one.model.train()
    before = {name: value.clone() for name, value in one.model.named_parameters()}
    one.train_estimators(next(one.batches(0)))
    for name, value in one.model.named_parameters():
        assert name.startswith("estimators.") or torch.equal(value, before[name])
    assert not torch.equal(one.model.estimators["text"].mean[0].weight, before["estimators.text.mean.0.weight"])
    held = {id(value) for group in one.optimizers["model"].param_groups for value in group["params"]}
    assert not held & {id(value) for value in one.model.estimators.parameters()}


def test_estimators_learn_to_predict_one_expert_from_another():
    one = learner()
    outputs = {
        name: torch.randn(200, 1, width).repeat(1, 2, 1)
        for name, width in (("structure", 6), ("image", 8), ("text", 8))
    }
    optimizer = torch.optim.Adam(one.model.estimators.parameters(), lr=0.02)
    for _ in range(150):
        optimizer.zero_grad()
        one.model.surprise(outputs, (0, 1)).backward()
        optimizer.step()
    order = torch.randperm(200)
    same = one.model.mutual_information(outputs, (0, 1), order)
    independent = {
        name: torch.stack([output[:, 0], torch.randn_like(output[:, 0])], 1) for name, output in outputs.items()
    }
    assert float(same.detach()) > 1
    assert float(same.detach()) > 3 * abs(float(one.model.mutual_information(independent, (0, 1), order).detach()))


def test_sampled_candidates_change_the_step_and_fewer_are_compared(monkeypatch):
    compared = []
    represent = momok.MoMoK.represent

    def watch(self, entities, relation=None):
        compared.append(ENTITIES if entities is None else len(entities))
        return represent(self, entities, relation)

    monkeypatch.setattr(momok.MoMoK, "represent", watch)
    whole, _ = trained()
    assert compared[1] == ENTITIES
    compared.clear()
    some, _ = trained(candidates=2)
    batch = next(some.batches(0))
    assert compared[1] == 2 + len(batch.answers)
    assert not torch.equal(scores(whole.model), scores(some.model))
    assert torch.allclose(scores(trained(candidates=ENTITIES)[0].model), scores(whole.model))


def test_the_joint_modality_needs_two():
    assert JOINT in learner(modalities=("image", "text")).model.scorers
    assert JOINT not in learner(modalities=("image",)).model.scorers


def test_the_head_is_asked_for_by_the_reciprocal_relation():
    model = learner().model
    known, relation = torch.arange(ENTITIES), torch.arange(ENTITIES) % RELATIONS
    tail, head = scores(model), scores(model, "head")
    assert not torch.allclose(tail, head)
    with torch.no_grad():
        for table in [*model.relation.values(), model.temperature]:
            table.copy_(table.roll(RELATIONS, 0))
    torch.testing.assert_close(scores(model), head)
    assert torch.equal(known % RELATIONS, relation)


def test_gates_add_up_and_depend_on_the_relation():
    model = trained(3)[0].model
    with torch.no_grad():
        for experts in model.experts.values():
            experts.gate.normal_()
    known, relation = torch.tensor([4, 4, 5]), torch.tensor([0, 1, 0])
    gates = model.gates(relation, known)
    mean = model.gates(torch.tensor([1]))
    every = model.gates(torch.ones(ENTITIES, dtype=torch.int64), torch.arange(ENTITIES))
    for name in ("structure", "text", "image"):
        torch.testing.assert_close(gates[name].sum(1), torch.ones(3))
        assert not torch.allclose(gates[name][0], gates[name][1])
        torch.testing.assert_close(mean[name][0], every[name].mean(0))


def test_gate_noise_falls_in_training_only():
    experts, x = momok.Experts(4, 3, noise=True), torch.rand(5, 4)
    assert not torch.equal(experts.gates(x), experts.gates(x))
    assert torch.equal(experts.eval().gates(x), torch.full((5, 3), 1 / 3))
    assert torch.equal(momok.Experts(4, 3, noise=False).train().gates(x), torch.full((5, 3), 1 / 3))


def test_pooling_is_the_reference_codes_for_its_widths():
    wide = torch.rand(3, 4096)
    block = F.normalize(wide, dim=1)[1].reshape(64, 64)[4:8, 60:64]  # output row 1, column 15
    assert float(pool(wide, 256)[1, 16 + 15]) == pytest.approx(float(block.mean()), rel=1e-5)
    text = torch.rand(2, 768)
    rows = F.normalize(text, dim=1)[0].reshape(12, 64)[3:6, 7]
    assert float(pool(text, 256)[0, 64 + 7]) == pytest.approx(float(rows.mean()), rel=1e-5)


def test_other_widths_are_pooled_over_neighbours_or_kept():
    rows = torch.rand(2, 512)
    torch.testing.assert_close(pool(rows, 256), F.normalize(rows, dim=1).reshape(2, 256, 2).mean(2))
    assert pool(torch.rand(2, 383), 256).shape == (2, 256)
    for width, to in ((200, 256), (512, 0), (256, 256)):
        kept = torch.rand(2, width)
        torch.testing.assert_close(pool(kept, to), F.normalize(kept, dim=1))


def test_an_epoch_is_the_same_again_after_reseeding():
    def run() -> dict[str, torch.Tensor]:
        one = learner()
        one.model.train()
        for epoch in range(2):
            torch.manual_seed(epoch)
            for batch in one.batches(epoch):
                one.step(batch)
        return one.model.state_dict()

    first, again = run(), run()
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_bfloat16_trains_close_to_float32():
    def run(precision: torch.dtype) -> float:
        one = learner(dropout=(0.0, 0.0, 0.0), fusion_dropout=0.0, gate_noise=False)
        one.precision = precision
        one.model.train()
        torch.manual_seed(0)
        return float(np.mean([float(one.step(batch)["link"]) for batch in one.batches(0)]))

    assert run(torch.bfloat16) == pytest.approx(run(torch.float32), rel=0.02)


def test_modalities_must_be_named_once():
    with pytest.raises(ValueError, match="at least one"):
        Settings(modalities=())
