"""What really runs, by DVC itself, after a comment, after a change in a model, and after a new picture."""

from pathlib import Path

import pytest
from PIL import Image

from tests.helpers.clones import MINI, clone, command, ran, read_params, set_key, write_params

pytestmark = pytest.mark.slow

ROTATE = "configs/models/rotate.yaml"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A clone with two models, for an epoch each, on a graph with neither texts nor pictures."""
    folder = clone(tmp_path_factory.mktemp("base") / "clone")
    set_key(folder, "models", ["transe", "rotate"])
    set_key(folder, "mini", "epochs", 1, file=ROTATE)
    write_params(folder, {"form": "names"}, MINI)
    return folder


@pytest.fixture(scope="module")
def trained(folder) -> Path:
    command(folder, "dvc", "repro", "-q", "train")
    return folder


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text(encoding="utf-8") + text, encoding="utf-8")


def picture(path: Path, colour: str) -> None:
    Image.new("RGB", (300, 300), colour).save(path)


def changed_by(status: str) -> set[str]:
    """The stages that `dvc status` names."""
    return {line.rstrip(":").split("@")[0] for line in status.splitlines() if line[:1].strip() and line.endswith(":")}


def test_a_comment_runs_nothing_but_the_check_and_a_change_in_a_model_that_model(trained):
    model = trained / "trainers/models/transe.py"
    append(model, "\n# A remark.\n")
    assert changed_by(command(trained, "dvc", "status", "--with-deps", "train")) == {"check"}
    assert ran(command(trained, "dvc", "repro", "train")) == {"check"}
    assert "up to date" in command(trained, "dvc", "status", "--with-deps", "train")
    append(model, "\n_more = 1\n")
    output = command(trained, "dvc", "repro", "train")
    assert ran(output) == {"check", "train"}
    assert "'train@mini-transe'" in output
    assert "Running stage 'train@mini-rotate'" not in output


def test_where_and_how_safely_it_is_trained_trains_nothing_again(trained):
    params = read_params(trained)
    params["train"] |= {"device": "cpu", "processes": 2, "checkpoint_every": 1}
    write_params(trained, params)
    assert ran(command(trained, "dvc", "repro", "train")) <= {"check"}


def test_a_new_and_a_changed_picture_are_noticed_wherever_the_folder_lies(folder, tmp_path):
    entity = (folder / "data/mini/source/train.tsv").read_text().split()[0]
    pictures = tmp_path / "pictures" / entity
    pictures.mkdir(parents=True)
    picture(pictures / "1.jpg", "red")
    set_key(folder, "images", {"source": "folder", "path": str(tmp_path / "pictures")}, file=MINI)
    assert "images" in ran(command(folder, "dvc", "repro", "images@mini"))
    assert ran(command(folder, "dvc", "repro", "images@mini")) == set()
    picture(pictures / "2.jpg", "green")
    assert changed_by(command(folder, "dvc", "status", "images@mini")) == {"images"}
    assert ran(command(folder, "dvc", "repro", "images@mini")) == {"images"}
    picture(pictures / "1.jpg", "blue")
    assert ran(command(folder, "dvc", "repro", "images@mini")) == {"images"}
