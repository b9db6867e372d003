"""The model card: its front matter is what the hub reads, its figures those of the JSON files."""

import json
import sys

import pytest
from ruamel.yaml import YAML

from stages.ops import card
from tests.helpers import report_world as world


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("project")
    world.build(root, "DB15K", models=("adamf_mat",))
    folder = root / "runs/DB15K/adamf_mat"
    about = json.loads((folder / "run.json").read_text())
    about |= {"shapes": {"entities": world.ENTITIES, "relations": world.RELATIONS}, "date": "2026-11-26"}
    (folder / "run.json").write_text(json.dumps(about))
    return folder


def test_the_card_is_written_beside_the_run_and_its_front_matter_is_read(run, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["card", str(run)])
    card.main()
    text = (run / "README.md").read_text()
    front = YAML(typ="safe").load(text.split("---\n")[1])
    assert front["license"] == "cc-by-sa-3.0"
    assert front["datasets"] == ["DB15K"]
    test = json.loads((run / "test.json").read_text())
    (entry,) = front["model-index"]
    figures = {one["type"]: one["value"] for one in entry["results"][0]["metrics"]}
    assert figures["mrr"] == pytest.approx(test["mrr"], abs=1e-6)
    assert f"| MRR % | {100 * test['mrr']:.2f} |" in text
    assert "image: patches, text: minilm" in text
    assert "2026-11-26" in text
    assert "README.md" in capsys.readouterr().out


def test_a_graph_of_another_licence_says_so(run):
    about, test = (json.loads((run / f"{name}.json").read_text()) for name in ("run", "test"))
    front = card.front_matter({**about, "graph": "bands"}, test)
    assert front["license"] == "other"
    assert front["license_name"]


def test_a_run_that_is_not_there_is_one_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["card", str(tmp_path)])
    with pytest.raises(SystemExit):
        card.main()
    assert "run.json is not there" in capsys.readouterr().err
