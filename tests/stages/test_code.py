"""What DVC compares in place of code: a change that can matter changes a version, a comment never does."""

import shutil
from pathlib import Path

import pytest

from pipeline.versions import PACKAGES, ROOT, closure, code_version
from stages import code
from trainers.training import runs

ENCODERS = {"minilm": "language", "patches": "patches", "vit": "timm"}


@pytest.fixture
def tree(tmp_path):
    """A copy of the project's code, to be changed."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    return tmp_path


def changed(tree: Path, file: str, edit) -> set[str]:
    """Whose version changes when `edit`, a function of the text, is made to a file of the copy."""
    before = code.versions(ENCODERS, tree)
    path = tree / file
    text = path.read_text()
    assert edit(text) != text
    path.write_text(edit(text))
    after = code.versions(ENCODERS, tree)
    assert set(before) == set(after)
    return {name for name in before if before[name] != after[name]}


def statement(text: str) -> str:
    return text + "\n_more = 1\n"


def of_models(names: set[str]) -> set[str]:
    return {name.removeprefix("models/") for name in names if name.startswith("models/")}


@pytest.mark.parametrize(
    "edit",
    [
        lambda text: text.replace("\nclass ", "\n# A remark.\nclass ", 1),
        lambda text: text.replace('"""', '"""Another sentence. ', 1),
        lambda text: text.replace("\nclass ", "\n\n\n\nclass ", 1),
        lambda text: text.replace("\n    def ", '\n    "A remark that stands alone."\n\n    def ', 1),
    ],
    ids=["comment", "docstring", "layout", "string"],
)
def test_what_cannot_change_a_number_changes_no_version(tree, edit):
    assert changed(tree, "trainers/models/adamf_mat.py", edit) == set()


def test_a_change_in_one_model_is_that_models_alone(tree):
    assert changed(tree, "trainers/models/transe.py", statement) == {"models/transe"}


def test_a_model_follows_the_one_that_it_is_built_upon(tree):
    assert {"adamf_mat", "adamf"} == of_models(changed(tree, "trainers/models/adamf_mat.py", statement))


def test_the_loop_and_the_evaluator_count_for_every_model(tree):
    for file in ("trainers/training/loop.py", "trainers/evaluation/ranking.py"):
        found = changed(tree, file, statement)
        assert of_models(found) == set(code.models())
        assert {"stages/train", "stages/evaluate"} <= found
        assert not {name for name in found if name.startswith("encoders/")}


def test_c_counts_by_its_content_for_those_who_call_it(tree):
    found = changed(tree, "trainers/kernels/rotate.c", lambda text: text + "// A remark.\n")
    assert {"adamf_mat", "adamf", "rotate"} <= of_models(found)
    assert not {name for name in found if not name.startswith("models/")}


def test_a_familys_rows_rest_on_its_file_and_its_helpers(tree):
    assert changed(tree, "pipeline/encoding/encoders/timm.py", statement) == {"encoders/vit"}
    found = changed(tree, "pipeline/encoding/encoders/pictures.py", statement)
    assert {name for name in found if name.startswith("encoders/")} == {"encoders/patches", "encoders/vit"}


@pytest.mark.parametrize(
    "file", ["pipeline/tables.py", "pipeline/encoding/store.py", "pipeline/encoding/encoders/__init__.py"]
)
def test_what_decides_no_rows_does_not_throw_the_store_away(tree, file):
    found = changed(tree, file, statement)
    assert "stages/encode" in found
    assert not {name for name in found if name.startswith("encoders/")}


@pytest.mark.parametrize("file", code.PLUMBING)
def test_how_a_stage_is_started_and_checked_changes_nothing(tree, file):
    assert changed(tree, file, statement) == set()


def test_a_stage_follows_imports_of_imports_and_imports_inside_functions_but_not_what_is_loaded_by_name():
    found = {path.relative_to(ROOT).as_posix() for path in closure([ROOT / "stages/train.py"])}
    assert {"stages/train.py", *(f"trainers/training/{name}.py" for name in ("train", "loop", "optimizer"))} <= found
    assert "trainers/models/momok.py" not in found
    found = {path.relative_to(ROOT).as_posix() for path in closure([ROOT / "stages/encode.py"])}
    assert "pipeline/encoding/encoders/learned.py" in found
    assert "pipeline/encoding/encoders/beit.py" not in found


def test_relative_imports_are_followed_and_a_door_counts_for_who_goes_through_it(tmp_path):
    for name, text in {
        "trainers/__init__.py": "", "trainers/a/__init__.py": "",
        "trainers/a/b.py": "from . import c\nfrom ..d import e", "trainers/a/c.py": "x = 1", "trainers/d.py": "e = 2",
    }.items():  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    found = closure([tmp_path / "trainers/a/b.py"], tmp_path)
    assert {path.relative_to(tmp_path).as_posix() for path in found} == {
        "trainers/a/b.py", "trainers/a/c.py", "trainers/d.py", "trainers/a/__init__.py",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("x = 'a'", 'x = "a"  # why', True),
        ("def f():\n  'doc'\n  return 1", "async def g(): pass\ndef f(): return 1", False),
        ("async def f():\n  'doc'\n  return 1", "async def f(): return 1", True),
        ("x = 1", "x = 1.0", False),
        ("x = None", "x = ...", False),
        ("a()\nb()", "b()\na()", False),
        ("def f(x: int): return x", "def f(x): return x", False),
    ],
)
def test_versions_are_of_the_syntax(tmp_path, one, other, same):
    path, versions = tmp_path / "module.py", []
    for text in (one, other):
        path.write_text(text)
        versions.append(code_version(path))
    assert (versions[0] == versions[1]) == same


def test_only_what_changed_is_written_and_what_is_gone_is_removed(tree):
    folder = tree / "out"
    code.write(ENCODERS, tree, folder)
    files = {path: path.stat().st_mtime_ns for path in folder.rglob("*.txt")}
    assert {path.relative_to(folder).as_posix() for path in files} >= {"stages/train.txt", "models/momok.txt"}
    path = tree / "trainers/models/momok.py"
    path.write_text(statement(path.read_text()))
    (tree / "trainers/models/tucker.py").rename(tree / "trainers/models/tucker_two.py")
    code.write(ENCODERS, tree, folder)
    after = {path: path.stat().st_mtime_ns for path in folder.rglob("*.txt")}
    assert folder / "models/tucker.txt" not in after
    assert folder / "models/tucker_two.txt" in after
    assert files[folder / "models/transe.txt"] == after[folder / "models/transe.txt"]
    assert files[folder / "models/momok.txt"] != after[folder / "models/momok.txt"]


def test_the_version_of_a_run_is_that_which_dvc_compares():
    assert runs.code_version("momok").split("+")[1] == code.versions({})["models/momok"]


def test_every_module_that_is_loaded_by_name_has_a_version_of_its_own():
    """`import_module` hides an import from the closure: whoever uses it names what it loads in stages/code.py."""
    found = {path.relative_to(ROOT).as_posix() for package in PACKAGES for path in (ROOT / package).rglob("*.py")
             if "import_module" in path.read_text()}  # fmt: skip
    assert found == {
        "pipeline/encoding/encoders/__init__.py", "pipeline/encoding/inputs.py", "trainers/about.py",
        "trainers/training/runs.py",  # loads what shows answers, of which no output of a stage is made
    }  # fmt: skip
