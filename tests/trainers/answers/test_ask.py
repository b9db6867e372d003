"""A trained run answers questions in names, and refuses in a sentence what it cannot make out."""

import shutil

import numpy as np
import pyarrow as pa
import pytest

from pipeline import tables
from pipeline.errors import UserError
from stages.ops.ask import shown
from tests.helpers.asked import write_names
from tests.helpers.tiny import ENTITIES, settings_of, tiny
from trainers.models import rotate
from trainers.training.runs import load_run
from trainers.training.train import Schedule, train


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("asked")
    data, graph = tiny(), root / "data/tiny/graph"
    write_names(graph, data)
    schedule = Schedule(device="cpu", precision="float32", evaluate_every=5, patience=0, checkpoint_every=0)
    train("rotate", settings_of(rotate, epochs=5), schedule, graph=graph, encoded=graph.parent / "encoded",
          run=root / "runs/tiny/rotate", work=root / "work", seed=0)  # fmt: skip
    return load_run(root / "runs/tiny/rotate")


@pytest.fixture(scope="module")
def data():
    return tiny()


def test_the_answers_are_the_entities_that_score_best_with_their_names(run):
    scores = run.score([3], [0], "tail")[0]
    answers = run.ask("e3", "dbo:bandMember", k=5)
    order = scores.argsort(descending=True)[:5].tolist()
    assert answers["key"].tolist() == [f"e{i}" for i in order]
    assert answers["description"].tolist() == [f"the {i}th" for i in order]
    assert answers["rank"].tolist() == [1, 2, 3, 4, 5]
    assert np.allclose(answers["score"], scores[order])
    assert "probability" not in answers


@pytest.mark.parametrize("name", ["e3", "Entity 3", "Alpha", "E3", "entity 3", " alpha "])
@pytest.mark.parametrize("relation", ["dbo:bandMember", "band member", "bandMember", "Band Member"])
def test_keys_labels_and_aliases_mean_the_same_in_any_case(run, name, relation):
    assert run.ask(name, relation, k=2).equals(run.ask("e3", "dbo:bandMember", k=2))


def test_a_key_goes_before_another_entitys_label(run):
    assert run.ask("e8", "genre").equals(run.ask("Entity 8", "genre"))


@pytest.mark.parametrize("side", ["tail", "head"])
def test_known_facts_are_told_by_their_split(run, data, side):
    given, asked = (0, 2) if side == "tail" else (2, 0)
    flags = {"known_in_train": data.train, "known_in_dev": data.dev, "right_in_test": data.test}
    for flag, triples in flags.items():
        fact = triples[0].tolist()
        known = {"head" if side == "tail" else "tail": f"e{fact[given]}"}
        answers = run.ask(relation=["band member", "genre", "r2"][fact[1]], k=ENTITIES, **known).set_index("key")
        assert answers.loc[f"e{fact[asked]}", flag]
        right = {f"e{row[asked]}" for row in triples.tolist() if row[1] == fact[1] and row[given] == fact[given]}
        assert set(answers.index[answers[flag]]) == right


def test_a_batch_is_its_questions_one_below_the_other(run):
    batch = run.ask(["e3", "e8"], ["genre", "r"], k=3)
    assert batch["query"].tolist() == [0, 0, 0, 1, 1, 1]
    assert batch[batch["query"] == 1]["key"].tolist() == run.ask("e8", "r", k=3)["key"].tolist()
    assert len(run.ask(tail=["e3", "e8"], relation="genre", k=3)) == 6


@pytest.mark.parametrize(
    ("question", "words"),
    [
        ({"head": "Mercury", "relation": "genre"}, ("'Mercury' is the name of 2 entities", "'e4'", "'e5'")),
        ({"head": "twin", "relation": "genre"}, ("2 entities", "'e6'", "'e7'")),
        ({"head": "Mercurio", "relation": "genre"}, ("no entity 'Mercurio'", "nearest", "'e4' (Mercury)")),
        ({"head": "zzzzzz", "relation": "genre"}, ("no entity 'zzzzzz'", "no name is near it")),
        ({"head": "e3", "relation": "bandmembr"}, ("no relation 'bandmembr'", "'dbo:bandMember' (band member)")),
        ({"head": "e3", "tail": "e8", "relation": "genre"}, ("either the head or the tail",)),
        ({"relation": "genre"}, ("either the head or the tail",)),
        ({"head": "e3"}, ("names a relation",)),
        ({"head": 3, "relation": "genre"}, ("is a name, and not 3",)),
        ({"head": ["e3", 4], "relation": "genre"}, ("is a name, and not 4",)),
        ({"head": ["e3", "e8"], "relation": ["r"]}, ("2 entities and 1 relations",)),
        ({"head": [], "relation": "genre"}, ("0 entities",)),
        ({"head": "e3", "relation": "genre", "k": 0}, ("at least 1",)),
        ({"head": "e3", "relation": "genre", "graph": "elsewhere"}, ("elsewhere holds no tables", "graph=")),
    ],
)
def test_what_is_no_question_is_refused_in_a_sentence(run, question, words):
    with pytest.raises(UserError) as refused:
        run.ask(**question)
    assert all(word in str(refused.value) for word in words), refused.value
    assert "\n" not in str(refused.value)


def test_other_tables_than_those_of_the_run_are_refused(run, data, tmp_path):
    graph = tmp_path / "tiny/graph"
    write_names(graph, tiny(seed=1))
    with pytest.raises(UserError, match="was trained on another"):
        run.ask("e3", "genre", graph=graph)


def test_the_command_shows_a_line_an_answer(run):
    lines = shown(run.ask("e3", "genre", k=4)).splitlines()
    assert len(lines) == 5
    assert lines[0].split() == ["rank", "label", "description", "score", "known"]
    broken = run.ask("e3", "genre", k=4)
    broken["label"] = "one\u2028label"
    assert len(shown(broken).splitlines()) == 5


def test_tables_that_lie_in_a_folder_of_another_name_are_the_same_tables(run, tmp_path):
    shutil.copytree(run.path / "../../../data/tiny/graph", tmp_path / "copied")
    answers = run.ask("e3", "genre", graph=tmp_path / "copied")
    assert answers["key"].tolist() == run.ask("e3", "genre")["key"].tolist()


def test_labels_that_were_made_anew_are_read_anew(run, tmp_path):
    shutil.copytree(run.path / "../../../data/tiny", tmp_path / "tiny")
    graph = tmp_path / "tiny/graph"
    run.ask("e3", "genre", graph=graph)
    table = tables.read(graph / "relations.parquet", "relations")
    renamed = table.set_column(table.schema.get_field_index("label"), "label", pa.array([f"new {i}" for i in range(3)]))
    tables.write(graph / "relations.parquet", "relations", {name: renamed[name] for name in renamed.column_names}, {})
    assert len(run.ask("e3", "new 1", graph=graph))
