"""Around the stages: make's targets, the list of commands, make repro's counting, what VENV= says."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stages.__main__ import commands, listing, of_pipeline
from stages.ops.environment import installed_from, notice
from tests.helpers.clones import ROOT, environment

STAGES = """
stages:
  first:
    cmd: echo one > first.txt
    outs: [first.txt]
  second:
    cmd: {second}
    deps: [first.txt]
    outs: [second.txt]
"""


def test_make_help_names_every_target():
    text = (ROOT / "Makefile").read_text()
    targets = re.search(r"^\.PHONY: (.*)$", text, re.M)[1].split()
    # Within `make test`, make says which folder it enters.
    command = ["make", "--no-print-directory", "help"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert [target for target in targets if f"make {target} " not in said] == []
    assert "make repro" in said.splitlines()[0]
    assert "VENV=" in said


def test_the_list_names_every_stage_and_command_without_importing_them():
    stages = {name: line for line in listing().splitlines() for name in re.findall(r"^  (stages\S+) +\S", line)}
    assert stages.keys() == commands().keys()
    assert list(stages)[: len(of_pipeline())] == of_pipeline()
    assert {"stages.train", "stages.report", "stages.ops.verify", "stages.studies"} <= stages.keys()
    code = "import sys; sys.argv = ['stages']; import runpy; runpy.run_module('stages', run_name='__main__'); "
    code += "print(sorted({'torch', 'numpy', 'dvc'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Stages")
    assert done.stdout.endswith("[]\n")


def test_commands_that_ask_a_run_load_no_compiler_and_nothing_that_only_fitting_needs():
    asking = "stages.ops.ask, stages.ask.questions, stages.evaluate, stages.complete, stages.report.page"
    heavy = "{'torch', 'torch._dynamo', 'sklearn', 'scipy.stats'}"
    code = f"import sys, {asking}; print(sorted({heavy} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "['torch']\n"


def project(folder: Path, second: str) -> None:
    """A project of DVC's with two stages; `first.txt` is what git would have to be told about."""
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    (folder / ".dvc").mkdir()
    (folder / ".dvc/config").write_text("[core]\n    analytics = false\n    check_update = false\n")
    (folder / "dvc.yaml").write_text(STAGES.format(second=second))


def repro(folder: Path, *options: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "stages.ops.repro", *options],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        env=environment(PYTHONPATH=str(ROOT)),
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # which a shell's background jobs ignore
    )  # fmt: skip


def test_repro_counts_the_stages_and_says_nothing_of_git(tmp_path):
    project(tmp_path, "cp first.txt second.txt")
    process = repro(tmp_path)
    said, _ = process.communicate()
    assert process.returncode == 0, said
    assert "1 of 2: Running stage 'first':" in said
    assert "2 of 2: Running stage 'second':" in said
    assert re.fullmatch(r"2 stages in \d+ s: 2 ran, 0 had nothing to do\.", said.splitlines()[-1])
    assert "git" not in said
    (tmp_path / "second.txt").unlink()
    said, _ = repro(tmp_path).communicate()
    assert "1 of 2: Stage 'first' didn't change" in said
    assert "2 of 2: Stage 'second' is cached" in said
    assert "0 ran, 2 had nothing to do." in said


def test_repro_that_fails_says_where_and_ends_as_dvc_does(tmp_path):
    project(tmp_path, "sh -c 'exit 7'")
    process = repro(tmp_path, "--force")
    said, _ = process.communicate()
    assert process.returncode == 255
    assert said.count("exited with 7") == 1, "DVC's own words are lost, or said twice"
    assert "Stopped at stage 2 of 2, second, after" in said.splitlines()[-1]


def test_ctrl_c_stops_the_stage_and_then_repro(tmp_path):
    project(tmp_path, "sh -c 'touch began && exec sleep 60'")
    process = repro(tmp_path)
    deadline = time.monotonic() + 60
    while not (tmp_path / "began").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 255
    assert "Traceback" not in said
    assert "Stopped at stage 2 of 2" in said


@pytest.mark.parametrize(
    ("before", "said"),
    [
        (None, ["installing /here into the active environment, /env"]),
        ("/here", []),
        ("/a folder", ["has Tessera from /a folder", "from /here", "pip install --editable /a folder", "VENV= out"]),
    ],
)
def test_an_environment_is_not_repointed_in_silence(tmp_path, before, said):
    about = tmp_path / "tessera_mmkgc-0.2.0.dist-info"
    if before:
        about.mkdir()
        (about / "METADATA").write_text("Metadata-Version: 2.1\nName: tessera-mmkgc\nVersion: 0.2.0\n")
        (about / "direct_url.json").write_text(f'{{"url": "file://{before.replace(" ", "%20")}"}}')
    found = installed_from([str(tmp_path)])
    assert found == (Path(before) if before else None)
    line = notice(Path("/here"), found, "/env")
    assert [word for word in said if word not in line] == []
    assert bool(line) == bool(said)
    assert "\n" not in line


def test_make_says_it_before_pip_runs():
    plan = subprocess.run(
        ["make", "-n", "--always-make", "install", "VENV="], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    (said,) = (number for number, line in enumerate(plan) if "stages.ops.environment" in line)
    (pip,) = (number for number, line in enumerate(plan) if "pip install" in line)
    assert said < pip
    own = subprocess.run(["make", "-n", "--always-make", "install"], cwd=ROOT, capture_output=True, text=True).stdout
    assert "stages.ops.environment" not in own
