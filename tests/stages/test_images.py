"""The images stage on folders as people have them."""

import io
import zipfile
from functools import partial

import pyarrow as pa
import pytest
from PIL import Image

from pipeline import tables
from pipeline.modalities.archives import open_archive
from pipeline.modalities.pictures import clean
from stages.images import rows_of_archive

FILES = ["Q1/0_info.json", "Q1/1.jpg", "Q1/2.jpg", "Q2/0.txt", "Q2/1.jpg", "Q2/2.jpg", "Q3/notes.txt"]


def content(name: str) -> bytes:
    if not name.endswith(".jpg"):
        return b"{}"
    out = io.BytesIO()
    Image.effect_noise((64, 64), 40).save(out, "JPEG")
    return out.getvalue()


@pytest.fixture(params=["folder", "zip"])
def address(request, tmp_path):
    for name in FILES:
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content(name))
    if request.param == "folder":
        return tmp_path / "pictures"
    with zipfile.ZipFile(tmp_path / "pictures.zip", "w") as archive:
        for name in FILES:
            archive.write(tmp_path / "pictures" / name, name)
    return tmp_path / "pictures.zip"


@pytest.fixture
def rows():
    keys = ["Q1", "Q2", "Q3"]
    entities = pa.table({"entity_id": [0, 1, 2], "key": keys, "label": keys}, tables.SCHEMAS["entities"])
    return lambda address, per_entity, about: list(
        rows_of_archive(open_archive(address), str(address), entities, partial(clean), per_entity, about)
    )


@pytest.mark.parametrize(("per_entity", "kept"), [(1, 2), (2, 4), (None, 4)])
def test_files_that_are_no_pictures_take_no_pictures_place(address, rows, per_entity, kept):
    found = rows(address, per_entity, {})
    fine = [(one["entity_id"], one["image_ix"]) for one in found if one["status"] == "ok"]
    assert sorted(fine) == sorted([(0, 1), (0, 2), (1, 1), (1, 2)])[:: 2 if per_entity == 1 else 1][:kept]
    refused = {one["source"]: one["error"] for one in found if one["status"] == "refused"}
    assert set(refused) == {"Q1/0_info.json", "Q2/0.txt", "Q3/notes.txt"}, "each failure is a row"


def test_links_that_are_left_out_are_named(tmp_path, rows, caplog):
    (tmp_path / "outside.jpg").write_bytes(content("a.jpg"))
    (tmp_path / "pictures" / "Q1").mkdir(parents=True)
    (tmp_path / "pictures" / "Q1" / "1.jpg").write_bytes(content("1.jpg"))
    (tmp_path / "pictures" / "Q1" / "2.jpg").symlink_to(tmp_path / "outside.jpg")
    about = {}
    assert len(rows(tmp_path / "pictures", None, about)) == 1
    assert about["left_out"] == {"links": 1}
    assert "1 link left out, since they lead outside of the folder: Q1/2.jpg" in caplog.text
