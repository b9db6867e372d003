"""The README and docs/: each link leads, the site builds and asks no other host, edits edit, every key is explained.

The commands on the pages are run by tests/test_shown_commands.py.
"""

import re
import subprocess
from pathlib import Path

import pytest

from docs import pictures
from stages.ops.reference import keys, page
from stages.params import load_params
from tests.helpers.clones import ROOT
from tests.helpers.shown import PAGES, shown


def test_commands_are_found_at_all():
    assert "make repro" in shown(ROOT / "README.md")
    assert len(shown(ROOT / "docs/shared-storage.md")) > 8


def test_each_sed_changes_a_key_and_leaves_params_whole(tmp_path, monkeypatch):
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    (tmp_path / "data").mkdir()
    edits = {command for path in PAGES for command in shown(path) if command.startswith("sed ")}
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


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder that `make docs` fills."""
    pytest.importorskip("mkdocstrings", reason="the extra `docs` is not installed")
    folder = tmp_path_factory.mktemp("site")
    plan = subprocess.run(["make", "-n", "docs", "VENV="], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    (line,) = (line for line in plan.splitlines() if "mkdocs" in line)
    command = line.replace("build/site", str(folder))
    done = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_site_builds_and_its_links_lead(site):
    assert "answers asked" not in (site / "index.html").read_text()
    for name in ("tutorial", "configuration", "api", "licences"):
        assert (site / name / "index.html").exists()
    assert "load_run" in (site / "api/index.html").read_text()
    assert f">{ROOT}" not in (site / "configuration/index.html").read_text(), "a path of this machine"


def test_the_site_asks_no_other_host(site):
    """Neither what its pages load, nor Mermaid, which the theme would fetch where a page holds such a block."""
    for path in site.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        assert re.findall(r"""<(?:script|img|iframe)[^>]* src=["']?(?:https?:)?//""", text) == [], path
        assert re.findall(r"""<link[^>]* rel=["']?stylesheet["']?[^>]* href=["']?(?:https?:)?//""", text) == [], path
        assert not re.search(r"""class=["'][^"']*mermaid""", text), path


def test_each_mermaid_block_has_its_drawing_and_no_drawing_is_left_over():
    wanted = {pictures.diagram(source) for source in pictures.sources()}
    assert len(wanted) >= 4
    drawn = set(pictures.IMAGES.glob("diagram-*.svg"))
    assert drawn == wanted, "python -m docs.pictures diagrams draws them anew"
    assert [source for source in pictures.sources() if pictures.title(source) == "Diagram"] == []
    assert "http" not in "".join(path.read_text() for path in drawn).replace("http://www.w3.org", "")


def test_every_key_of_params_is_in_the_reference_with_what_its_comment_says():
    text = page(ROOT)
    told = {name: comment for name, _, comment in keys((ROOT / "params.yaml").read_text())}
    assert all(f"`{name}`" in text for name in told)
    assert told["seed"].startswith("of all that training draws at random")
    assert told["train.train_on"].startswith("train; train+dev: learn from dev")
    assert told["studies.shares"].startswith("(0 to 1) of entities")
    bare = [name for name, comment in told.items() if not comment and "." in name]
    assert len(bare) < 8, bare
