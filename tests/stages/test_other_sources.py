"""Where texts, pictures and features come from elsewhere: through `dvc repro`, to trained models."""

import contextlib
import json
import urllib.parse
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from pipeline import tables
from tests.helpers import wiki_server
from tests.helpers.clones import MINI, clone, command, ran, read_params, set_key, write_params
from tests.helpers.mini_world import run_stage

pytestmark = pytest.mark.slow

MODELS = ("adamf_mat", "momok", "mygo")


@pytest.fixture
def folder(tmp_path) -> Path:
    """A clone whose graph is mini and whose models are the three that read pictures and texts, for an epoch each."""
    folder = clone(tmp_path / "clone")
    set_key(folder, "models", list(MODELS))
    for model in MODELS:
        set_key(folder, "mini", "epochs", 1, file=f"configs/models/{model}.yaml")
    return folder


def change(folder: Path, **blocks: dict) -> None:
    """Change keys of the graph's block, and of `web`."""
    params = read_params(folder)
    params["web"] |= blocks.pop("web", {})
    write_params(folder, params)
    write_params(folder, read_params(folder, MINI) | blocks, MINI)


def keys(folder: Path) -> list[str]:
    """The graph's entities in the order of their ids."""
    with contextlib.chdir(folder):
        for name in ("download", "ingest"):
            run_stage(name, "--graph", "mini")
    table = tables.read(folder / "data/mini/graph/entities.parquet", "entities").sort_by("entity_id")
    return table["key"].to_pylist()


def test_a_graph_whose_texts_and_pictures_come_from_the_web(folder):
    set_key(folder, "models", ["adamf_mat", "mygo"])  # one that reads features, one that reads tokens
    names = keys(folder)
    known = {
        f"Q{10 + n}": {
            "label": name.replace("_", " "), "description": f"number {n}", "title": name.replace("_", " "),
            "aliases": [], "pictures": [f"{n} a.jpg", f"{n} b.jpg"] if n % 3 else [],
        }
        for n, name in enumerate(map(urllib.parse.unquote, names)) if n < 90
    }  # fmt: skip
    with wiki_server.Server(known) as server:
        change(
            folder,
            text={"source": "wikidata", "fallback": "none"},
            images={"source": "commons", "path": None},
            web={"contact": "a@b.org", "rate": 500, "wikidata": server.address, "commons": server.address,
                 "wikipedia": None},
        )  # fmt: skip
        command(folder, "make", "repro", "VENV=")
        asked = len(server.seen)
        # Another quality of JPEG makes every picture anew, of the answers that are kept.
        set_key(folder, "images", "quality", 70)
        again = ran(command(folder, "dvc", "repro", "train@mini-adamf_mat"))
        assert {"images", "encode_images", "train"} <= again
        assert len(server.seen) == asked
    told = json.loads((folder / "data/mini/images.json").read_text())
    assert (told["with_several"], told["pictures"], told["licences"][0]["licence"]) == (60, 120, "CC BY-SA 4.0")
    ids, _ = tables.features(folder / "data/mini/encoded/image/features.parquet")
    assert ids.tolist() == [n for n in range(90) if n % 3]
    assert json.loads((folder / "data/mini/text.json").read_text())["with_text"] == 90
    for path in [*(folder / "data/mini").rglob("*.parquet"), *(folder / "runs").rglob("*.parquet")]:
        told = tables.provenance(path)
        assert told["code_version"], f"{path} does not say which code made it"
    for model in ("adamf_mat", "mygo"):
        assert 0 < json.loads((folder / f"runs/mini/{model}/test.json").read_text())["mrr"] < 1


def test_a_graph_whose_features_and_tokens_were_released(folder):
    names = keys(folder)
    dice = np.random.default_rng(0)
    given = folder / "released"
    given.mkdir()
    blocks = {}
    for kind, width, codes, code_width in (("image", 4096, 8193, 32), ("text", 768, 15000, 768)):
        rows = dice.normal(0.2, 1, (len(names), width)).astype(np.float32)
        rows[5:25] = 0  # what their authors wrote for entities without
        torch.save(torch.from_numpy(rows), given / f"mini-{kind}.pth")
        torch.save(torch.from_numpy(dice.normal(size=(codes, code_width)).astype(np.float32)), given / f"{kind}.pth")
        tokens = {name: dice.integers(0, codes - 1, 196 if kind == "image" else 9).tolist() for name in names[25:]}
        (given / f"{kind}.json").write_text(json.dumps(tokens))
        blocks[kind] = {
            "features": f"released/mini-{kind}.pth", "codebook": f"released/{kind}.pth",
            "tokens": f"released/{kind}.json", "tokens_per_picture": 196 if kind == "image" else None,
        }  # fmt: skip
    change(folder, encoded="released", released=blocks, images={"source": "none", "path": None})
    command(folder, "make", "repro", "VENV=")
    for kind, width in (("image", 4096), ("text", 768)):
        ids, matrix = tables.features(folder / f"data/mini/encoded/{kind}/features.parquet")
        assert (len(ids), matrix.shape[1]) == (len(names) - 20, width)
        assert np.array_equal(matrix[-1], torch.load(given / f"mini-{kind}.pth", weights_only=True)[-1].numpy())
        provenance = tables.provenance(folder / f"data/mini/encoded/{kind}/features.parquet")
        assert provenance["encoder"] == "released"
    for model in MODELS:
        assert 0 < json.loads((folder / f"runs/mini/{model}/test.json").read_text())["mrr"] < 1
    history = pd.read_csv(folder / "runs/mini/mygo/history.csv")
    assert np.isfinite(history["loss"]).all()
