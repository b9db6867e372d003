"""What a message tells people to install must exist: this distribution, with one of its extras."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
CODE = [path for room in ("pipeline", "stages", "trainers", "tests", "docs") for path in (ROOT / room).rglob("*.*")]
HINT = re.compile(r"pip install '?\"?([\w.-]+)\[(\w+)\]")


def test_install_hints_name_what_exists():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    texts = {path: path.read_text() for path in [*CODE, *ROOT.glob("*.md")] if path.suffix in (".py", ".md", ".jinja")}
    hints = [(path, *found) for path, text in texts.items() for found in HINT.findall(text)]
    assert {extra for _, _, extra in hints} >= {"ray", "vqgan", "hdf5"}
    for path, name, extra in hints:
        assert name == project["name"], path
        assert extra in project["optional-dependencies"], path
