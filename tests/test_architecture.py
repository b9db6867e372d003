"""The code must be built as docs/architecture.md says; the rules are read from the tables on that page."""

import ast
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/architecture.md"
PACKAGES = ("pipeline", "trainers", "stages", "tests", "benchmarks")


def table(page: str, first_heading: str) -> list[list[str]]:
    """The rows of the page's table whose first column has that heading, without heading and rule."""
    lines = page.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(f"| {first_heading} |")) + 2
    rows = []
    for line in lines[start:]:
        if not line.startswith("|"):
            return rows
        rows.append([cell.strip() for cell in line.strip("| ").split(" | ")])
    return rows


def words(cell: str) -> list[str]:
    """What stands in backticks."""
    return re.findall(r"`([^`]+)`", cell)


def covers(pattern: str, name: str) -> bool:
    """Whether `a.b.*` is the room `name` or holds it."""
    base = pattern.removesuffix(".*")
    return name == base or (pattern != base and name.startswith(f"{base}."))


@dataclass(frozen=True)
class Rules:
    """`imports`: room -> what it may import; `never`: (where, forbidden words); `lines`: the longest file."""

    imports: dict[str, list[str]]
    never: list[tuple[str, list[str]]]
    lines: int

    @classmethod
    def of(cls, page: str) -> "Rules":
        imports = {words(room)[0]: words(allowed) for room, _, allowed in table(page, "room")}
        rows = table(page, "where")
        never = [(words(where)[0], words(what)) for where, what, _ in rows if words(where)]
        (length,) = (words(what)[0] for where, what, _ in rows if not words(where))
        return cls(imports, never, int(length.split()[0]))

    def room(self, module: str) -> str:
        """The innermost room that a module lies in."""
        return max((room for room in self.imports if covers(f"{room}.*", module)), key=len)

    def allows(self, importer: str, imported: str) -> bool:
        """Whether a module may import another, both by their dotted names."""
        here, there = self.room(importer), self.room(imported)

        def lets(name: str) -> bool:
            if name == "itself":
                return here == there
            return covers(name, there) if name.removesuffix(".*") in self.imports else covers(f"{name}.*", imported)

        return any(lets(name) for name in self.imports[here])


RULES = Rules.of(PAGE.read_text(encoding="utf-8"))


def files(root: Path) -> list[Path]:
    return sorted(path for package in PACKAGES for path in (root / package).rglob("*.py"))


def module_of(root: Path, path: Path) -> str:
    name = ".".join(path.relative_to(root).with_suffix("").parts)
    return name.removesuffix(".__init__")


def imported(root: Path, node: ast.AST, module: str) -> list[str]:
    """The modules that an import statement names; a name that is no module of ours counts as its package's."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    assert not node.level, f"{module}: write the whole name of what is imported"
    base = root.joinpath(*node.module.split("."))
    return [
        f"{node.module}.{alias.name}"
        if (base / f"{alias.name}.py").exists() or (base / alias.name).is_dir()
        else node.module
        for alias in node.names
    ]


def breaks(node: ast.AST, names: list[str], word: str) -> bool:
    """Whether a statement or expression is what a word of the second table forbids."""
    if word.startswith("import "):
        return any(covers(f"{word.removeprefix('import ')}.*", name) for name in names)
    if word.endswith("()"):
        return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and f"{node.func.id}()" == word
    if word.startswith('"'):
        return isinstance(node, ast.Constant) and node.value == word.strip('"')
    base, name = word.split(".")
    return isinstance(node, ast.Attribute) and node.attr == name and ast.unparse(node.value) == base


def breaches(root: Path, rules: Rules = RULES) -> list[str]:
    """All that the files under `root` do against the rules, a sentence each."""
    found = []
    for path in files(root):
        module, text = module_of(root, path), path.read_text(encoding="utf-8")
        room = rules.room(module)
        forbidden = [word for where, words_ in rules.never if covers(where, room) for word in words_]
        if text.count("\n") > rules.lines:
            found.append(f"{module} has more than {rules.lines} lines")
        for node in ast.walk(ast.parse(text)):
            names = imported(root, node, module)
            ours = [name for name in names if name.split(".")[0] in PACKAGES]
            found += [f"{module} imports {name}" for name in ours if not rules.allows(module, name)]
            found += [f"{module}, line {node.lineno}: {word}" for word in forbidden if breaks(node, names, word)]
    return found


def test_the_code_keeps_to_the_page():
    assert "\n".join(breaches(ROOT)) == ""


def test_every_folder_of_code_is_a_room_of_the_page_and_every_room_is_there():
    inner = {module_of(ROOT, path.parent) for path in files(ROOT)}
    of_code = {name for name in inner if name.split(".")[0] in ("pipeline", "trainers", "stages")}
    assert of_code - set(RULES.imports) == set()
    assert set(RULES.imports) - inner == set()


def test_the_picture_draws_no_arrow_that_the_table_forbids():
    picture = PAGE.read_text(encoding="utf-8").split("```mermaid")[1].split("```")[0]
    arrows = re.findall(r"(\S+) --> (\S+)", picture)
    assert len(arrows) > 10
    for importer, target in arrows:
        assert {importer, target} <= set(RULES.imports)
        assert any(covers(allowed, target) for allowed in RULES.imports[importer]), f"{importer} --> {target}"


@pytest.fixture(scope="module")
def skeleton(tmp_path_factory):
    """All files of the project, empty."""
    root = tmp_path_factory.mktemp("skeleton")
    for path in files(ROOT):
        copy = root / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.touch()
    return root


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("pipeline/graph/formats.py", "from pipeline.encoding import store"),
        ("pipeline/graph/formats.py", "import pipeline.encoding.store"),
        ("pipeline/tables.py", "from trainers.training.data import Data"),
        ("pipeline/modalities/texts.py", "def late():\n    from pipeline.wikimedia.store import Answer"),
        ("trainers/kernels/bce.py", "from pipeline import tables"),
        ("trainers/kernels/bce.py", "from trainers.training import loop"),
        ("trainers/training/loop.py", "from trainers.models import transe"),
        ("trainers/models/momok.py", "from trainers.models import mygo"),
        ("trainers/models/momok.py", "from stages.params import load_params"),
        ("stages/train.py", "from stages.studies import runs"),
        ("stages/train.py", "from benchmarks import synthetic"),
        ("trainers/training/train.py", "from tests.helpers import tiny"),
        ("tests/stages/test_params.py", "from tests.stages.test_report import world"),
        ("pipeline/tables.py", "import argparse"),
        ("pipeline/tables.py", "from ruamel.yaml import YAML"),
        ("pipeline/tables.py", "open('params.yaml')"),
        ("pipeline/tables.py", "print('done')"),
        ("trainers/training/loop.py", "sys.stdout.write('done')"),
        ("stages/train.py", "\n" * 500),
    ],
)
def test_a_planted_breach_is_found(skeleton, file, line):
    (skeleton / file).write_text(f"{line}\n", encoding="utf-8")
    assert len(breaches(skeleton)) == 1
    (skeleton / file).write_text("", encoding="utf-8")
    assert breaches(skeleton) == []
