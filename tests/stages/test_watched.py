"""Links to what lies outside: right for folders, archives and files, and nothing that DVC would stop at."""

import os
from pathlib import Path

import pytest
import yaml

from pipeline.errors import UserError
from pipeline.versions import ROOT
from stages.params import Graph
from stages.watched import NOTHING, watch


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    (tmp_path / "pictures/a").mkdir(parents=True)
    (tmp_path / "pictures/a/1.jpg").write_bytes(b"1")
    return tmp_path


def graph(**blocks: object) -> Graph:
    """A graph of these keys, which has no folder if none is given."""
    return Graph(form="names", **blocks)


def pictures(path: object) -> dict:
    return {"source": "folder", "path": None if path is None else str(path)}


PLACE = Path("data/own/watched/images")


def test_a_folder_outside_and_one_in_the_project_are_linked(project):
    watch("own", graph(images=pictures(project / "pictures")))
    assert os.readlink(PLACE) == str(project / "pictures")
    assert (PLACE / "a/1.jpg").read_bytes() == b"1"
    Path("here").mkdir()
    watch("own", graph(images=pictures("here")))
    assert os.readlink(PLACE) == "../../../here"
    watch("own", graph(images=pictures("../pictures")))
    assert (PLACE / "a/1.jpg").exists()


def test_an_archive_is_linked_and_a_link_is_followed(project):
    (project / "pictures.zip").write_bytes(b"PK")
    (project / "link").symlink_to("pictures.zip")
    watch("own", graph(images=pictures(project / "link")))
    assert PLACE.read_bytes() == b"PK"


@pytest.mark.parametrize("images", [{"source": "drawings"}, pictures("s3://bucket/pictures")])
def test_where_nothing_is_watched_a_file_says_so_and_stays_as_it_is(project, images):
    watch("own", graph(images=pictures(project / "pictures")))
    watch("own", graph(images=images))
    assert PLACE.read_text() == NOTHING
    before = PLACE.stat().st_mtime_ns
    watch("own", graph(images=images))
    assert PLACE.stat().st_mtime_ns == before


def test_a_place_that_is_gone_leaves_no_dead_link(project, caplog):
    watch("own", graph(images=pictures(project / "pictures")))
    (project / "pictures").rename(project / "elsewhere")
    watch("own", graph(images=pictures(project / "pictures")))
    assert not os.path.lexists(PLACE)
    assert "configs/graphs/own.yaml, images.path" in caplog.text


def test_a_dead_link_among_the_pictures_is_named(project):
    (project / "pictures/a/2.jpg").symlink_to("nowhere")
    with pytest.raises(UserError, match=r"a/2\.jpg is a link that leads nowhere"):
        watch("own", graph(images=pictures(project / "pictures")))


def test_released_files_are_linked_one_by_one(project):
    file, other = project / "features.npy", project / "tokens.json"
    file.write_bytes(b"1")
    other.write_bytes(b"2")
    released = {"image": {"features": str(file), "tokens": str(other), "codebook": "in_raw.pth"}}
    watch("own", graph(encoded="released", released=released))
    place = Path("data/own/watched/released")
    assert sorted(path.name for path in (place / "image").iterdir()) == ["features", "tokens"]
    assert (place / "text").read_text() == NOTHING
    del released["image"]["tokens"]
    watch("own", graph(encoded="released", released=released))
    assert [path.name for path in (place / "image").iterdir()] == ["features"]
    watch("own", graph(encoded="here", released=released))
    assert (place / "image").read_text() == NOTHING


def test_what_a_stage_reads_is_among_its_deps():
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    for stage, what in {
        "download": "folder", "images": "images", "encode_text": "released/text", "encode_images": "released/image",
    }.items():  # fmt: skip
        assert "data/${item.graph}/watched/" + what in stages[stage]["deps"]
