"""Captions of one's own: pictures into words by an image-to-text model, through the store, joined to other texts."""

import shutil
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

import stages.captions
import stages.text
from pipeline import tables
from pipeline.encoding import captioner
from pipeline.encoding.encoders import hub
from pipeline.errors import UserError
from stages import settings as checked
from stages.params import load_params
from tests.helpers import encoder_zoo as zoo
from tests.helpers.clones import ROOT, read_params, set_key, write_params

COMMIT = "0123456789abcdef0123456789abcdef01234567"
PARAMS = "params.yaml"


@pytest.fixture(scope="module")
def git(tmp_path_factory) -> Path:
    return zoo.git(tmp_path_factory.mktemp("models") / "git")


def captions_of(model: Path, **keys) -> captioner.Captioner:
    settings = captioner.Settings(str(model), longest=6, **keys)
    return captioner.load(settings, device=zoo.CPU, precision=torch.float32)


def words(rows) -> list[str]:
    return ["".join(map(chr, one)) for one in rows.tokens]


def test_a_caption_is_of_its_picture_and_the_prompt_alone(git):
    made = captions_of(git)
    items = made.prepare([zoo.picture(n) for n in range(3)])
    together = words(made.encode(items))
    assert len(set(together)) == 3
    assert all(set(one.split()) <= {*zoo.WORDS, "'", "don", "t"} for one in together)
    assert [words(made.encode([one]))[0] for one in items] == together
    asked = captions_of(git, prompt="word1  word2")
    assert words(asked.encode(items[:1])) != together[:1]
    assert asked.fingerprint != made.fingerprint
    assert not words(asked.encode(items[:1]))[0].startswith("word1 word2"), "the prompt is no part of what is said"


def test_a_model_that_talks_is_asked_about_its_picture(tmp_path):
    folder = zoo.llava(tmp_path / "llava")
    made, other = captions_of(folder, prompt="what is shown"), captions_of(folder, prompt="who")
    items = made.prepare([zoo.picture(n) for n in range(2)])
    said = words(made.encode(items))
    assert said[0] != said[1]
    assert not any("shown" in one or "<image>" in one for one in said)
    assert words(other.encode(items)) != said
    marked = captions_of(folder, prompt="<image>\nwhat is shown")
    assert words(marked.encode(items)) == said, "a prompt may hold the mark of the picture"
    twice = captions_of(folder, prompt="<image> <image> what")
    with pytest.raises(UserError, match="says nothing about a picture with this prompt"):
        twice.encode(items[:1])


def test_what_is_no_image_to_text_model_is_a_sentence(tmp_path):
    made = captions_of(zoo.bert(tmp_path / "bert"))
    with pytest.raises(UserError, match=r"cuts pictures|image-to-text model") as error:
        made.encode(made.prepare([zoo.picture(1)]))
    assert "\n" not in str(error.value)


@pytest.fixture
def project(git, tmp_path, monkeypatch):
    """A project of four entities, of which two have pictures that can be seen; its captioner lies in a hub's cache."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    folder = tmp_path / "project"
    folder.mkdir()
    shutil.copy(ROOT / PARAMS, folder)
    shutil.copytree(ROOT / "configs", folder / "configs")
    shutil.copytree(git, tmp_path / "hub/models--org--git/snapshots" / COMMIT)
    given = read_params(folder)
    given["text"]["captions"] |= {"model": "org/git", "revision": COMMIT, "longest": 6, "pictures": 2}
    given["encode"] |= {"precision": "float32", "device": "cpu"}
    write_params(folder, given | {"store": str(tmp_path / "store")})
    data = folder / "data/mini"
    names = ["Leipzig", "Halle", "Bach", "Nobody"]
    entities = {"entity_id": [0, 1, 2, 3], "key": names, "label": names}
    tables.write(data / "graph/entities.parquet", "entities", entities, {})
    seen = [(0, 0, zoo.picture(1)), (0, 1, zoo.picture(1)), (0, 2, zoo.picture(2)), (1, 0, zoo.picture(3))]
    zoo.write_pictures(data / "images", [*seen, (2, 0, b"no picture"), (3, 0, None)], parts=1)
    (data / "raw").mkdir()
    (data / "raw/text.tsv").write_text("key\tlabel\tdescription\nLeipzig\tLeipzig\ta city.\n")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["stage", "--graph", "mini"])
    return folder


def test_captions_are_rows_and_stand_behind_the_description(project, tmp_path):
    stages.captions.main()
    made = tables.read(project / "data/mini/captions.parquet", "captions").to_pylist()
    assert [(one["entity_id"], one["image_ix"], one["status"]) for one in made] == [
        (0, 0, "ok"), (0, 1, "ok"), (1, 0, "ok"), (2, 0, "refused"),
    ]  # fmt: skip
    assert "no picture that can be read" in made[-1]["error"]
    assert made[0]["caption"] == made[1]["caption"] != made[2]["caption"]
    about = tables.provenance(project / "data/mini/captions.parquet")
    assert (about["model"], about["weights"], about["longest"]) == ("org/git", f"revision {COMMIT}", 6)

    stages.text.main()
    texts = tables.read(project / "data/mini/text.parquet", "text").to_pylist()
    assert texts[0]["text"] == f"Leipzig: a city. {made[0]['caption']}", "a repeated caption once"
    assert texts[0]["source"] == "text.tsv + captions"
    assert (texts[1]["text"], texts[1]["source"]) == (f"Halle: {made[2]['caption']}", "captions")
    assert [one["text"] for one in texts[2:]] == [None, None]

    before = (project / "data/mini/captions.parquet").read_bytes()
    shutil.rmtree(tmp_path / "hub")  # the store is enough
    (project / "data/mini/captions.parquet").unlink()
    stages.captions.main()
    assert (project / "data/mini/captions.parquet").read_bytes() == before


def test_without_a_store_and_without_a_model(project, monkeypatch):
    set_key(project, "store", None)
    stages.captions.main()
    whole = tables.read(project / "data/mini/captions.parquet", "captions").to_pylist()
    assert len(whole) == 4
    assert whole[-1]["error"]
    given = read_params(project)
    given["text"]["captions"]["model"] = None
    write_params(project, given)
    monkeypatch.setattr(hub, "locate", None)
    stages.captions.main()
    assert tables.read(project / "data/mini/captions.parquet", "captions").num_rows == 0
    stages.text.main()
    texts = tables.read(project / "data/mini/text.parquet", "text").to_pylist()
    assert [one["text"] for one in texts] == ["Leipzig: a city.", None, None, None]


def test_a_captioner_of_the_hub_needs_its_commit(project):
    given = read_params(project)
    given["text"]["captions"]["revision"] = None
    write_params(project, given)
    with pytest.raises(UserError, match=r"params.yaml, line \d+: text.captions: revision is empty, and org/git"):
        checked.check(load_params())
