"""Perturbations do what a study says they do, are nested, and touch nothing else; exchanging modalities likewise."""

from dataclasses import replace

import pytest
import torch

from pipeline.errors import UserError
from tests.helpers.tiny import ENTITIES, settings_of, tiny
from tests.helpers.tiny_pictures import pictures
from trainers.about import MODELS, about_model, module_of
from trainers.parts.replace_modality import replace_modality
from trainers.training.perturb import CHANGES, Change, covered, uncovered

SHARES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
READERS = [name for name in MODELS if len(about_model(name).reads) == 1]


def same(a, b) -> bool:
    """Whether two modalities hold the same rows."""
    names = [name for name, value in vars(a).items() if isinstance(value, torch.Tensor)]
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in names)


def lists(tokens) -> dict[int, list[list[int]]]:
    """The token lists of each entity."""
    found: dict[int, list[list[int]]] = {}
    for row, entity in enumerate(tokens.entity.tolist()):
        found.setdefault(entity, []).append(tokens.values[tokens.offsets[row] : tokens.offsets[row + 1]].tolist())
    return found


def rows(features) -> list[tuple[int, list[float]]]:
    """Each entity with its feature."""
    return list(zip(features.entity.tolist(), features.matrix.tolist(), strict=True))


@pytest.mark.parametrize("name", [name for name in CHANGES if name != "first_pictures"])
def test_strength_zero_changes_nothing_and_dev_and_test_are_never_touched(name):
    data = pictures()
    untouched = Change(name, 0.0, 1, ("text", "image"))(data)
    assert torch.equal(untouched.train, data.train)
    for kind in ("features", "tokens"):
        for of in ("text", "image"):
            assert same(getattr(untouched, kind)[of], getattr(data, kind)[of])
    changed = Change(name, 0.5, 1, ("text", "image"))(data)
    assert torch.equal(changed.dev, data.dev)
    assert torch.equal(changed.test, data.test)
    differs = [not same(getattr(changed, kind)[of], getattr(data, kind)[of])
               for kind in ("features", "tokens") for of in ("text", "image")]  # fmt: skip
    assert any(differs) or not torch.equal(changed.train[: len(data.train)], data.train)


@pytest.mark.parametrize("name", list(CHANGES))
def test_a_seed_decides_all(name):
    data, strength = pictures(), 1 if name == "first_pictures" else 0.5
    a, b = (Change(name, strength, 3, ("text", "image"))(data) for _ in range(2))
    other = Change(name, strength, 4, ("text", "image"))(data)
    assert torch.equal(a.train, b.train)
    assert all(same(a.features[of], b.features[of]) and same(a.tokens[of], b.tokens[of]) for of in ("text", "image"))
    if name != "first_pictures":
        assert not (
            torch.equal(a.train, other.train)
            and same(a.features["image"], other.features["image"])
            and same(a.tokens["image"], other.tokens["image"])
        )


def test_missing_takes_the_share_from_the_same_entities_of_each_modality_and_is_nested():
    data, before = tiny(), None
    for share in SHARES:
        left = Change("missing", share, 0, ("text", "image"))(data)
        gone = [
            set(data.features[of].entity.tolist()) - set(left.features[of].entity.tolist()) for of in ("text", "image")
        ]
        both = gone[0] | gone[1]
        assert set(left.tokens["image"].entity.tolist()) == set(left.features["image"].entity.tolist())
        assert not (
            both & set(left.features["text"].entity.tolist()) | both & set(left.features["image"].entity.tolist())
        )
        assert abs(len(both) - share * ENTITIES) <= 1
        assert before is None or before <= both
        before = both
    assert covered(left, "text") == covered(left, "image") == 0


def test_missing_leaves_the_other_modality_and_every_remaining_row_as_it_was():
    data = tiny()
    left = Change("missing", 0.5, 0, ("image",))(data)
    assert same(left.features["text"], data.features["text"])
    assert same(left.tokens["text"], data.tokens["text"])
    have, kept = lists(data.tokens["image"]), lists(left.tokens["image"])
    assert 0 < len(kept) < len(have)
    assert all(have[entity] == rows for entity, rows in kept.items())
    rows = torch.searchsorted(data.features["image"].entity, left.features["image"].entity)
    assert torch.equal(left.features["image"].matrix, data.features["image"].matrix[rows])


def test_feature_noise_has_the_deviation_that_it_names_and_grows_along_one_direction():
    data = tiny()
    wide = replace(data, features={"text": replace(data.features["text"], matrix=torch.randn(20, 4000) * 3)})
    given = wide.features["text"].matrix
    half, double = (Change("feature_noise", s, 0, ("text",))(wide).features["text"].matrix - given for s in (0.5, 2.0))
    assert (half / given.std(0, unbiased=False)).std().item() == pytest.approx(0.5, rel=0.02)
    assert torch.allclose(half * 4, double, atol=1e-3)


def test_token_noise_replaces_the_share_each_by_another_token_and_is_nested():
    data, hit = tiny(), None
    given = data.tokens["image"].values
    for share in SHARES:
        found = Change("token_noise", share, 0, ("image",))(data).tokens["image"].values
        changed = found != given
        assert int(changed.sum()) == round(share * len(given))
        assert hit is None or bool(changed[hit].all())
        hit = changed
    assert int(found.max()) < len(data.tokens["image"].codebook)


def test_swapped_pictures_go_to_others_as_whole_and_alike_in_features_and_tokens():
    data = pictures()
    found = Change("swapped", 0.5, 0, ("image",))(data)
    before, after = lists(data.tokens["image"]), lists(found.tokens["image"])
    assert sorted(map(str, before.values())) == sorted(map(str, after.values()))
    vectors = {tuple(row): entity for entity, row in rows(data.features["image"])}
    source = {entity: vectors[tuple(row)] for entity, row in rows(found.features["image"])}
    assert all(after[entity] == before[whose] for entity, whose in source.items())
    assert sum(entity != whose for entity, whose in source.items()) == round(0.5 * len(before))
    assert torch.equal(found.tokens["image"].entity, found.tokens["image"].entity.sort()[0])
    everyone = Change("swapped", 1.0, 0, ("image",))(data)
    assert not (everyone.features["image"].matrix == data.features["image"].matrix).all(1).any()


def test_wrong_links_are_no_facts_and_differ_at_one_end():
    data = tiny()
    found = Change("wrong_links", 0.5, 0)(data).train
    facts = {tuple(row) for one in (data.train, data.dev, data.test) for row in one.tolist()}
    wrong = (found != data.train).any(1)
    assert int(wrong.sum()) == round(0.5 * len(data.train))
    assert not {tuple(row) for row in found[wrong].tolist()} & facts
    assert len({tuple(row) for row in found.tolist()}) == len(found)
    assert ((found != data.train)[wrong].sum(1) == 1).all()
    assert torch.equal(found[:, 1], data.train[:, 1])
    more = Change("wrong_links", 0.8, 0)(data).train
    assert torch.equal(more[wrong], found[wrong])


def test_sparse_links_keep_every_entity_and_relation_and_are_nested():
    data, before = tiny(), None
    for share in SHARES:
        left = Change("fewer_links", share, 0)(data)
        rows = {tuple(row) for row in left.train.tolist()}
        assert before is None or rows <= before
        assert uncovered(left) == uncovered(data)
        assert torch.equal(torch.unique(left.train[:, 1]), torch.unique(data.train[:, 1]))
        if share <= 0.4:
            assert len(left.train) == len(data.train) - round(share * len(data.train))
        before = rows
    assert 0 < len(left.train) < len(data.train) / 2


def test_the_first_pictures_stay():
    data = pictures()
    before = lists(data.tokens["image"])
    for number in (1, 2, 8):
        after = lists(Change("first_pictures", number, 0, ("image",))(data).tokens["image"])
        assert after == {entity: rows[:number] for entity, rows in before.items()}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (Change("missing", 1.5), "0 to 1"),
        (Change("wrong_links", -0.1), "0 to 1"),
        (Change("first_pictures", 0), "at least 1"),
        (Change("nothing", 0.5), "known: missing"),
    ],
)
def test_what_cannot_be_done_is_said(change, words):
    with pytest.raises(UserError, match=words):
        change(tiny())


def scores(model) -> torch.Tensor:
    return model.eval().scorer()(torch.arange(ENTITIES), torch.zeros(ENTITIES, dtype=torch.int64), "tail")


def trained(module, data, **changes):
    """A model a few steps from its start."""
    settings = settings_of(module, **changes)
    model = module.build(data, settings, torch.Generator().manual_seed(0))
    learner = module.Learner(model, data, settings, device=torch.device("cpu"), precision=torch.float32, seed=0)
    model.train()
    for epoch in range(3):
        for batch in learner.batches(epoch):
            learner.step(batch)
    return model


@pytest.mark.parametrize("table", ["trained", "frozen"])
@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("missing", ["mean", "zero", "mask", "learned"])
def test_exchanging_nothing_changes_nothing_and_taking_away_changes_those_entities(name, missing, table):
    module, data = module_of(name), tiny()
    if table == "frozen" and not hasattr(module.Settings, "feature_table"):
        pytest.skip("this model always trains its features")
    model = trained(module, data, missing=missing, feature_table=table)
    before = scores(model)
    assert torch.allclose(scores(replace_modality(model, data, data, *module.ABOUT.reads)), before, atol=1e-6)
    less = Change("missing", 0.5, 0, ("text", "image"))(data)
    after = scores(replace_modality(model, data, less, *module.ABOUT.reads))
    assert torch.isfinite(after).all()
    gone = set(data.features["text"].entity.tolist()) - set(less.features["text"].entity.tolist())
    stay = [entity for entity in range(ENTITIES) if entity not in gone and entity in less.features["image"].entity]
    moved = (after - before).abs().amax(0)
    assert moved[sorted(gone)].min() > 1e-6
    # Between two entities that kept everything nothing changes.
    assert torch.allclose(after[stay][:, stay], before[stay][:, stay], atol=1e-5)


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("missing", ["mean", "mask", "learned"])
def test_what_was_never_seen_in_training_counts_once_it_is_given(name, missing):
    module, data = module_of(name), tiny()
    less = Change("missing", 1.0, 0, ("text",))(data)
    model = trained(module, less, missing=missing)
    before = scores(model)
    after = scores(replace_modality(model, less, data, *module.ABOUT.reads))
    have = data.features["text"].entity
    assert (after - before).abs().amax(0)[have].min() > 1e-6


@pytest.mark.parametrize("name", [name for name in READERS if name != "mygo"])
def test_a_missing_row_is_the_mean_of_the_trained_ones(name):
    module, data = module_of(name), tiny()
    model = trained(module, data)
    part = next(
        part for path, part in model.named_modules() if path.endswith(".text") and hasattr(part, "replace_modality")
    )
    rows = part.table[data.features["text"].entity].detach().clone()
    replace_modality(model, data, Change("missing", 1.0, 0, ("text",))(data), *module.ABOUT.reads)
    assert torch.allclose(part.table[data.features["text"].entity], rows.mean(0).expand_as(rows), atol=1e-6)
    assert not torch.allclose(rows, rows.mean(0).expand_as(rows), atol=1e-2)
