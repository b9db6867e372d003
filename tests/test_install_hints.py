"""What a message tells people to install must exist: this distribution, with one of its extras."""

import ast
import re
import sys
import tomllib
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parents[1]
CODE = [path for room in ("pipeline", "stages", "trainers", "tests", "docs") for path in (ROOT / room).rglob("*.*")]
HINT = re.compile(r"pip install '?\"?([\w.-]+)\[(\w+)\]")


def test_install_hints_name_what_exists():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    texts = {path: path.read_text() for path in [*CODE, *ROOT.glob("*.md")] if path.suffix in (".py", ".md", ".jinja")}
    hints = [(path, *found) for path, text in texts.items() for found in HINT.findall(text)]
    assert {extra for _, _, extra in hints} >= {"ray", "hdf5"}
    for path, name, extra in hints:
        assert name == project["name"], path
        assert extra in project["optional-dependencies"], path


def imported(path: Path) -> set[str]:
    """The top-level names of all that a file imports, wherever in it."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom)]
    return {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) - {"pipeline"}


def brought(names: list[str]) -> set[str]:
    """The distributions that come with some requirements, themselves included, extras left out."""
    found, todo = set(), [plain(name) for name in names]
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            wanted = metadata.requires(name) if name in INSTALLED else None
            todo += [plain(one) for one in wanted or () if "extra ==" not in one]
    return found


def plain(requirement: str) -> str:
    return re.match(r"[\w.-]+", requirement)[0].lower().replace("_", "-").replace(".", "-")


INSTALLED = {plain(one.name) for one in metadata.distributions()}


def test_a_word_in_params_yaml_is_enough_for_an_encoder():
    """`make repro` installs all that encoders import; only a Ray cluster is an extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    here, whose = brought(project["dependencies"]), metadata.packages_distributions()
    files = [path for path in (ROOT / "pipeline/encoding").rglob("*.py") if path.name != "ray.py"]
    needed = {name: path for path in files for name in imported(path)}
    assert {"taming", "timm", "transformers"} <= set(needed)
    for name, path in needed.items():
        assert here & {plain(one) for one in whose[name]}, f"{path} imports {name}"
    assert {"taming-transformers", "einops"} <= here, "einops is imported by taming-transformers, which does not say so"
