"""The evaluate stage asks a model only about the tables that it was trained on."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.errors import UserError
from stages import complete, evaluate
from stages.report.inputs import read_runs
from tests.helpers.tiny import ENTITIES, settings_of, tiny, write_tables
from trainers.answers.completions import Choice
from trainers.models import rotate
from trainers.training.runs import load_run
from trainers.training.train import Schedule, check_inputs, digest, train


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """A trained run, in a folder of which only params.yaml is the project's; gives (data, graph folder)."""
    (tmp_path / "params.yaml").symlink_to(evaluate.__file__.replace("stages/evaluate.py", "params.yaml"))
    (tmp_path / "configs").symlink_to(evaluate.__file__.replace("stages/evaluate.py", "configs"))
    monkeypatch.chdir(tmp_path)
    data, graph = tiny(), tmp_path / "data/mini/graph"
    write_tables(graph, data, np.arange(ENTITIES))
    schedule = Schedule(device="cpu", precision="float32", evaluate_every=1, patience=0, checkpoint_every=0)
    train("rotate", settings_of(rotate, epochs=1), schedule, graph=graph.relative_to(tmp_path),
          encoded=graph.parent.relative_to(tmp_path) / "encoded", run=tmp_path / "runs/mini/rotate",
          work=tmp_path / "work", seed=0)  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["evaluate", "--graph", "mini", "--model", "rotate"])
    return data, graph


def test_a_run_is_evaluated_on_the_tables_that_it_was_trained_on(trained, tmp_path):
    evaluate.main()
    test = json.loads((tmp_path / "runs/mini/rotate/test.json").read_text())
    assert test["queries"] == 2 * len(trained[0].test)
    shown = json.loads((tmp_path / "runs/mini/rotate/metrics.json").read_text())
    assert list(shown) == ["dev_mrr", "hits_at_1", "hits_at_10", "hits_at_3", "mrr"], "DVC shows a column for each"
    assert all(shown[name] == test[name] for name in shown if name != "dev_mrr")


def test_what_is_shown_of_dev_is_cross_validated_where_the_model_was_fitted_on_dev(trained, tmp_path):
    path = tmp_path / "runs/mini/rotate/run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "dev_mrr_by_cross_validation": 0.125}))
    evaluate.main()
    assert json.loads(path.with_name("metrics.json").read_text())["dev_mrr"] == 0.125
    assert json.loads(path.with_name("dev.json").read_text())["mrr"] != 0.125


IDS = np.arange(ENTITIES)
OTHERS = {
    "permuted": lambda data: (data, IDS[::-1]),
    "one more": lambda data: (data, np.append(IDS[:-1] + 1, [0, ENTITIES])),
    "a fact less": lambda data: (replace(data, train=data.train[1:]), IDS),
    "a fact of train in test": lambda data: (
        replace(data, train=data.train[:-1], test=torch.cat([data.train[-1:], data.test])),
        IDS,
    ),
}


@pytest.mark.parametrize("order", OTHERS)
def test_other_tables_are_refused_in_a_sentence_and_nothing_is_written(trained, tmp_path, capsys, order):
    data, graph = trained
    write_tables(graph, *OTHERS[order](data))
    with pytest.raises(SystemExit) as stopped:
        evaluate.main()
    assert stopped.value.code == 1
    said = capsys.readouterr().err
    assert "runs/mini/rotate was trained on another data/mini/graph/triples.parquet" in said
    assert "train it again" in said
    assert not (tmp_path / "runs/mini/rotate/test.json").exists()


def test_the_check_finds_tables_wherever_the_clone_lies(trained, tmp_path):
    about = json.loads((tmp_path / "runs/mini/rotate/run.json").read_text())
    moved = {f"/elsewhere/graph/encoded/{name}": digest for name, digest in about["inputs"].items()}
    check_inputs(tmp_path, {"inputs": moved}, trained[1])
    with pytest.raises(UserError, match="train it again"):
        check_inputs(tmp_path, {"inputs": dict.fromkeys(moved, "0" * 64)}, trained[1])


def test_features_that_were_encoded_anew_are_other_tables(tmp_path):
    path = tmp_path / "mini/encoded/text/features.parquet"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"as trained on")
    about = {"inputs": {"data/mini/encoded/text/features.parquet": digest(path)}}
    check_inputs(tmp_path, about, tmp_path / "mini/graph")
    path.write_bytes(b"of another encoder")
    with pytest.raises(UserError, match=r"text/features\.parquet .* train it again"):
        check_inputs(tmp_path, about, tmp_path / "mini/graph")
    path.unlink()
    with pytest.raises(UserError, match="train it again"):
        check_inputs(tmp_path, about, tmp_path / "mini/graph")


@pytest.mark.parametrize("reader", ["complete", "ask", "report"])
def test_who_else_reads_a_run_refuses_other_tables_too(trained, tmp_path, reader):
    """Ids are places in the tables: answers, missing facts and figures would be of other entities."""
    data, graph = trained
    evaluate.main()
    run = tmp_path / "runs/mini/rotate"
    readers = {
        "complete": lambda: complete.find(run, graph, Choice(5), [], 1 << 20, torch.device("cpu")),
        "ask": lambda: load_run(run).ask("entity 3", "relation 1", graph=graph),
        "report": lambda: read_runs(tmp_path, ["mini"], ["rotate"]),
    }
    readers[reader]()
    before = {path: path.read_bytes() for path in run.iterdir() if path.is_file()}
    write_tables(graph, data, IDS[::-1])
    with pytest.raises(UserError, match=r"was trained on another .*triples\.parquet .* train it again"):
        readers[reader]()
    assert {path: path.read_bytes() for path in run.iterdir() if path.is_file()} == before
