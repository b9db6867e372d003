"""What every model on disk must do: a new one is tested the moment its file is there."""

import dataclasses

import pytest
import torch

from pipeline.errors import UserError
from tests.helpers.tiny import ENTITIES, RELATIONS, by_heart, fit, learner_of, settings_of, tiny
from trainers.about import MODELS, module_of
from trainers.evaluation import ranking
from trainers.training import loop, runs
from trainers.training.data import Features, Tokens
from trainers.training.train import filter_index

MODALITIES = [
    ("structure",),
    ("image",),
    ("text",),
    ("structure", "text"),
    ("image", "text"),
    ("structure", "text", "image"),
]


@pytest.fixture(params=MODELS)
def module(request):
    return module_of(request.param)


def test_it_learns_a_tiny_graph_by_heart_in_both_directions(module, tmp_path):
    if not module.ABOUT.memorises:
        pytest.skip("this model is never shown a fact that it is asked for")
    data = tiny()
    learner = learner_of(module, data, settings_of(module))
    ranks = ranking.rank(learner.model.eval().scorer(), data.train, filter_index(data), entities=ENTITIES)
    chance = float((2 / (ranks["candidates"] + 1)).mean())
    assert chance < 0.2
    for part in range(5):  # most need a fifth or two of the 150 epochs
        fit(learner, data, tmp_path / str(part), 30)
        found = by_heart(learner.model, data)
        if min(found["tail"]["mrr"], found["head"]["mrr"]) > module.ABOUT.memorises:
            return
    raise AssertionError(f"150 epochs give {found}")


@pytest.mark.parametrize("modalities", MODALITIES, ids="+".join)
def test_it_trains_with_any_subset_of_the_modalities(module, modalities):
    if modalities != ("structure",) and not module.ABOUT.reads:
        pytest.skip("this model knows structure only")
    data = tiny()
    learner = learner_of(module, data, settings_of(module, modalities=modalities))
    learner.model.train()
    before = {name: value.clone() for name, value in learner.model.named_parameters()}
    for batch in learner.batches(0):
        terms = learner.step(batch)
        assert all(torch.isfinite(value) for value in terms.values())
    assert any(not torch.equal(before[name], value) for name, value in learner.model.named_parameters())
    assert torch.isfinite(learner.model.eval().scorer()(torch.tensor([0, 22]), torch.tensor([0, 2]), "head")).all()


@pytest.mark.parametrize(("rows", "batch_size"), [(19, 1), (19, 18), (1, 64)])
def test_a_batch_of_one_row_trains(module, rows, batch_size):
    """Of 19 rows in batches of 18 one is left over."""
    data = tiny()
    data = dataclasses.replace(data, train=data.train[:rows])
    learner = learner_of(module, data, settings_of(module, batch_size=batch_size))
    learner.model.train()
    before = {name: value.clone() for name, value in learner.model.named_parameters()}
    for batch in learner.batches(0):
        assert all(torch.isfinite(value) for value in learner.step(batch).values())
    assert any(not torch.equal(before[name], value) for name, value in learner.model.named_parameters())
    assert all(torch.isfinite(value).all() for value in learner.model.state_dict().values())


def test_permuting_the_entities_changes_nothing(module):
    data, order = tiny(), torch.randperm(ENTITIES, generator=torch.Generator().manual_seed(1))
    new_id = torch.argsort(order)  # entity order[i] of the old graph is entity i of the new one

    def rename(triples):
        return torch.stack([new_id[triples[:, 0]], triples[:, 1], new_id[triples[:, 2]]], 1)

    def move(one):
        ids = new_id[one.entity]
        rank = torch.argsort(ids)
        if isinstance(one, Features):
            return Features(ids[rank], one.matrix[rank])
        lists = [one.values[one.offsets[i] : one.offsets[i + 1]] for i in rank.tolist()]
        length = torch.tensor([0] + [len(one) for one in lists])
        return Tokens(ids[rank], length.cumsum(0), torch.cat(lists), one.token_id, one.codebook)

    moved = dataclasses.replace(
        data,
        **{part: rename(getattr(data, part)) for part in ("train", "dev", "test")},
        features={name: move(one) for name, one in data.features.items()},
        tokens={name: move(one) for name, one in data.tokens.items()},
    )
    settings = settings_of(module)
    model, other = (module.build(one, settings, torch.Generator().manual_seed(0)) for one in (data, moved))
    # Weights start at random by position: give the moved model the first one's, its entities' rows moved as well.
    own, weights = dict(other.named_parameters()), {}
    for name, value in model.named_parameters():
        weights[name] = value[order] if value.shape[0] == ENTITIES and own[name].shape[0] == ENTITIES else value
        if own[name].shape != value.shape or (name.endswith("table") and value.shape[0] != ENTITIES):
            weights[name] = own[name]  # a table of the entities that have a modality: data, in the order of the data
    other.load_state_dict(weights, strict=False)
    known, relation = torch.arange(ENTITIES), torch.arange(ENTITIES) % RELATIONS
    for side in ("head", "tail"):
        here = model.eval().scorer()(known, relation, side)
        there = other.eval().scorer()(new_id[known], relation, side)
        torch.testing.assert_close(there[:, new_id], here, rtol=1e-4, atol=1e-5)


def test_the_number_of_queries_at_once_changes_no_score(module):
    model = module.build(tiny(), settings_of(module), torch.Generator().manual_seed(0)).eval()
    known, relation = torch.arange(ENTITIES), torch.arange(ENTITIES) % RELATIONS
    score = model.scorer()
    whole = score(known, relation, "tail")
    single = torch.cat([score(known[i : i + 1], relation[i : i + 1], "tail") for i in range(ENTITIES)])
    assert whole.dtype == torch.float32
    assert whole.shape == (ENTITIES, ENTITIES)
    torch.testing.assert_close(single, whole, rtol=1e-5, atol=1e-5)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(module, tmp_path):
    data, settings = tiny(), settings_of(module)

    def weights(seed, name):
        learner = learner_of(module, data, settings, seed)
        loop.fit(learner, lambda model: 0.5, triples=55, epochs=2, evaluate_every=2, patience=0, checkpoint_every=0,
                 seed=seed, work=tmp_path / name, show=False)  # fmt: skip
        return learner.model.state_dict()

    first, again, other = weights(3, "a"), weights(3, "b"), weights(4, "c")
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_an_interrupted_run_ends_with_the_weights_of_one_that_was_not(module, tmp_path):
    data, settings = tiny(), settings_of(module)
    plan = {"evaluate_every": 1, "checkpoint_every": 2}
    whole = learner_of(module, data, settings)
    fit(whole, data, tmp_path / "whole", 6, **plan)

    class Killed(Exception):
        pass

    broken = learner_of(module, data, settings)
    step, taken = broken.step, []

    def step_until_killed(batch):
        taken.append(1)
        if len(taken) > 4 * broken.steps_per_epoch + 1:
            raise Killed
        return step(batch)

    broken.step = step_until_killed
    with pytest.raises(Killed):
        fit(broken, data, tmp_path / "broken", 6, **plan)
    resumed = learner_of(module, data, settings)
    progress = fit(resumed, data, tmp_path / "broken", 6, **plan)
    expected = whole.model.state_dict()
    assert progress.epoch == 6
    assert all(torch.equal(expected[name], value) for name, value in resumed.model.state_dict().items())


def test_a_saved_run_loads_with_one_call_and_scores_the_same(module, tmp_path):
    data, settings = tiny(), settings_of(module)
    learner = learner_of(module, data, settings)
    progress = fit(learner, data, tmp_path / "work", 2)
    name = module.__name__.rpartition(".")[2]
    about = runs.describe(data, model=name, settings=settings, split="clean", encoders={}, seed=0,
                          device=torch.device("cpu"), precision=torch.float32, progress=progress)  # fmt: skip
    runs.save_run(tmp_path / "run", learner.model, about, progress.history)
    run = runs.load_run(tmp_path / "run")
    known, relation = torch.tensor([0, 5, 22]), torch.tensor([0, 1, 2])
    for side in ("head", "tail"):
        assert torch.equal(run.score(known, relation, side), learner.model.eval().scorer()(known, relation, side))


def test_a_run_of_an_older_version_says_so(tmp_path):
    settings = '"settings": {"width": 256, "mu": 0.1, "epochs": 2}'
    (tmp_path / "run.json").write_text(f'{{"model": "momok", "graph": "mini", "shapes": {{}}, {settings}}}')
    with pytest.raises(UserError, match=r"made by an older version \(mu, width are no settings now\); train it again"):
        runs.load_run(tmp_path)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_it_trains_and_scores_on_a_gpu(module, tmp_path):
    data, settings, device = tiny(), settings_of(module), torch.device("cuda")
    model = module.build(data, settings, torch.Generator().manual_seed(0)).to(device)
    learner = module.Learner(model, data, settings, device=device, precision=torch.float32, seed=0)
    for batch in learner.batches(0):
        assert all(value.device.type == "cuda" for value in learner.step(batch).values())
    scores = learner.model.eval().scorer()(torch.tensor([0], device=device), torch.tensor([0], device=device), "tail")
    assert torch.isfinite(scores).all()
