"""A run says why it answers so: ranks without a modality, weights, near facts; and gives its vectors with keys."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.errors import UserError
from tests.helpers.tiny import ENTITIES, RELATIONS, tiny
from trainers.about import about_model
from trainers.parts.replace_modality import replace_modality

MODELS = ("adamf_mat", "momok", "mygo", "rotate", "complex", "mosaic")


@pytest.mark.parametrize("model", MODELS)
def test_the_rank_is_that_among_what_is_not_known_with_and_without_each_modality(runs, model):
    run, data = runs[model], tiny()
    head, relation, tail = data.test[0].tolist()
    found = run.explain(f"e{head}", ["band member", "genre", "r"][relation], f"e{tail}")
    scores = run.score([head], [relation], "tail")[0]
    every = torch.cat([data.train, data.dev, data.test])
    known = every[(every[:, 0] == head) & (every[:, 1] == relation)][:, 2]
    rivals = np.setdiff1d(np.arange(ENTITIES), known[known != tail].numpy())
    assert found.rank == 1 + int((scores[rivals] > scores[tail]).sum())
    assert found.rivals == len(rivals)
    assert set(found.without) == ({"image", "text"} if model in ("adamf_mat", "momok", "mygo") else set())
    assert str(found).startswith(f"Entity {head}" if head not in (4, 5, 9) else ("Mercury", "e8"))
    for fact in found.facts:
        assert -1.001 <= fact.likeness <= 1.001


def test_a_fact_that_the_run_was_trained_on_is_said_to_be_one(runs):
    head, relation, tail = tiny().train[0].tolist()
    found = runs["rotate"].explain(f"e{head}", ["band member", "genre", "r"][relation], f"e{tail}")
    assert found.known == ["train"]
    assert found.probability is None
    assert "a fact of train, which the run has learnt from or was chosen by" in found.lines()
    head, relation, tail = tiny().test[0].tolist()
    assert runs["rotate"].explain(f"e{head}", ["band member", "genre", "r"][relation], f"e{tail}").known == []


@pytest.mark.parametrize("model", ["adamf_mat", "momok", "mygo"])
def test_without_a_modality_the_rank_is_that_of_the_model_whose_entities_lack_it(runs, model):
    """Ranks of three facts, against those of the model with the modality's part replaced here, one by one."""
    run, data = runs[model], tiny()
    kind = str(about_model(model).reads[0])
    differ = 0
    for head, relation, tail in data.test[:3].tolist():
        found = run.explain(f"e{head}", ["band member", "genre", "r"][relation], f"e{tail}")
        every = torch.cat([data.train, data.dev, data.test])
        known = every[(every[:, 0] == head) & (every[:, 1] == relation)][:, 2]
        rivals = np.setdiff1d(np.arange(ENTITIES), known[known != tail].numpy())
        for name in ("image", "text"):
            nobody = {**getattr(data, kind), name: of_nobody(getattr(data, kind)[name])}
            bare = replace_modality(copy.deepcopy(run.model), data, replace(data, **{kind: nobody}), kind).eval()
            scores = bare.scorer()([head], [relation], "tail")[0]
            assert found.without[name] == 1 + int((scores[rivals] > scores[tail]).sum())
            differ += found.without[name] != found.rank
    assert differ, "a modality that changes no rank shows nothing"


def of_nobody(held):
    if hasattr(held, "matrix"):
        return replace(held, entity=held.entity[:0], matrix=held.matrix[:0])
    return replace(held, entity=held.entity[:0], offsets=held.offsets[:1], values=held.values[:0])


@pytest.mark.parametrize("model", ["adamf_mat", "momok", "mygo"])
def test_what_counts_adds_up_to_one(runs, model):
    found = runs[model].explain("e3", "genre", "e8", side="head")
    assert found.weights
    for parts in found.weights.values():
        assert sum(parts.values()) == pytest.approx(1, abs=1e-4)
    assert bool(found.tokens) == (model == "mygo")
    assert about_model(model).explains


@pytest.mark.parametrize("model", ["adamf_mat", "mygo"])
def test_two_entities_of_one_label_are_told_apart(runs, model):
    """Both are "Mercury"."""
    found = runs[model].explain("e4", "genre", "e5")
    assert list(found.weights) == ["e4", "e5"]
    assert found.weights["e4"] != found.weights["e5"]
    assert list(found.tokens) == (["e4", "e5"] if model == "mygo" else [])
    said = [line for line in found.lines() if line.startswith(("Mercury (e4): ", "Mercury (e5): "))]
    assert len(said) == 2
    other = runs[model].explain("e4", "genre", "e3")
    assert any(line.startswith("Mercury: ") for line in other.lines()), "no key where the labels differ"


def test_attention_is_computed_once_and_of_the_two_entities_alone(runs, monkeypatch):
    """Of all entities of a large graph it is what an explanation would take its time for."""
    model = runs["mygo"].model
    calls, real = [], model.attention
    monkeypatch.setattr(model, "attention", lambda rows: calls.append(rows.tolist()) or real(rows))
    found = runs["mygo"].explain("e3", "genre", "e8")
    assert found.weights
    assert found.tokens
    assert calls == [[3, 8]]


def test_weights_of_the_two_entities_are_those_among_all(runs):
    model, ends = runs["adamf_mat"].model, [8, 3]
    weights = model.modality_weights()[ends]
    shown = runs["adamf_mat"].explain("e8", "genre", "e3").weights
    assert [list(parts.values()) for parts in shown.values()] == [pytest.approx(row.tolist()) for row in weights]
    attention = runs["mygo"].model.attention()
    assert torch.allclose(runs["mygo"].model.attention(torch.tensor(ends)), attention[ends], atol=1e-6)


def test_mosaic_names_its_evidence(runs):
    assert any("structure" in line for line in runs["mosaic"].explain("e3", "genre", "e8").reasons)


def test_near_facts_are_of_train_and_share_an_entity(runs):
    train = {tuple(row) for row in tiny().train.tolist()}
    labels = runs["rotate"].ask("e0", "r", k=ENTITIES).set_index("label")["key"]
    head, relation, tail = next(row for row in sorted(train) if {row[0], row[2]}.isdisjoint({4, 5, 9}))
    other = next(one for one in range(ENTITIES) if one not in (head, tail, 4, 5, 9))
    facts = runs["rotate"].explain(f"e{head}", ["band member", "genre", "r"][relation], f"e{other}").facts
    named = {(int(labels[one.head][1:]), relation, int(labels[one.tail][1:])) for one in facts}
    assert (head, relation, tail) in named
    assert named <= train


@pytest.mark.parametrize("model", MODELS)
def test_embeddings_are_arrays_with_keys(runs, model):
    found = runs[model].embeddings()
    assert found.entity_keys == [f"e{i}" for i in range(ENTITIES)]
    assert found.entities
    assert found.relations
    assert all(one.shape[0] == ENTITIES for one in found.entities.values())
    assert all(one.shape[0] in (RELATIONS, 2 * RELATIONS) for one in found.relations.values())
    if model in ("adamf_mat", "momok"):
        assert {"structure", "text", "image", "joint"} <= set(found.entities)
    if model == "rotate":
        assert np.array_equal(found.entities["structure"], runs[model].model.entity.detach().numpy())


def test_another_side_is_refused(runs):
    with pytest.raises(UserError, match="'head' or 'tail'"):
        runs["rotate"].explain("e3", "genre", "e8", side="left")
