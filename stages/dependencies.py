"""Which of the project's files each stage imports; `python -m stages.dependencies` writes them into dvc.yaml.

DVC does not see imports: a stage whose deps lack a module would not run again when that module changes.
"""

import ast
from pathlib import Path

from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
PACKAGES = ("pipeline", "stages", "trainers")
# How a stage is started and how params.yaml is checked changes no output; what is read from params.yaml is a param.
PLUMBING = {"stages/cli.py", "stages/params.py"} | {f"{package}/__init__.py" for package in PACKAGES}
# A folder that counts as a whole, for the C files in it are no imports.
WHOLE = ("trainers/kernels",)


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
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        found |= {module for name in names if (module := module_path(name))}
    return found


def closure(file: str) -> set[str]:
    """All the project's files that running `file` imports, itself included, as paths from the project's folder."""
    seen: set[Path] = set()
    todo = {ROOT / file}
    while todo:
        here = todo.pop()
        seen.add(here)
        todo |= imports(here) - seen
    return {found.relative_to(ROOT).as_posix() for found in seen} - PLUMBING


def script(stage: dict) -> str:
    """The file that a stage runs."""
    base = stage["cmd"].split()[2].replace(".", "/")
    return f"{base}.py" if (ROOT / f"{base}.py").exists() else f"{base}/__main__.py"


def models() -> list[str]:
    """The models' files; each is loaded by its name, so no import in a stage shows it."""
    from trainers import MODELS

    return [module.replace(".", "/") + ".py" for module in MODELS.values()]


def code_of(stage: dict) -> list[str]:
    """The files and folders of code that a stage depends on, its own script first.

    A stage that is run for each model names `trainers/models/${item.model}.py` and, besides, what any model imports;
    only a model that another is built upon is named for all.
    """
    own = script(stage)
    needed = closure(own)
    if "model" in stage.get("matrix", {}):
        of_models = [closure(file) for file in models()]
        own_files = {file for file in models() if sum(file in found for found in of_models) == 1}
        needed = needed.union(*of_models) - own_files | {"trainers/models/${item.model}.py"}
    needed = {next((folder for folder in WHOLE if file.startswith(folder)), file) for file in needed - {own}}
    return [own, *sorted(needed)]


def is_code(dep: str) -> bool:
    """Whether a dep is one of the project's own files of code, rather than data."""
    return dep.split("/")[0] in PACKAGES and (dep.endswith(".py") or dep in WHOLE)


def main() -> None:
    yaml = YAML()
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.width = 120
    path = ROOT / "dvc.yaml"
    content = yaml.load(path.read_text(encoding="utf-8"))
    for name, stage in content["stages"].items():
        if name != "check":  # it depends on every trainer, whole
            stage["deps"] = [dep for dep in stage["deps"] if not is_code(dep)] + code_of(stage)
    with path.open("w", encoding="utf-8") as handle:
        yaml.dump(content, handle)


if __name__ == "__main__":
    main()
