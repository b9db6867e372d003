"""Who has the rows of a colleague's store needs neither the encoder's weights, nor their licence, nor a network."""

import shutil
import sys
from pathlib import Path

import pytest
from huggingface_hub import constants

import stages.encode
from pipeline.download import sources
from pipeline.encoding.encoders import clusters, hub, timm
from pipeline.retry import RetryPolicy
from tests.helpers import encoder_zoo as zoo
from tests.helpers.clones import ROOT, set_key

COMMIT = "0123456789abcdef0123456789abcdef01234567"
PLACES = {"text": "text", "image": "images"}  # where params.yaml names a modality's encoder
KINDS = tuple(PLACES)
NOWHERE = "http://127.0.0.1:9/weights"  # nobody listens there


@pytest.fixture
def clones(tmp_path, monkeypatch):
    """Two clones of the project that share a store; the weights are known to the first one only."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(hub, "RETRY", RetryPolicy(retries=0, wait=lambda _: None))
    monkeypatch.delenv("TESSERA_MIRROR", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    folders = [tmp_path / name for name in ("first", "second")]
    for folder in folders:
        clone(folder, tmp_path)
    zoo.bert(tmp_path / "hub/models--org--bert/snapshots" / COMMIT)
    served = tmp_path / "served/127.0.0.1:9/weights/vqkd.pth"
    served.parent.mkdir(parents=True)
    shutil.move(zoo.vqkd(tmp_path / "made"), served)
    set_key(folders[0], "sources", "mirror", str(tmp_path / "served"))
    return folders


def clone(folder: Path, tmp_path: Path) -> None:
    """A project's folder with texts and pictures, whose encoders have names that mean the same everywhere."""
    folder.mkdir()
    shutil.copy(ROOT / "params.yaml", folder)
    shutil.copytree(ROOT / "configs", folder / "configs")
    set_key(folder, "store", str(tmp_path / "store"))
    set_key(folder, "sources", "retries", 0)
    set_key(folder, "encode", "precision", "float32")
    set_key(folder, "text", "encoder", "bert")
    set_key(folder, "model", "org/bert", file="configs/encoders/bert.yaml")
    set_key(folder, "revision", COMMIT, file="configs/encoders/bert.yaml")
    set_key(folder, "images", "encoder", "beit")
    set_key(folder, "weights", f"{NOWHERE}/vqkd.pth", file="configs/encoders/beit.yaml")
    set_key(folder, "heads", 4, file="configs/encoders/beit.yaml")
    data = folder / "data/mini"
    zoo.write_texts(data / "text.parquet", {**{n: zoo.text(n) for n in range(5)}, 5: " "})
    zoo.write_pictures(data / "images", [(n, 0, zoo.picture(n)) for n in range(4)])


def encode(folder: Path, kind: str, monkeypatch) -> dict[str, bytes]:
    """Run the stage; the tables' bytes."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["encode", "--graph", "mini", "--modality", kind])
    stages.encode.main()
    return {path.name: path.read_bytes() for path in (folder / "data/mini/encoded" / kind).glob("*.parquet")}


def lose_the_weights(tmp_path: Path) -> None:
    for folder in ("hub", "served", "first/data/.weights"):
        shutil.rmtree(tmp_path / folder, ignore_errors=True)
    assert not list(tmp_path.rglob("*.safetensors"))
    assert not list(tmp_path.rglob("vqkd.pth"))


@pytest.mark.parametrize("kind", KINDS)
def test_the_store_is_enough(kind, clones, tmp_path, monkeypatch):
    tables = encode(clones[0], kind, monkeypatch)
    assert len(tables) == 3
    lose_the_weights(tmp_path)
    assert encode(clones[1], kind, monkeypatch) == tables
    assert not (clones[1] / "data/.weights").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_that_is_missing_is_said_with_the_weights(kind, clones, tmp_path, monkeypatch, capsys):
    encode(clones[0], kind, monkeypatch)
    lose_the_weights(tmp_path)
    data = clones[1] / "data/mini"
    zoo.write_texts(data / "text.parquet", {n: zoo.text(n) for n in range(6)})
    zoo.write_pictures(data / "images", [(n, 0, zoo.picture(n)) for n in range(5)])
    with pytest.raises(SystemExit) as ended:
        encode(clones[1], kind, monkeypatch)
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert "The store lacks some of " in said
    assert said.count("error: ") == 1
    assert "Traceback" not in said
    assert not list((data / "encoded").rglob("*.parquet"))


def test_rows_of_another_device_serve_where_all_are_there(clones, tmp_path, monkeypatch):
    """Ids of pictures are a device's own, and so are fingerprints; who has no GPU still uses rows that one made."""
    recipe = stages.encode.records.recipe

    def elsewhere(family, block, precision, device, sha256):
        return recipe(family, block, precision, {"cpu": "cuda", "cuda": "cpu"}[device], sha256)

    with monkeypatch.context() as there:
        there.setattr(stages.encode.records, "recipe", elsewhere)
        tables = encode(clones[0], "image", there)
    lose_the_weights(tmp_path)
    assert encode(clones[1], "image", monkeypatch) == tables
    zoo.write_pictures(clones[1] / "data/mini/images", [(0, 0, zoo.picture(77))])
    with pytest.raises(SystemExit):
        encode(clones[1], "image", monkeypatch)


def test_other_weights_under_the_same_address_are_not_taken_for_them(clones, tmp_path, monkeypatch, capsys):
    encode(clones[0], "image", monkeypatch)
    content = bytearray((tmp_path / "served/127.0.0.1:9/weights/vqkd.pth").read_bytes())
    content[-20] ^= 1
    (tmp_path / "served/127.0.0.1:9/weights/vqkd.pth").write_bytes(content)
    set_key(clones[1], "sources", "mirror", str(tmp_path / "served"))
    zoo.write_pictures(clones[1] / "data/mini/images", [(0, 0, zoo.picture(77))])
    with pytest.raises(SystemExit):
        encode(clones[1], "image", monkeypatch)
    assert "others than those that made its rows" in capsys.readouterr().err


def test_settings_precision_and_pinned_weights_lead_to_other_rows(clones, tmp_path, monkeypatch, capsys):
    """A recipe is as exact as a fingerprint: whatever differs is asked of the weights, never guessed."""
    encode(clones[0], "text", monkeypatch)
    encode(clones[0], "image", monkeypatch)
    lose_the_weights(tmp_path)
    for kind, *change, file in (
        ("text", "pooling", "first", "configs/encoders/bert.yaml"),
        ("text", "revision", COMMIT[::-1], "configs/encoders/bert.yaml"),
        ("image", "sha256", "0" * 64, "configs/encoders/beit.yaml"),
        ("image", "encode", "precision", "bfloat16", "params.yaml"),
    ):
        kept = (clones[1] / file).read_text()
        set_key(clones[1], *change, file=file)
        with pytest.raises(SystemExit):
            encode(clones[1], kind, monkeypatch)
        (clones[1] / file).write_text(kept)
        said = capsys.readouterr().err
        assert "cannot be fetched" in said, (kind, change, said)
        assert "The store lacks" not in said, "the weights are asked first, as ever"
    assert sources.recorded(clones[1] / "data/.weights/sha256.json") == {}


def test_what_an_encoder_learned_from_its_inputs_is_in_no_recipe():
    block = {"family": "clusters", "model": "timm/a", "revision": COMMIT}
    assert stages.encode.records.recipe(timm, block, "float32", "cpu", None)
    assert stages.encode.records.recipe(clusters, block, "float32", "cpu", None) is None
