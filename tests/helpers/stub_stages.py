"""A clone whose stages make their files and compute nothing: DVC's own work on our dvc.yaml, in seconds.

Only `check` is the real one, because the other stages' params are in what it writes.
"""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import yaml

from tests.helpers.clones import MINI, clone, command, set_key

GRAPH, MODELS = "bands", ["rotate"]
CONTENT = """'{"mrr": 0.5, "dev_mrr": 0.5, "hits_at_1": 0.4, "hits_at_3": 0.5, "hits_at_10": 0.6}'"""


def build(folder: Path) -> None:
    """The clone, with a commit before everything has run once and one after it; none of ours, which DVC would read."""
    clone(folder, rows=False)
    (folder / "configs/graphs").mkdir(exist_ok=True)
    shutil.copy2(folder / MINI, folder / f"configs/graphs/{GRAPH}.yaml")
    set_key(folder, "graphs", [GRAPH])
    set_key(folder, "models", MODELS)
    described = yaml.safe_load((folder / "dvc.yaml").read_text(encoding="utf-8"))
    needed = [one for stage in described["stages"].values() for one in stage.get("deps", [])]
    for name, stage in described["stages"].items():
        if name != "check":
            stage["cmd"] = f"{_touch(stage, needed)} # {stage['cmd']}"
    (folder / "dvc.yaml").write_text(yaml.safe_dump(described, sort_keys=False), encoding="utf-8")
    shutil.rmtree(folder / ".git")
    subprocess.run(["git", "init", "-q", "-b", "main"], cwd=folder, check=True)
    _commit(folder)
    command(folder, "dvc", "repro", "-q")
    _commit(folder)
    subprocess.run(["git", "clone", "-q", str(folder), str(folder.parent / "colleague")], check=True)


def _touch(stage: dict, needed: list[str]) -> str:
    """A line of the shell that makes the outputs of a stage, and what other stages need below them."""
    files = sorted(set(_files(stage, needed)))
    if not files:
        return "true"
    folders = sorted({str(Path(one).parent) for one in files})
    return f"mkdir -p {' '.join(folders)} && for f in {' '.join(files)}; do echo {CONTENT} > $f; done"


def _files(stage: dict, needed: list[str]) -> Iterator[str]:
    for kind in ("outs", "metrics", "plots"):
        for one in stage.get(kind, []):
            path = one if isinstance(one, str) else next(iter(one))
            below = [other for other in needed if other.startswith(f"{path}/")]
            yield from below or [path if Path(path).suffix else f"{path}/made.json"]


def _commit(folder: Path) -> None:
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run([*git, "add", "-A"], cwd=folder, check=True)
    subprocess.run([*git, "commit", "-qm", "a commit"], cwd=folder, check=True)
