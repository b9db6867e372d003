"""A run answers for entities that it was not trained with, by their text and picture, and refuses in a sentence."""

import numpy as np
import pytest
import torch

from pipeline.errors import UserError
from tests.helpers.tiny import ENTITIES, RELATIONS, tiny
from trainers.about import about_model
from trainers.answers.unseen import NewEntity, with_rows
from trainers.parts.unseen import STAND_INS, likeness, structure, with_entities
from trainers.training.data import load

MODELS = ("adamf_mat", "momok", "mygo", "mosaic")


def newcomer(of: int, **changes) -> NewEntity:
    """With the text and the picture of an entity of the graph."""
    data = tiny()
    features = {name: one.matrix[one.entity == of][0].numpy() for name, one in data.features.items()}
    tokens = {}
    for name, one in data.tokens.items():
        at = int((one.entity == of).nonzero())
        tokens[name] = one.token_id[one.values[one.offsets[at] : one.offsets[at + 1]]].tolist()
    return NewEntity(**{"name": "The Unheard", "features": features, "tokens": tokens, **changes})


@pytest.mark.parametrize("model", MODELS)
def test_it_is_asked_about_and_is_an_answer_by_what_the_model_reads_of_it(runs, model):
    run, like, other = runs[model], newcomer(7), newcomer(12)
    found = run.ask(like, "genre", k=ENTITIES + 1)
    known = run.ask("e7", "genre", k=ENTITIES)["label"].tolist()
    assert sorted(found["label"].tolist()) == sorted(known)  # it is asked about, and no answer to itself
    named = run.ask(like, "genre", k=ENTITIES + 1, new=[like])["label"].tolist()
    assert sorted(named) == sorted([*known, "The Unheard"])
    assert "probability" not in found
    assert not found[["known_in_train", "known_in_dev", "right_in_test"]].any(axis=None)
    order = found["key"].tolist()
    assert order != run.ask(other, "genre", k=ENTITIES + 1)["key"].tolist()
    answers = run.ask(relation="genre", tail="e3", k=ENTITIES + 1, new=[like]).set_index("key")
    again = run.ask(relation="genre", tail="e3", k=ENTITIES + 1, new=[other]).set_index("key")
    assert answers.loc["The Unheard", "score"] != again.loc["The Unheard", "score"]
    if model != "mosaic":  # of which each scorer's probabilities are shares among all entities
        alone = run.ask(relation="genre", tail="e3", k=ENTITIES).set_index("key")["score"]
        assert np.allclose(answers["score"].drop("The Unheard").loc[alone.index], alone, atol=1e-5)


@pytest.mark.parametrize("model", ["adamf_mat", "momok", "mygo"])
def test_with_what_an_entity_has_and_its_structure_it_scores_as_that_entity(runs, project, model):
    """What is learnt for each entity apart is the structure, and the features' rows, which these runs hardly moved."""
    run, graph = runs[model], project / "data/tiny/graph"
    reads = about_model(model).reads
    before = load(graph, graph.parent / "encoded", name="tiny", **{reads[0]: ("text", "image")})
    grown = with_entities(run.model, before, with_rows(before, [newcomer(7)]), reads, "mean")
    own = torch.arange(RELATIONS)
    with torch.no_grad():
        for table in (getattr(grown, "entity", None), getattr(grown, "structure", None)):
            if table is not None:
                table[ENTITIES] = table[7]
        if model == "momok":
            grown.tables["structure"].table[ENTITIES] = grown.tables["structure"].table[7]
        for part in grown.modules():
            if hasattr(part, "replace_modality") and getattr(part, "table", None) is not None:
                part.table[ENTITIES] = part.table[7]
    scores = grown.scorer()(own * 0 + ENTITIES, own, "tail")
    assert torch.allclose(scores[:, :ENTITIES], run.score(own * 0 + 7, own, "tail"), atol=1e-5)
    assert torch.allclose(scores[:, ENTITIES], scores[:, 7], atol=1e-5)


def test_the_nearest_stand_in_is_of_those_with_the_same_text_and_picture():
    data = tiny()
    after = with_rows(data, [newcomer(7), newcomer(12, features={}, tokens={"text": [3]})])
    weights = likeness(data, after)
    assert weights.shape == (2, ENTITIES)
    assert torch.allclose(weights.sum(1), torch.ones(2))
    assert int(weights[0].argmax()) == 7
    assert torch.allclose(weights[1], torch.full((ENTITIES,), 1 / ENTITIES))  # it has no features at all
    table = torch.randn(ENTITIES, 5)
    for stand_in in STAND_INS:
        grown = structure(data, after, stand_in)(table)
        assert torch.equal(grown[:ENTITIES], table)
    mean = weights[0] @ table  # the last is `nearest`
    assert torch.allclose(grown[ENTITIES], mean / mean.norm() * (weights[0] @ table.norm(dim=1)), atol=1e-6)


def test_its_row_is_the_encoders_with_what_stands_in_for_that_by_which_training_moved_it(runs, project):
    graph = project / "data/tiny/graph"
    before = load(graph, graph.parent / "encoded", name="tiny", features=("text", "image"))
    after = with_rows(before, [newcomer(7)])
    grown = with_entities(runs["adamf_mat"].model, before, after, ("features",), "mean")
    text = before.features["text"]
    moved = torch.zeros(ENTITIES, text.matrix.shape[1])
    moved[text.entity] = runs["adamf_mat"].model.modality["text"].table.detach()[text.entity] - text.matrix
    assert moved.abs().max() > 1e-4
    row = grown.modality["text"].table[ENTITIES]
    assert torch.allclose(row, text.matrix[text.entity == 7][0] + moved.mean(0), atol=1e-6)


@pytest.mark.parametrize(
    ("model", "changes", "said"),
    [
        ("rotate", {}, "rotate knows of an entity what its training facts taught"),
        ("adamf_mat", {"name": "e3"}, "'e3' is an entity of the graph"),
        ("adamf_mat", {"features": {"text": np.ones(5)}}, "has 5 numbers; wanted are 12"),
        ("adamf_mat", {"features": {"image": np.full(12, np.nan)}}, "all finite"),
        ("momok", {"features": {}}, "nothing that this run reads; give features of text or image"),
    ],
)
def test_what_cannot_be_taken_in_is_refused(runs, model, changes, said):
    with pytest.raises(UserError, match=said):
        runs[model].ask(newcomer(7, **changes), "genre")
