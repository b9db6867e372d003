"""The README and docs/ say what is true: each command is run by a test or marked with its needs, each link leads."""

import re
import subprocess
from pathlib import Path

import pytest

from stages.ops.reference import keys, page
from stages.params import load_params
from tests.helpers.clones import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")),
         *sorted((ROOT / "data").glob("*/README.md"))]  # fmt: skip
PROGRAMS = "make|python -m|dvc|pip|torchrun|tensorboard|sed"
SHOWN = re.compile(rf"^(?: {{4}}|)(?:\$ )?((?:{PROGRAMS}) .*)$", re.M)  # in a block of code: indented, or fenced
INLINE = re.compile(rf"`((?:{PROGRAMS}) [^`]+)`")

# A command's beginning -> the test that runs it, or what it needs that a test has not.
RUN_BY = {
    "make repro": "tests/stages/test_sharing.py",  # as `dvc repro`, of a whole clone; CI runs it as it stands
    "make test|python -m pytest": "is what runs the tests",
    "make lint": "CI runs it",
    "make help": "tests/stages/test_commands.py",
    "make import|dvc repro -q ingest@bands|dvc repro ingest@bands": "tests/stages/test_import_graph.py",
    "make study|python -m stages.studies": "tests/stages/test_studies.py",
    "make benchmark|python -m benchmarks.table": "tests/benchmarks/test_table.py",
    "make tune": "needs minutes",
    "make card|python -m stages.ops.card": "tests/stages/test_card.py",
    "make docs": "tests/test_docs.py",
    "make share": "tests/stages/test_sharing.py",
    "make verify": "tests/stages/test_faults.py",
    "make ask|python -m stages.ask": "tests/stages/test_ask_page.py",
    "python -m stages.ops.ask": "tests/trainers/answers/test_ask.py",
    "python -m stages.ops.explain": "tests/trainers/answers/test_explain.py",
    "python -m stages.ops.compare": "tests/stages/test_compare.py",
    "python -m stages.ops.reference": "tests/test_docs.py",
    "python -m stages.complete": "tests/trainers/answers/test_completions.py",
    "python -m stages.encode": "tests/stages/test_faults.py",
    "python -m stages.report": "tests/stages/test_report.py",
    "python -m stages.describe": "tests/stages/test_hostile.py",
    "python -m stages": "tests/stages/test_commands.py",
    "python -m benchmarks": "needs minutes: it measures",
    "python -m tests.soak": "needs hours",
    "dvc metrics|dvc plots show|dvc exp show|dvc dag|dvc params": "tests/stages/test_dvc_views.py",
    "dvc repro|dvc status|dvc commit|dvc exp run": "tests/stages/test_sharing.py",
    "dvc plots diff": "needs a network: its page loads Vega",
    "dvc push|dvc remote": "tests/stages/test_sharing.py",
    "dvc gc": "deletes what others made",
    "pip install": "needs a network",
    "torchrun|sed|tensorboard": "see below",
}
NEEDS = ("needs ", "CI runs", "is what runs", "deletes what", "see below")


def shown(path: Path) -> list[str]:
    """The commands that a page shows, in blocks of code and within sentences."""
    text = path.read_text(encoding="utf-8")
    blocks = re.findall(r"^```(?:bash|sh|)\n(.*?)^```", text, re.M | re.S) + re.findall(r"(?:^ {4}.*\n)+", text, re.M)
    return [one.strip() for block in blocks for one in SHOWN.findall(block)] + INLINE.findall(text)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_each_command_is_run_by_a_test_or_marked(path):
    patterns = {begins: where for pattern, where in RUN_BY.items() for begins in pattern.split("|")}
    unknown = []
    for command in shown(path):
        if not any(command.startswith(begins) for begins in patterns):
            unknown.append(command)
    assert unknown == [], "add the command to RUN_BY, with the test that runs it"


def test_the_tests_that_are_named_are_there():
    assert [where for where in RUN_BY.values() if not where.startswith(NEEDS) and not (ROOT / where).exists()] == []


def test_commands_are_found_at_all():
    assert "make repro" in {command.split("  #")[0].strip() for command in shown(ROOT / "README.md")}
    assert len(shown(ROOT / "docs/shared-storage.md")) > 8


def test_each_sed_changes_a_key_and_leaves_params_whole(tmp_path, monkeypatch):
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    (tmp_path / "data").mkdir()
    edits = {command.split("  #")[0].strip() for path in PAGES for command in shown(path) if command.startswith("sed ")}
    assert len(edits) >= 3
    monkeypatch.chdir(tmp_path)
    for edit in sorted(edits):
        before = (ROOT / "params.yaml").read_text()
        Path("params.yaml").write_text(before)
        subprocess.run(edit, shell=True, check=True, cwd=tmp_path)
        assert Path("params.yaml").read_text() != before, edit
        if "bands" not in edit:  # a graph that the page's own commands make first
            load_params()


def test_links_lead_to_files():
    broken = []
    for path in PAGES:
        for target in re.findall(r"\]\((?!https?:|mailto:|#)([^)#]+)", path.read_text(encoding="utf-8")):
            if not (path.parent / target).exists():
                broken.append(f"{path.relative_to(ROOT)}: {target}")
    assert broken == []


def test_the_site_builds_and_its_links_lead(tmp_path):
    pytest.importorskip("mkdocstrings", reason="the extra `docs` is not installed")
    command = ["python", "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "answers asked" not in (tmp_path / "index.html").read_text()
    for name in ("tutorial", "configuration", "api", "licences"):
        assert (tmp_path / name / "index.html").exists()
    assert "load_run" in (tmp_path / "api/index.html").read_text()


def test_every_key_of_params_is_in_the_reference_with_what_its_comment_says():
    text = page(ROOT)
    told = {name: comment for name, _, comment in keys((ROOT / "params.yaml").read_text())}
    assert all(f"`{name}`" in text for name in told)
    assert told["seed"].startswith("of all that training draws at random")
    assert told["train.train_on"].startswith("train; train+dev: learn from dev")
    assert told["studies.shares"].startswith("(0 to 1) of entities")
    bare = [name for name, comment in told.items() if not comment and "." in name]
    assert len(bare) < 8, bare
