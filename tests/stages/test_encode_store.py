"""What the encode stage says of the feature store, and what it finds damaged in it."""

import json
import shutil
import sys

import numpy as np
import pytest

import stages.encode
from pipeline.encoding.store import Stores, key_of
from pipeline.modalities import MODALITIES
from tests.helpers import encoder_zoo as zoo
from tests.helpers.clones import ROOT, set_key


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A project whose store holds three rows of texts and the codebook of their five tokens."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    set_key(tmp_path, "store", str(tmp_path / "store"))
    stores = Stores(str(tmp_path / "store"), tmp_path / "scratch", "text", {"encoder": "a"})
    tokens = [np.array(one, dtype=np.int32) for one in ([1, 2], [3], [4, 5])]
    stores.write([key_of(one) for one in "abc"], tokens, np.zeros((3, 2), np.float32), np.ones(3, np.int32))
    stores.codebook(np.arange(1, 6, dtype=np.int32), lambda used: np.outer(used, [1.0, 2.0]).astype(np.float32))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "store"


def say(monkeypatch, capsys, option: str) -> list[dict]:
    monkeypatch.setattr(sys, "argv", ["encode", "--modality", "text", option])
    stages.encode.main()
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_the_status_counts_rows_and_codes(store, monkeypatch, capsys):
    said = say(monkeypatch, capsys, "--status")
    assert [(one["rows_of"], one["parts"], one["rows"]) for one in said] == [("inputs", 1, 3), ("codebook", 1, 5)]


@pytest.mark.parametrize("harmed", ["text", "text-codebook"])
def test_verify_reads_the_codebook_too(store, harmed, monkeypatch, capsys):
    assert [one["sound_rows"] for one in say(monkeypatch, capsys, "--verify")] == [3, 5]
    (part,) = (store / harmed).rglob("parts/*.parquet")
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(content)
    with pytest.raises(SystemExit) as stopped:
        say(monkeypatch, capsys, "--verify")
    assert stopped.value.code == 1
    found = capsys.readouterr()
    moved = {one["rows_of"]: one["quarantined_now"] for one in map(json.loads, found.out.splitlines())}
    assert moved == {"inputs": int(harmed == "text"), "codebook": int(harmed == "text-codebook")}
    assert "1 corrupt part of" in found.err
    assert [one["quarantined_now"] for one in say(monkeypatch, capsys, "--verify")] == [0, 0]


def test_a_cluster_is_told_of_how_many_tokens_the_longest_text_is(store, monkeypatch):
    """By which its GPUs make larger batches of shorter texts, as one of this machine does."""
    folder, told = store.parent, {}
    (folder / "configs/encoders/small.yaml").write_text(
        f"family: language\nmodel: {zoo.bert(folder / 'bert')}\nmax_tokens: 24\n"
    )
    (folder / "data/mini").mkdir(parents=True)
    zoo.write_texts(folder / "data/mini/text.parquet", {n: zoo.text(n) for n in range(4)})
    set_key(folder, "encode", "executor", "ray")
    set_key(folder, "encode", "device", "cpu")
    monkeypatch.setattr(stages.encode.encode_ray, "fill", lambda *_, **more: told.update(more))
    params = stages.encode.load_params()
    choice = stages.encode.choose(params, "small")
    stages.encode.encode_graph(params, "mini", MODALITIES["text"], choice, folder / "encoded")
    assert (told["longest"], told["batch_size"]) == (24, params.encode.batch_size)
