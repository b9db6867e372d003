"""dvc.yaml must say what is true: each stage's deps are the modules it imports, its params the keys it reads."""

import ast
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
PACKAGES = ("pipeline", "stages", "trainers")

# How a stage is started and how params.yaml is checked changes no output; what is read from params.yaml is a param.
PLUMBING = {"stages/cli.py", "stages/params.py"} | {f"{package}/__init__.py" for package in PACKAGES}
# Keys that say where, how fast or how patiently, but not what: changing one must run nothing again.
NO_OUTPUT = {"sources", "store", "encode", "web", "evaluate.memory", "train.device", "graphs", "model_blocks"}


def module_path(name: str) -> Path | None:
    """The file of one of the project's modules; None for anything else."""
    base = ROOT.joinpath(*name.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if name.split(".")[0] in PACKAGES and path.exists():
            return path
    return None


def imports(path: Path) -> set[Path]:
    """The project's files that a file imports itself, wherever in it the import stands."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        found |= {module for name in names if (module := module_path(name))}
    return found


def closure(path: Path) -> set[str]:
    """All the project's files that running a file imports, as paths from the project's folder."""
    seen, todo = set(), {path}
    while todo:
        here = todo.pop()
        seen.add(here)
        todo |= imports(here) - seen
    return {found.relative_to(ROOT).as_posix() for found in seen}


def covered(file: str, deps: list[str]) -> bool:
    return any(file == dep or file.startswith(f"{dep}/") for dep in deps)


def script(name: str) -> str:
    module = STAGES[name]["cmd"].split()[2]
    return module.replace(".", "/") + ".py"


def models() -> list[str]:
    from trainers import MODELS

    return list(MODELS)


def cases() -> list[tuple[str, str | None]]:
    """(stage, model): a stage that is run for each model is checked for each model."""
    return [
        (name, model)
        for name, stage in STAGES.items()
        for model in (models() if "model" in stage.get("matrix", {}) else [None])
    ]


@pytest.mark.parametrize(("name", "model"), cases())
def test_deps_are_the_import_closure(name, model):
    deps = [str(dep).replace("${item.model}", str(model)) for dep in STAGES[name]["deps"]]
    files = [script(name)] + ([f"trainers/{model}.py"] if model else [])
    needed = set().union(*(closure(ROOT / file) for file in files)) - PLUMBING
    assert {file for file in needed if not covered(file, deps)} == set(), "imported, but not among the deps"


@pytest.mark.parametrize("name", list(STAGES))
def test_no_dep_is_there_for_nothing(name):
    deps = [dep for dep in STAGES[name]["deps"] if dep.endswith(".py") and "${" not in dep]
    needed = closure(ROOT / script(name))
    if "model" in STAGES[name].get("matrix", {}):
        needed = needed.union(*(closure(ROOT / f"trainers/{model}.py") for model in models()))
    assert [dep for dep in deps if dep not in needed] == []


def keys_read(path: Path) -> set[str]:
    """Chains like `params.text.encoder` in a script, as "text.encoder"; a subscript ends the chain."""
    found = set()
    tree = ast.parse(path.read_text())
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute | ast.Call)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and id(node) not in inner:
            chain, here = [], node
            while isinstance(here, ast.Attribute):
                chain.append(here.attr)
                here = here.value
            if isinstance(here, ast.Name) and here.id == "params":
                found.add(".".join(reversed(chain)).removesuffix(".model_dump"))
    return found


@pytest.mark.parametrize("name", list(STAGES))
def test_params_are_the_keys_read(name):
    declared = STAGES[name].get("params", [])
    roots = {key.split(".")[0] for key in declared if "${item.model}" not in key}
    read = {
        key for key in keys_read(ROOT / script(name)) if key not in NO_OUTPUT and key.split(".")[0] not in NO_OUTPUT
    }
    if name == "check":  # it depends on the whole file
        assert "params.yaml" in STAGES[name]["deps"]
        return
    assert {key.split(".")[0] for key in read} <= roots, "read, but not among the params"
    assert roots <= {key.split(".")[0] for key in keys_read(ROOT / script(name))}, "among the params, but never read"
