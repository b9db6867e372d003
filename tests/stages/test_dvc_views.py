"""What DVC itself shows of a finished project: five figures a run, curves that need no network, lines that fit."""

import json
import subprocess

import pytest
import yaml
from dvc.cli import main as dvc

from stages.report.page import curves
from tests.helpers import report_world as world
from tests.helpers.clones import ROOT

FIGURES = ("dev_mrr", "hits_at_1", "hits_at_10", "hits_at_3", "mrr")
RUN, KEPT = "runs/DB15K/adamf_mat", ("metrics", "plots", "outs")


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project of DVC's with the outputs that ours declares for evaluate and report, made by no command."""
    root = tmp_path_factory.mktemp("project")
    world.build(root, "DB15K", models=("adamf_mat",))
    for split, name in (("test", "mrr"), ("dev", "dev_mrr")):
        found = json.loads((root / RUN / f"{split}.json").read_text())
        five = {**dict.fromkeys(FIGURES, 0.123456789), name: found["mrr"]}
    (root / RUN / "metrics.json").write_text(json.dumps(five))
    (root / "reports/curves").mkdir(parents=True)
    for graph, svg in curves(root, ["DB15K"], ["adamf_mat"]).items():
        (root / f"reports/curves/{graph}.svg").write_text(svg)
    ours = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    text = json.dumps({name: {key: ours[name].get(key, []) for key in ("metrics", "plots")} for name in ours})
    text = text.replace("${item.graph}", "DB15K").replace("${item.model}", "adamf_mat")
    shown = {name: {"cmd": "true", **parts} for name, parts in json.loads(text).items() if any(parts.values())}
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": shown}))
    (root / ".gitignore").write_text("/data/\n/runs/\n/reports/\n")
    (root / "params.yaml").write_text("seed: 0\n")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    (root / ".dvc").mkdir()
    (root / ".dvc/config").write_text("[core]\n    analytics = false\n    check_update = false\n")
    subprocess.run([*git, "add", "-A"], cwd=root, check=True)
    subprocess.run([*git, "commit", "-qm", "one"], cwd=root, check=True)
    return root


def say(command: str, capsys) -> str:
    assert dvc([*command.split(), "-q"] if "plots" in command else command.split()) == 0
    return capsys.readouterr().out


def test_metrics_are_five_figures_a_run_and_fit_120_columns(project, monkeypatch, capsys):
    monkeypatch.chdir(project)
    monkeypatch.setenv("COLUMNS", "120")
    said = say("metrics show", capsys).rstrip().splitlines()
    assert said[0].split() == ["Path", *FIGURES]
    assert said[1].split()[0] == f"{RUN}/metrics.json"
    assert max(map(len, said)) <= 120
    (project / RUN / "metrics.json").write_text(json.dumps(dict.fromkeys(FIGURES, 0.2)))
    assert max(map(len, say("metrics diff", capsys).splitlines())) <= 120
    kept = f"Experiment|Created|{RUN}/metrics.json:mrr|seed"
    assert max(map(len, say(f"exp show --no-pager --drop .* --keep {kept}", capsys).splitlines())) <= 120


def test_the_page_of_curves_asks_nothing_of_a_network(project, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(project)
    assert dvc(["plots", "show", "-q", "-o", str(tmp_path)]) == 0
    page = (tmp_path / "index.html").read_text()
    assert "http" not in page.replace("http://www.w3.org", "")
    assert "reports_curves_DB15K.svg" in page
    (svg,) = tmp_path.rglob("*.svg")
    assert "var(--" not in svg.read_text()
    assert 'xmlns="http://www.w3.org/2000/svg"' in svg.read_text()


def test_stages_are_drawn_and_params_compared(project, monkeypatch, capsys):
    monkeypatch.chdir(project)
    drawn = say("dag --mermaid", capsys)
    assert drawn.startswith("flowchart TD")
    assert all(f'"{name}"' in drawn for name in yaml.safe_load((project / "dvc.yaml").read_text())["stages"])
    assert say("params diff", capsys) == ""
    (project / "params.yaml").write_text("seed: 1\n")
    try:
        said = [line.split() for line in say("params diff", capsys).splitlines()]
    finally:
        (project / "params.yaml").write_text("seed: 0\n")
    assert ["params.yaml", "seed", "0", "1"] in said
