"""Each command that the README and docs/ show is run here, taken from the page, or needs what no test has.

A command that NEEDS does not name is run as it stands: Python's in a small finished project
(tests/helpers/mini_world.py), make's as the lines that make would run, DVC's in a clone whose stages only make their
files (tests/helpers/stub_stages.py). So no page shows a command that fails, and no list of tests can grow old.
"""

import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas
import pytest
import uvicorn
from dvc.cli import main as dvc_main

from tests.helpers import mini_world, stub_stages
from tests.helpers.clones import ROOT
from tests.helpers.shown import PAGES, all_shown, examples

pytestmark = [  # commands run in this process, whose modules other tests have loaded; DVC's own words to itself
    pytest.mark.filterwarnings("ignore:.*found in sys.modules after import:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:_NoneStep.value will soon raise:DeprecationWarning"),
]

# What a command needs that a test has not, by its beginning.
NEEDS = {
    "pip install": "a network: the package index",
    "make import FROM=": "a network: the graph's files",
    "make benchmark": "a network and hours: the real graphs",
    "make tune": "a network: a real graph",
    "python -m benchmarks.run --graph DB15K": "a network and an hour",
    "python -m benchmarks.run --graph MKG-Y": "a network and minutes",
    "make study NAME=unseen": "minutes; tests/stages/test_studies.py does it on a tiny graph",
    "python -m benchmarks.base": "a network: runs of a real graph",
    "python -m benchmarks.token_choices": "an hour",
    "python -m benchmarks.encoder_rows": "hours: models of their true sizes",
    "python -m benchmarks.answers": "a network: a real graph's run",
    "python -m benchmarks.fused": "a network: a real graph's run",
    "python -m benchmarks.groups": "a network: a real graph's run",
    "python -m benchmarks.reference": "a network: the authors' code",
    "make share DIR=webdavs:": "an account; tests/stages/test_sharing.py does it on a server of its own",
    "dvc plots diff": "a network: its page loads Vega",
    "torchrun": "several machines; tests/trainers/training/test_processes.py starts two processes",
    "tensorboard": "a browser that stays; tests/trainers/training/test_watch.py reads the files that it shows",
    "python -m tests.soak": "hours",
    "python -m docs.pictures": "a project built twice, and a Chromium",
    "python -m pytest": "nothing: it runs these tests",
}
# Of which .ci/run has the very line.
IN_CI = ("make repro", "make test", "make lint")
ELSEWHERE = {"make docs": "test_docs.py, which builds the site", "sed ": "test_docs.py"}
# Words on the pages that stand for something -> what it is here.
HERE = {
    "python -m stages.describe": "python -m stages.describe --graph mini",
    "--graph G --modality <name>": "--graph other --modality text",
    "--graph G": "--graph other",
    "--graph DB15K": "--graph other",
    "HEAD RELATION TAIL": '"Red Hot Chili Peppers" "band member" "Anthony Kiedis"',
    "/nfs/group": "group",
    "@DB15K-adamf_mat": "@bands-rotate",
    "runs/mini/rotate/metrics": "runs/bands/rotate/metrics",
    "dvc gc -w": "dvc gc -w --dry",  # which the page warns of
    "/home/anna/tessera /home/ben/tessera": "../colleague",
}
# What must have been done before, on the same page.
BEFORE = {
    "dvc push": "dvc remote add --local --force --default shared pushed",
    "dvc remote modify": "make share DIR=ssh://user@host/srv/tessera",
}
# A command's beginning -> what it leaves, a file or words that it prints.
LEAVES = {
    "python -m stages.ops.ask": r"\n +3 .*\S",
    "python -m stages.ops.explain": r"Anthony Kiedis: \d+ of 1,000 tails",
    "python -m stages.ops.compare": r"p = ",
    "python -m stages.ops.card": Path("runs/mini/rotate/README.md"),
    "make card": Path("runs/mini/rotate/README.md"),
    "python -m stages.complete": r"missing facts|completions\.nt",
    "python -m stages.encode --graph other --modality text": Path("data/other/encoded/text/features.parquet"),
    "python -m stages.report": Path("reports/index.html"),
    "python -m stages.describe --graph mini --graph other": Path("data/other/README.md"),
    "python -m stages.describe": Path("data/mini/README.md"),
    "python -m benchmarks.cost": Path("benchmarks/results/mini/data.json"),
    "python -m benchmarks.table": Path("docs/results.md"),
    "python -m benchmarks.science": Path("docs/images/printed-and-measured.svg"),
    "python -m benchmarks.run": Path("benchmarks/results/mini/mosaic/seed0.json"),
    "python -m benchmarks.mosaic_parts": Path("benchmarks/results/mini/mosaic/parts-seed0.json"),
    "make study": Path("studies/missing/mini/adamf_mat/table.csv"),
    "make import": Path("configs/graphs/bands.yaml"),
    "make ask": r"Ask .* at http://127",
    "make help": r"make repro",
    "make share DIR=group": Path("group/tessera/cache"),
    "dvc metrics show": r"mrr",
    "dvc dag --mermaid": r"flowchart TD",
    "dvc plots show": Path("dvc_plots/index.html"),
    "dvc push": Path("pushed/files"),
}


def _needs(command: str) -> bool:
    return any(command.startswith(begins) for begins in NEEDS)


def _bare(command: str) -> bool:
    """Whether a sentence only names the command, which stands elsewhere with its arguments."""
    return command in ("make import", "make card", "make tune", "make share", "dvc exp run -S", "dvc gc")


def _elsewhere(command: str) -> bool:
    return command in IN_CI or command.startswith(tuple(ELSEWHERE))


RUN = [one for one in all_shown() if not (_needs(one) or _bare(one) or _elsewhere(one))]
BY_DVC = [one for one in RUN if one.startswith(("dvc", "make share", "make verify"))]
BY_PYTHON = [one for one in RUN if one not in BY_DVC]


def test_what_is_marked_is_shown_and_what_is_bare_stands_somewhere_whole():
    commands = all_shown()
    assert [begins for begins in NEEDS if not any(one.startswith(begins) for one in commands)] == []
    whole = [one for one in commands if not _bare(one)]
    assert [one for one in commands if _bare(one) and not any(other.startswith(one + " ") or
            other.startswith(one + "=") for other in whole)] == []  # fmt: skip
    assert len(RUN) > 50


@pytest.mark.parametrize("command", IN_CI)
def test_ci_runs_what_it_is_said_to_run(command):
    assert command in (ROOT / ".ci/run").read_text().splitlines()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished project of graph mini, and a second graph of a few texts and pictures."""
    folder = tmp_path_factory.mktemp("finished")
    mini_world.build(folder)
    return folder


@pytest.fixture(scope="module")
def tracked(tmp_path_factory):
    """A clone with a graph `bands`, whose stages, run by DVC, only make their files."""
    folder = tmp_path_factory.mktemp("tracked") / "clone"
    stub_stages.build(folder)
    return folder


def here(command: str) -> str:
    for shown, meant in HERE.items():
        command = command.replace(shown, meant)
    return os.path.expandvars(command)


def start(command: str, monkeypatch) -> None:
    """Run a command of Python's or DVC's in this process, which has loaded torch already."""
    words = shlex.split(command)
    if words[0] == "dvc":
        assert dvc_main(words[1:]) == 0
        return
    assert words[:2] == ["python", "-m"], command
    monkeypatch.setattr(sys, "argv", [words[2], *words[3:]])
    try:
        runpy.run_module(words[2], run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        if ended.code:
            pytest.fail(f"{command} ends with {ended.code}")


def lines_of(command: str) -> list[str]:
    """What make would run, without what installs."""
    words = shlex.split(command)
    plan = subprocess.run(["make", "-n", *words[1:], "VENV="], cwd=ROOT, capture_output=True, text=True, check=True)
    lines = [line.strip() for line in plan.stdout.replace("\\\n", " ").splitlines()]
    unwanted = ("python -m pip", "python -m stages.ops.environment")
    return [line for line in lines if line.startswith("python -m") and not line.startswith(unwanted)]


def run(command: str, monkeypatch) -> None:
    if command == "make help":
        subprocess.run(["make", "help"], cwd=ROOT, check=True)
    elif command.startswith("make "):
        lines = lines_of(command)
        assert lines
        for line in lines:
            start(line, monkeypatch)
    else:
        start(command, monkeypatch)


def looked_at(command: str, capfd) -> None:
    said = capfd.readouterr()
    left = next((left for begins, left in LEAVES.items() if command.startswith(begins)), None)
    if isinstance(left, Path):
        assert left.exists()
    elif left:
        assert re.search(left, said.out + said.err), said.out + said.err


@pytest.mark.parametrize("command", BY_PYTHON)
def test_it_runs(finished, command, monkeypatch, capfd):
    monkeypatch.chdir(finished)
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "0")
    monkeypatch.setattr(uvicorn.Server, "run", lambda self, sockets: [one.close() for one in sockets])
    if command.startswith("make import"):
        monkeypatch.chdir(mini_world.empty(finished / command.split()[2]))
    run(here(command), monkeypatch)
    looked_at(here(command), capfd)


@pytest.mark.parametrize("command", BY_DVC)
def test_dvc_runs_it(tracked, command, monkeypatch, capfd):
    monkeypatch.chdir(tracked)
    monkeypatch.setenv("COLUMNS", "120")
    for one in (before for begins, before in BEFORE.items() if command.startswith(begins)):
        run(one, monkeypatch)
    run(here(command), monkeypatch)
    looked_at(here(command), capfd)


@pytest.mark.parametrize("page", [page for page in PAGES if examples(page)], ids=lambda page: page.name)
def test_the_examples_in_python_run(finished, page, monkeypatch):
    monkeypatch.chdir(mini_world.empty(finished / page.stem) if page.name == "your-own-graph.md" else finished)
    if page.name == "studies.md":  # whose page has made it before
        start("python -m stages.studies --name case --graph mini --model adamf_mat", monkeypatch)
    names = ["Plato", *(f"pupil {one}" for one in range(40))]
    given = {
        "triples": pandas.DataFrame([[one, "teacher of", other] for one in names[:9] for other in names[1:]]),
        "texts": pandas.DataFrame({"key": ["Plato"], "description": ["a philosopher"]}),
        "vectors": {one: np.random.default_rng(place).normal(size=8) for place, one in enumerate(names)},
        "vector": np.ones(384),
    }
    shutil.copy2(next(finished.glob("pictures/*/*")), "stage.jpg")
    for example in examples(page):
        exec(compile(example, page.name, "exec"), given)
