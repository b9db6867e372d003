"""The page about a graph of one's own, followed from top to bottom."""

import json
import re

import pytest

from tests.helpers.clones import ROOT, attempt, clone, command, set_key

pytestmark = pytest.mark.slow


def test_the_commands_of_the_page_bring_a_graph_in(tmp_path):
    folder = clone(tmp_path / "clone")
    set_key(folder, "models", ["adamf_mat", "rotate"])
    page = (ROOT / "docs/your-own-graph.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```bash\n(.*?)```", page, re.S)
    said = "".join(command(folder, "bash", "-ec", block) for block in blocks)
    shown = re.search(r"```\n(triples\.csv.*?)```", page, re.S)[1]
    assert [line for line in shown.splitlines() if line not in said] == []
    audit = json.loads((folder / "data/bands/graph/audit.json").read_text())
    assert audit["entities"] > 900
    assert "missing facts" in said
    assert (folder / "runs/bands/rotate/completions.nt").read_text().count(" .\n") > 50
    code, said = attempt(folder, "make", "import", "VENV=", "NAME=bands", "TRIPLES=triples.csv")
    assert code != 0
    assert "say --replace" in said
    assert "Traceback" not in said
