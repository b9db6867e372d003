"""The page about a graph of one's own, followed from top to bottom."""

import json
import re
import shlex
import sys
from importlib import import_module
from pathlib import Path

import pytest

from tests.helpers.clones import ROOT, attempt, clone, command, set_key

pytestmark = pytest.mark.slow


def here(line: str, monkeypatch) -> None:
    """A command of the page in this process, which has loaded torch already. Of what `dvc repro` runs for a training,
    RotatE needs the stage alone.
    """
    words = shlex.split(
        line.replace("dvc repro -q train@bands-rotate", "python -m stages.train --graph bands --model rotate")
    )
    assert words[:2] == ["python", "-m"]
    monkeypatch.setattr(sys, "argv", words[2:])
    import_module(words[2]).main()


def test_the_commands_of_the_page_lead_from_files_to_answers(tmp_path, monkeypatch, capsys):
    folder = clone(tmp_path / "clone")
    page = (ROOT / "docs/your-own-graph.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```bash\n(.*?)```", page, re.S)
    said = "".join(command(folder, "bash", "-ec", block) for block in blocks[:2])
    shown = re.search(r"```\n(triples\.csv.*?)```", page, re.S)[1]
    assert [line for line in shown.splitlines() if line not in said] == []
    audit = json.loads((folder / "data/bands/graph/audit.json").read_text())
    assert audit["entities"] > 900
    code, said = attempt(folder, "make", "import", "VENV=", "NAME=bands", "TRIPLES=triples.csv")
    assert code != 0
    assert "say --replace" in said
    assert "Traceback" not in said
    answered(folder, blocks[2:], monkeypatch, capsys)


def answered(folder: Path, blocks: list[str], monkeypatch, capsys) -> None:
    """Training, an answer, completions, as the rest of the page has them."""
    set_key(folder, "models", ["rotate"])
    monkeypatch.chdir(folder)
    for line in "".join(blocks).splitlines():
        if line.startswith("printf"):
            command(folder, "bash", "-ec", line)
        elif line:
            here(line, monkeypatch)
    said = capsys.readouterr().out
    assert len(re.findall(r"^ +[123] ", said, re.M)) == 3
    assert "missing facts" in said
    assert "expected calibration error" in said
    assert (folder / "runs/bands/rotate/completions.nt").read_text().count(" .\n") > 50
    assert json.loads((folder / "runs/bands/rotate/run.json").read_text())["epochs"] == 5
