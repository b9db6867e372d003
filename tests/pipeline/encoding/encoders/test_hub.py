"""What is fetched of a model's page on the hub, from a hub on loopback: what its loader reads, and nothing else."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from pipeline.encoding.encoders import hub, hub_files, language, timm
from pipeline.errors import UserError
from pipeline.retry import RetryPolicy
from tests.helpers import encoder_zoo as zoo
from tests.helpers.hub_server import COMMIT, running

# What real pages carry beside the weights that are read.
IDLE = (
    "tf_model.h5", "flax_model.msgpack", "rust_model.ot", "model.onnx", "onnx/model.onnx", "onnx/model.safetensors",
    "model.fp16.safetensors", "consolidated.safetensors", "consolidated.00.pth", "model-q4.gguf", "README.md",
    "original/consolidated.00.pth", "coreml/weights.bin", "openvino/config.json", "1_Pooling/config.json",
)  # fmt: skip
TOKENIZER = {"config.json", "tokenizer.json", "tokenizer_config.json"}


@pytest.fixture
def page(tmp_path, monkeypatch):
    """`page(folder)` puts a model on a hub of its own as org/model, with all that lies idle; gives the running hub."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "home/hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(hub, "RETRY", RetryPolicy(retries=2, wait=lambda _: None))
    with running(tmp_path / "pages") as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.address)
        template = server.address + "/{repo_id}/resolve/{revision}/{filename}"  # made of the endpoint at import
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)

        def put(make, *idle: str):
            folder = tmp_path / "pages/org/model"
            make(folder)
            for name in (*IDLE, *idle):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(b"idle")
            return server

        yield put


def bert(folder: Path) -> None:
    zoo.bert(folder)


def pickled(folder: Path) -> None:
    """As older models lie there: a pickle alone."""
    torch.save(load_file(zoo.bert(folder) / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def sharded(folder: Path) -> None:
    zoo.byte_pairs(folder, "llama")
    assert (folder / "model.safetensors.index.json").is_file()


def sharded_pickles(folder: Path) -> None:
    state = load_file(zoo.bert(folder) / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(state)
    where = {}
    for part in (0, 1):
        file = f"pytorch_model-0000{part + 1}-of-00002.bin"
        torch.save({name: state[name] for name in names[part::2]}, folder / file)
        where |= dict.fromkeys(names[part::2], file)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))


def encoder(**keys) -> language.Language:
    settings = language.Settings("org/model", COMMIT, **keys)
    return language.load(settings, device=zoo.CPU, precision=torch.float32)


@pytest.mark.parametrize(
    ("make", "weights", "idle"),
    [
        (bert, {"model.safetensors"}, ("pytorch_model.bin", "pytorch_model.bin.index.json")),
        (pickled, {"pytorch_model.bin"}, ()),
        (sharded, None, ("pytorch_model-00001-of-00002.bin", "pytorch_model.bin.index.json")),
        (sharded_pickles, None, ()),
    ],
)
def test_what_the_loader_reads_and_nothing_else(page, make, weights, idle, tmp_path):
    server = page(make, *idle)
    folder = tmp_path / "pages/org/model"
    if weights is None:
        (index,) = (path for path in folder.glob("*.index.json") if path.read_bytes() != b"idle")
        weights = {index.name, *json.loads(index.read_text())["weight_map"].values()}
    made = encoder()
    rows = made.encode(made.prepare(["word1 word2", "word3 word4"]))
    assert rows.features.any()
    assert set(server.fetched()) <= TOKENIZER | weights | {"vocab.txt", "special_tokens_map.json"}
    assert weights <= set(server.fetched())
    assert len(server.fetched()) == len(set(server.fetched())), "nothing twice"
    before = len(server.asked)
    encoder()
    assert len(server.asked) == before, "what is there asks nobody"


@pytest.mark.parametrize("make", [bert, sharded])
def test_tokens_alone_fetch_the_bytes_of_one_tensor(page, make, tmp_path, caplog):
    caplog.set_level("INFO")
    server = page(make)
    server.elsewhere = True
    made = encoder(pooling="none")
    whole = sum(path.stat().st_size for path in (tmp_path / "pages/org/model").glob("model*.safetensors"))
    taken = [line.split()[2] for line in server.asked if ".safetensors " in line and line.endswith("206")]
    spans = [[int(one) for one in span.removeprefix("bytes=").split("-")] for span in taken]
    assert 0 < sum(last - first + 1 for first, last in spans) < whole / 2
    used = np.array([5, 7, 200], dtype=np.int32)
    apart = language.embedding_rows(tmp_path / "pages/org/model", used)
    assert (made.codebook(used) == apart).all()
    before = len(server.asked)
    again = encoder(pooling="none")
    assert again.fingerprint == made.fingerprint
    assert len(server.asked) == before
    assert encoder().fingerprint["pooling"] == "mean", "who wants features too fetches the model"
    assert len(server.asked) > before


def test_of_pickled_shards_the_one_with_the_embedding(page):
    """Parts of a pickle cannot be asked for, but parts of the model can."""
    server = page(sharded_pickles)
    made = encoder(pooling="none")
    assert len([name for name in server.fetched() if name.endswith(".bin")]) == 1
    assert made.codebook(np.array([5, 7], dtype=np.int32)).any()
    before = len(server.asked)
    encoder(pooling="none")
    assert len(server.asked) == before
    encoder()
    assert len({name for name in server.fetched() if name.endswith(".bin")}) == 2


def test_a_timm_model(page):
    server = page(lambda folder: zoo.vit(folder), "pytorch_model.bin")
    made = timm.load(timm.Settings("org/model", COMMIT), device=zoo.CPU, precision=torch.float32)
    assert made.encode(made.prepare([zoo.picture(1), zoo.picture(2)])).features.shape == (2, 32)
    assert sorted(server.fetched()) == ["config.json", "model.safetensors"]


def same_files(folder: Path, other: Path) -> list[str]:
    """The names of files in `folder`, all of which must be in `other` byte for byte."""
    names = sorted(path.name for path in folder.iterdir())
    assert [name for name in names if (folder / name).read_bytes() != (other / name).read_bytes()] == []
    return names


def test_what_breaks_off_is_asked_again(page, tmp_path):
    server = page(bert)
    server.busy, server.cut = 1, 20_000
    found = hub.locate("org/model", COMMIT)
    assert (server.busy, server.cut) == (0, None), "an answer was refused and another one broke off"
    assert "model.safetensors" in same_files(found, tmp_path / "pages/org/model")


def test_a_tensor_that_breaks_off_is_asked_again(page, tmp_path):
    """The client asks for files again by itself, but not for a part of one."""
    server = page(bert)
    used = np.array([5, 7], dtype=np.int32)
    server.cut = max(path.stat().st_size for path in (tmp_path / "pages/org/model").glob("*.[jt]*"))
    found = hub.locate("org/model", COMMIT, language.EMBEDDINGS)
    assert server.cut is None
    expected = language.embedding_rows(tmp_path / "pages/org/model", used)
    np.testing.assert_array_equal(language.embedding_rows(found, used), expected)


@pytest.mark.parametrize(
    ("make", "lost"),
    [
        pytest.param(bert, "model.safetensors", id="the tokenizer alone was fetched"),
        pytest.param(bert, "[tv]o[kc]*", id="the model alone was fetched"),
        pytest.param(bert, "config.json", id="no config"),
        pytest.param(sharded, "model-00002-of-*.safetensors", id="killed between two shards"),
        pytest.param(sharded, "model.safetensors.index.json", id="no index"),
        pytest.param(pickled, "pytorch_model.bin", id="no pickle"),
    ],
)
def test_a_cache_with_a_part_of_the_model_is_completed_by_what_it_lacks(page, make, lost, tmp_path):
    server = page(make)
    whole = encoder()
    items = whole.prepare(["word1 word2", "word3 word4"])
    rows = whole.encode(items).features
    folder = hub.locate("org/model", COMMIT)
    gone = sorted(folder.glob(lost))
    for path in gone:
        path.resolve().unlink()
        path.unlink()
    server.asked.clear()
    again = encoder()
    assert server.fetched() == [path.name for path in gone] != []
    np.testing.assert_array_equal(again.encode(items).features, rows)


@pytest.mark.parametrize(
    ("revision", "change", "said"),
    [
        ("f" * 40, {}, "org/model has no revision ffff"),
        (COMMIT, {"gated": True}, "org/model is gated: accept its licence"),
        (COMMIT, {"busy": 99}, "cannot be fetched"),
    ],
)
def test_what_cannot_be_had_is_a_sentence(page, revision, change, said):
    server = page(bert)
    for name, value in change.items():
        setattr(server, name, value)
    for only in ((), language.EMBEDDINGS):
        with pytest.raises(UserError, match=said) as error:
            hub.locate("org/model", revision, only)
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="cannot be fetched" if server.busy else "knows no model org/absent"):
        hub.locate("org/absent", COMMIT)


def test_a_page_without_weights_that_can_be_read(page, tmp_path):
    page(bert)
    (tmp_path / "pages/org/model/model.safetensors").unlink()
    with pytest.raises(UserError, match="no weights as safetensors"):
        hub.locate("org/model", COMMIT)
    for name in ("a.safetensors", "b.safetensors"):
        save_file({"x": torch.zeros(1)}, tmp_path / "pages/org/model" / name)
    with pytest.raises(UserError, match="2 files of weights and no index"):
        hub.locate("org/model", COMMIT)


def test_size_speed_and_time_left_stand_in_a_log(page, monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr(hub_files, "TOLD_EVERY", 0.0)
    monkeypatch.setattr(hub_files, "WORTH_TELLING", 1000)
    page(bert)
    hub.locate("org/model", COMMIT)
    said = "\n".join(caplog.messages)
    assert f"fetching org/model at {COMMIT}: " in said
    assert "model.safetensors: 100 % (" in said
    assert " left" in said
    assert "B/s" in said
    assert "HTTP Request" not in said


def test_the_cache_is_the_clients_own(page, tmp_path):
    """Another program that fetched the model before us leaves nothing to do."""
    from huggingface_hub import snapshot_download

    server = page(bert)
    theirs = Path(snapshot_download("org/model", revision=COMMIT, cache_dir=constants.HF_HUB_CACHE))
    shutil.rmtree(tmp_path / "pages")
    server.asked.clear()
    assert hub.locate("org/model", COMMIT) == theirs
    assert not server.asked
