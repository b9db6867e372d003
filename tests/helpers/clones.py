"""Clones of the project, as colleagues have them, and what one does in them."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from tests.helpers import warm

ROOT = Path(__file__).resolve().parents[2]
TRANSE, MINI = "configs/models/transe.yaml", "configs/graphs/mini.yaml"


def clone(folder: Path, epochs: int = 1, *, rows: bool = True) -> Path:
    """What git knows, with this tree's changes, its kernels and nothing else; set to build little.

    With `rows`, what this tree has encoded is not computed for each clone again; where there is nothing, clones do.
    """
    subprocess.run(["git", "clone", "-q", str(ROOT), str(folder)], check=True)
    listed = subprocess.run(["git", "ls-files", "-mco", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    for name in listed.stdout.split("\n"):
        if (ROOT / name).is_file() and name != "dvc.lock":
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    (folder / "dvc.lock").unlink(missing_ok=True)
    for library in (ROOT / "trainers").glob("_kernels*"):
        shutil.copy2(library, folder / "trainers")
    if rows and (ROOT / "data/.store").is_dir():
        shutil.copytree(ROOT / "data/.store", folder / "data/.store")
    small(folder, epochs)
    # The environment is there already: `make` need not install.
    (folder / "build").mkdir()
    (folder / "build" / ".installed").touch()
    return folder


def small(folder: Path, epochs: int = 1) -> None:
    """One model for a few epochs, and a second text encoder to change to."""
    set_key(folder, "graphs", ["mini"])
    set_key(folder, "models", ["transe"])
    set_key(folder, "mini", "epochs", epochs, file=TRANSE)
    other = {**read_params(folder, "configs/encoders/minilm.yaml"), "pooling": "first", "max_tokens": 8}
    write_params(folder, other, "configs/encoders/other.yaml")


def read_params(folder: Path, file: str = "params.yaml") -> dict:
    return yaml.safe_load((folder / file).read_text(encoding="utf-8"))


def write_params(folder: Path, params: dict, file: str = "params.yaml") -> None:
    (folder / file).write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")


def set_key(folder: Path, *path_and_value: object, file: str = "params.yaml") -> None:
    """`set_key(folder, "text", "encoder", "other")` is `text: {encoder: other}`; every other key stays."""
    *path, last, value = path_and_value
    params = read_params(folder, file)
    block = params
    for name in path:
        block = block[name]
    block[last] = value
    write_params(folder, params, file)


def environment(**more: str) -> dict[str, str]:
    """This process's, with the active environment's programs first on the PATH and one thread a process."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", **more}


def attempt(folder: Path, *words: str, seconds: float = 600, **more: str) -> tuple[int, str]:
    """Run a command in a clone: its exit code, and all that it prints.

    Its `python -m …` and `dvc …` find their libraries loaded (tests/helpers/warm). Nothing is to kill it.
    """
    done = subprocess.run(
        words, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=seconds,
        env=warm.environment(environment(**more)),
    )  # fmt: skip
    return done.returncode, done.stdout


def command(folder: Path, *words: str, **more: str) -> str:
    """Run a command that must succeed; all that it prints."""
    code, output = attempt(folder, *words, **more)
    assert code == 0, output
    return output


def repro(folder: Path, **more: str) -> str:
    return command(folder, "make", "repro", "VENV=", **more)


def ran(output: str) -> set[str]:
    """The stages that dvc really ran, without their matrix's values."""
    return {name.split("@")[0] for name in re.findall(r"Running stage '([^']+)'", output)}


def share(folder: Path, place: str, **more: str) -> None:
    command(folder, "python", "-m", "stages.ops.share", place, **more)
