"""Captions of Beyond-Images, in files of the layout that its public code writes."""

import json
import shutil
import sys
import zipfile
from pathlib import Path

import pytest

import stages.text
from pipeline import tables
from pipeline.errors import UserError
from pipeline.modalities.beyond_images import ARCHIVE, described
from pipeline.modalities.texts import Described
from tests.helpers.clones import MINI, ROOT, read_params, write_params

NAN = "NAN"


def row(name: str, qid: str, *captions: str) -> dict:
    images = {f"{qid}_{n}": {"image_description_detail": one} for n, one in enumerate(captions, 1)}
    links = {
        "dbpedia_url": f"http://dbpedia.org/resource/{name}",
        "wikidata_url": f"http://www.wikidata.org/entity/{qid}",
    }
    return {
        "entity_name": name,
        "entity_qid": qid,
        **links,
        "images": {**images, "merged_descriptions": " ".join(captions)},
    }


@pytest.fixture
def archive(tmp_path) -> Path:
    """The release's files: two a graph, in one folder."""
    original = {
        "Johann_Bach": row("Johann_Bach", "Q1339", "a man with a wig", "a painting of a man"),
        "Leipzig": {**row("Leipzig", NAN, "a city"), "wikidata_url": NAN},
        "Nothing": {**row("Nothing", "Q7"), "images": {"merged_descriptions": NAN}},
        "Odd": {**row("Odd", "Q8"), "images": {"Q8_1": {"image_description_detail": float("nan")}}},
    }
    new = {"Johann_Bach": row("Johann_Bach", "Q1339", "a painting of a man", "an organ")}
    files = {"DB15K_img_original_summary_blip": original, "DB15K_img_new_summary_blip": new}
    files["MKG-W_img_new_summary_blip"] = {"Johann_Bach": row("Johann_Bach", "Q1339", "of another graph")}
    with zipfile.ZipFile(tmp_path / ARCHIVE, "w") as target:
        for name, table in files.items():
            target.writestr(f"img_text_summary/{name}.json", json.dumps(table, ensure_ascii=False, indent=4))
        target.writestr("__MACOSX/img_text_summary/._x.json", b"\0\1")
    return tmp_path / ARCHIVE


def words(archive: Path, keys: list[str], captions: str, base=None, graph: str = "DB15K") -> list[str | None]:
    found, _ = described(keys, keys, base or [None] * len(keys), archive, graph, captions)
    return [one.description if one else None for one in found]


def test_captions_one_by_one_or_merged_by_uri_qid_and_name(archive):
    merged = "a painting of a man an organ a man with a wig a painting of a man"
    each = "a painting of a man an organ a man with a wig"
    keys = [
        "http://dbpedia.org/resource/Johann_Bach",
        "<http://dbpedia.org/resource/Johann_Bach>",
        "Q1339",
        "Johann Bach",
    ]
    assert words(archive, keys, "merged") == [merged] * 4
    assert words(archive, keys, "each") == [each] * 4
    assert words(archive, ["Leipzig", "Nothing", "Odd", "NAN", "Q8"], "each") == ["a city", None, None, None, None]


def test_the_graphs_own_files_are_read_where_there_are_such(archive):
    assert words(archive, ["Q1339"], "each", graph="mkg-w") == ["of another graph"]
    assert "of another graph" in words(archive, ["Q1339"], "each", graph="mine")[0]


def test_they_stand_behind_what_is_known(archive, caplog):
    base = [
        Described("Bach", "composer", ("JSB",), "wikidata:Q1339"),
        Described("Halle", "town", (), "wikidata:Q2"),
        None,
    ]
    found, counts = described(["Q1339", "Q2", "Leipzig"], ["a", "b", "Leipzig"], base, archive, "DB15K", "each")
    assert found[0] == Described(
        "Bach", "composer. a painting of a man an organ a man with a wig", ("JSB",), "wikidata:Q1339 + beyond_images"
    )
    assert found[1] == base[1]
    assert found[2] == Described("Leipzig", "a city", (), "beyond_images")
    assert counts == {"with_captions": 2, "captions": 4}
    assert "is not the archive that was published" in caplog.text


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"no zip", "is not the archive"), ({"x.txt": "{}"}, "no JSON file"), ({"x.json": "[1]"}, "no table of entities"),
     ({"x.json": '{"a": 1}'}, "no row of Beyond-Images"), ({"x.json": '{"a"'}, "is not the archive"),
     (None, "is not there")],
)  # fmt: skip
def test_another_archive_is_a_sentence(content, said, tmp_path):
    path = tmp_path / ARCHIVE
    if isinstance(content, dict):
        with zipfile.ZipFile(path, "w") as target:
            for name, text in content.items():
                target.writestr(name, text)
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=said):
        described(["a"], ["a"], [None], path, "g", "each")


def test_the_stage(archive, tmp_path, monkeypatch):
    project = tmp_path / "project"
    (project / "data/mini/raw").mkdir(parents=True)
    shutil.copy(ROOT / "params.yaml", project)
    shutil.copytree(ROOT / "configs", project / "configs")
    shutil.copy(archive, project / "data/mini/raw")
    graph = read_params(project, MINI)
    write_params(project, {**graph, "text": {"source": "beyond_images", "captions": "each", "fallback": "label"}}, MINI)
    entities = {"entity_id": [0, 1], "key": ["Leipzig", "Halle"], "label": ["Leipzig", "Halle"]}
    tables.write(project / "data/mini/graph/entities.parquet", "entities", entities, {})
    monkeypatch.chdir(project)
    monkeypatch.setattr(sys, "argv", ["text", "--graph", "mini"])
    stages.text.main()
    assert tables.read(project / "data/mini/text.parquet", "text")["text"].to_pylist() == ["Leipzig: a city", "Halle"]
    counts = json.loads((project / "data/mini/text.json").read_text())
    assert (counts["with_captions"], counts["source"]) == (1, "beyond_images")
