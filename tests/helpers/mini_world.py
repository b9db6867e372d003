"""A folder as `make repro` leaves it, made in seconds: a part of `mini`, and small runs of one epoch.

What the commands of the README and docs/ are run in. All names are there, a fifth of the facts, some of the texts, and
pictures of three entities.
"""

import contextlib
import shutil
import sys
from importlib import import_module
from pathlib import Path
from unittest import mock

import numpy as np
from PIL import Image

from pipeline import tables
from tests.helpers.clones import MINI, ROOT, read_params, set_key, write_params

MODELS = ("adamf_mat", "rotate", "mosaic")
SMALL = {
    "epochs": 1,
    "dimension": 8,
    "negatives": 4,
    "rules_per_relation": 5,
    "structure_ranks": [8],
    "text_ranks": [8],
    "image_ranks": [8],
}


def files(folder: Path) -> None:
    """What the commands read of the project itself, set to small models; the graph's source files."""
    for name in ("configs", "data/mini/source", "stages/report"):
        shutil.copytree(ROOT / name, folder / name)
    for name in ("params.yaml", "README.md"):
        shutil.copy2(ROOT / name, folder / name)
    (folder / "docs/images").mkdir(parents=True)
    for model in MODELS:
        file = f"configs/models/{model}.yaml"
        blocks = read_params(folder, file)
        known = {**blocks["common"], **blocks["mini"]}
        blocks["mini"] |= {key: value for key, value in SMALL.items() if key in known}
        write_params(folder, blocks, file)
    set_key(folder, "studies", "shares", [0, 0.5])
    set_key(folder, "studies", "seeds", 1)
    set_key(folder, "images", "encoder", "patches_coarse")
    set_key(folder, "images", {"source": "folder", "path": str(folder / "pictures")}, file=MINI)
    shutil.copy2(folder / MINI, folder / "configs/graphs/other.yaml")
    shutil.copy2(folder / MINI, folder / "configs/graphs/bands.yaml")
    draw = np.random.default_rng(0)
    for key in (folder / "data/mini/source/train.tsv").read_text(encoding="utf-8").split()[:9:3]:
        (folder / "pictures" / key).mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(folder / "pictures" / key / "1.png")


def build(folder: Path) -> None:
    """Graphs `mini` and `other`, the same not yet encoded; runs and figures; `bands` is mini under another name."""
    files(folder)
    with contextlib.chdir(folder):
        for name in ("download", "ingest", "fetch", "text", "images"):
            run_stage(name, "--graph", "mini")
        _shorten(Path("data/mini/graph/triples.parquet"), "triples", 5)
        _shorten(Path("data/mini/text.parquet"), "text", 20)
        shutil.copytree("data/mini", "data/other")
        for modality in ("text", "image"):
            run_stage("encode", "--graph", "mini", "--modality", modality)
        for model in MODELS:
            for name in ("train", "evaluate"):
                run_stage(name, "--graph", "mini", "--model", model)
        for name in ("data", "runs"):
            Path(name, "bands").symlink_to("mini")


def empty(folder: Path) -> Path:
    """A folder in which nothing has been built, with a file of triples of one's own."""
    files(folder)
    (folder / "configs/graphs/bands.yaml").unlink()
    rows = (folder / "data/mini/source/train.tsv").read_text(encoding="utf-8").replace(",", "").replace("\t", ",")
    (folder / "triples.csv").write_text(rows, encoding="utf-8")
    return folder


def _shorten(path: Path, kind: str, nth: int) -> None:
    """Every n-th row, so that encoding, training and ranking take no time."""
    table = tables.read(path, kind)
    rows = table.take(list(range(0, table.num_rows, nth)))
    tables.write(path, kind, rows.to_pydict(), {"split": "clean"})


def run_stage(name: str, *words: str) -> None:
    """A stage in this process, in the folder that it is in."""
    with mock.patch.object(sys, "argv", [name, *words]):
        import_module(f"stages.{name}").main()
