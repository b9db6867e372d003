"""What DVC compares in place of the code itself: a version for each script, each model and each encoder.

DVC does not see Python's imports, and takes a comment for a change. So the stage `check` writes, a line a file::

    data/.code/stages/<script>.txt      a stage's script and what it imports (encode: and the modalities' readers)
    data/.code/models/<model>.txt       a model with the training loop and the evaluator, as in run.json
    data/.code/encoders/<encoder>.txt   an encoder's family, as in the feature store

and a stage of dvc.yaml names those that it rests on. pipeline/versions.py says what counts as a change.
"""

from collections.abc import Mapping
from pathlib import Path

from pipeline import tables
from pipeline.modalities import MODALITIES
from pipeline.versions import ROOT, code_version
from trainers.training.version import run_version

FOLDER = Path("data/.code")
FAMILIES = Path("pipeline/encoding/encoders")
# How a stage is started and how params.yaml is checked changes no output; what is read from params.yaml is a param.
PLUMBING = (
    "stages/cli.py",
    *(f"stages/params/{name}.py" for name in ("__init__", "encoders", "files", "models", "schema")),
)


def scripts(root: Path = ROOT) -> dict[str, Path]:
    """What stages of dvc.yaml may run, by the last part of `python -m stages.<script>`."""
    found = {path.stem: path for path in (root / "stages").glob("*.py") if "__main__" in path.read_text("utf-8")}
    found |= {path.parent.name: path for path in (root / "stages").glob("*/__main__.py")}
    return {name: path for name, path in found.items() if path != root / "stages/check.py"}


def models(root: Path = ROOT) -> list[str]:
    """The models on disk by name: one file each."""
    return sorted(path.stem for path in (root / "trainers/models").glob("*.py") if not path.stem.startswith("_"))


def versions(encoders: Mapping[str, str], root: Path = ROOT) -> dict[str, str]:
    """What to write, by path below data/.code without its suffix; `encoders` maps each encoder's name to its family."""
    readers = [root / (row.reader.split(":")[0].replace(".", "/") + ".py") for row in MODALITIES.values()]
    read: dict[Path, set[Path]] = {}  # each file once: they import the same
    found = {f"stages/{name}": code_version(path, *(readers if name == "encode" else ()), whole=True, root=root,
             but=PLUMBING, read=read) for name, path in scripts(root).items()}  # fmt: skip
    found |= {f"models/{name}": run_version(name, root) for name in models(root)}
    families = {family: root / FAMILIES / f"{family}.py" for family in encoders.values()}
    known = {family: code_version(path, root=root, read=read) for family, path in families.items() if path.is_file()}
    return found | {f"encoders/{name}": known[family] for name, family in encoders.items() if family in known}


def write(encoders: Mapping[str, str], root: Path = ROOT, folder: Path = FOLDER) -> None:
    """Bring `folder` up to date: write the files whose version changed, remove those of what is gone."""
    wanted = {folder / f"{name}.txt": f"{version}\n" for name, version in versions(encoders, root).items()}
    for path in set(folder.rglob("*.txt")) - set(wanted):
        path.unlink()
    for path, line in wanted.items():
        if not path.exists() or path.read_text(encoding="utf-8") != line:
            tables.write_text(path, line)
