"""How a stage ends when something is wrong: one sentence, exit code 1."""

import json

import pytest

import stages.complete
import stages.settings
from pipeline.errors import UserError
from stages import settled
from stages.cli import stage
from stages.params import load_params
from tests.helpers.clones import ROOT
from trainers.training.runs import read_about


def ended(main, capsys) -> str:
    with pytest.raises(SystemExit) as left:
        stage(main)()
    assert left.value.code == 1
    return capsys.readouterr().err


def test_a_file_that_the_system_refuses_is_named(tmp_path, capsys):
    said = ended(lambda: (tmp_path / "there").mkdir() or (tmp_path / "there").read_text(), capsys)
    assert (
        said == f"error: {tmp_path}/there cannot be read or written (Is a directory); look at it and at its rights.\n"
    )


def test_an_error_without_a_file_keeps_its_traceback():
    def main():
        raise OSError("no file is to blame")

    with pytest.raises(OSError, match="no file is to blame"):
        stage(main)()


def test_outside_the_project_the_check_finds_no_params_yaml(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert settled.digest()
    with pytest.raises(UserError, match=r"params\.yaml is not there; run from the project's folder"):
        load_params()


@pytest.mark.parametrize("text", ["{}", "[]", '{"model": "rotate"}'])
def test_a_run_json_of_no_run_is_said_to_be_of_none(tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(UserError, match=r"run\.json is of no run \(it has no .*settings, shapes\)"):
        read_about(tmp_path)
    (tmp_path / "run.json").write_text(json.dumps(dict.fromkeys(("model", "graph", "settings", "shapes"), 0)))
    assert read_about(tmp_path)["model"] == 0


@pytest.mark.parametrize("option", [["--per-relation", "3"], ["--relation", "r"], ["--types", "any"]])
def test_what_was_found_is_written_as_it_was_found(option, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["complete", "--graph", "mini", "--model", "rotate", "--format", "nt", *option])
    with pytest.raises(SystemExit):
        stages.complete.main()
    assert "--format writes what was found before" in capsys.readouterr().err


def test_a_model_that_reads_says_of_which_modalities(monkeypatch):
    monkeypatch.chdir(ROOT)
    params = load_params()
    monkeypatch.setattr(stages.settings, "model_settings", lambda *_: object())
    with pytest.raises(UserError, match=r"adamf_mat\.py reads features but its Settings have no `modalities`"):
        stages.settings._check_what_models_read(params)
