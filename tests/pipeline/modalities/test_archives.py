"""Folders, zips and tars of <entity>/<file>: which entity a name means, and archives that mean harm."""

import io
import os
import tarfile
import zipfile

import fsspec
import pytest
from fsspec import AbstractFileSystem

from pipeline.errors import UserError
from pipeline.graph.matching import Names, match_files, q_id, title
from pipeline.modalities.archives import TooLarge, open_archive

KEYS = [
    "http://dbpedia.org/resource/Andy_Griffith",
    "<http://dbpedia.org/resource/Zürich>",
    "Q42",
    "http://www.wikidata.org/entity/Q64",
    "AC/DC",
    "1984",
    "http://dbpedia.org/resource/Mercury_(planet)",
    "http://dbpedia.org/resource/Mercury_(god)",
]
LABELS = ["Andrew Samuel Griffith", "Zürich", "Douglas Adams", "Berlin", "AC/DC", "1984", "Mercury", "Mercury"]
FILES = {"Q42/a.jpg": b"a", "Q42/b.jpg": b"bb", "Berlin/10.jpg": b"ten", "Berlin/2.jpg": b"two", "nobody/x.jpg": b"x"}


def make_folder(path, files):
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def make_zip(path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def make_tar(path, files, mode="w"):
    with tarfile.open(path, mode) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def contents(address, **options) -> dict:
    with open_archive(address) as archive:
        return dict(archive.read(archive.names, **options))


# ------------------------------------------------------------------------------------------------ names
@pytest.mark.parametrize(
    ("name", "entity"),
    [
        ("http://dbpedia.org/resource/Andy_Griffith", 0),
        ("http%3A%2F%2Fdbpedia.org%2Fresource%2FAndy_Griffith", 0),
        ("Andy_Griffith", 0),
        ("Andy Griffith", 0),
        ("<http://dbpedia.org/resource/Andy_Griffith>", 0),
        ("https://en.wikipedia.org/wiki/Andy_Griffith", 0),
        ("http://www.wikidata.org/entity/Q42", 2),
        ("Andrew Samuel Griffith", 0),
        ("Z%C3%BCrich", 1),
        ("Zu\u0308rich", 1),  # as macOS writes it
        ("http://dbpedia.org/resource/Zürich", 1),
        ("Douglas_Adams", 2),
        ("Q64", 3),
        ("AC%2FDC", 4),
        ("1984", 5),
        ("Mercury_(god)", 7),
    ],
)
def test_an_entity_is_found_by_each_of_its_names(name, entity):
    assert Names(KEYS, LABELS).match([name, "Q42"]).entity[name] == entity


def test_one_name_of_two_entities_is_ambiguous_and_a_strange_one_unmatched():
    matched = Names(KEYS, LABELS).match(["Mercury", "Q1", "Q42"])
    assert matched.ambiguous == ["Mercury"]
    assert matched.unmatched == ["Q1"]
    assert matched.entity == {"Q42": 2}
    counts = matched.counts()
    assert (counts["matched"], counts["unmatched"], counts["ambiguous"]) == (1, 1, 1)
    assert counts["ambiguous_examples"] == ["Mercury"]


def test_numbers_are_ids_only_where_all_names_are_numbers_and_none_is_a_key():
    names = Names(KEYS, LABELS)
    assert names.match(["0", "3"]).entity == {"0": 0, "3": 3}
    assert names.match(["0", "99"]).unmatched == ["99"]
    assert names.match(["3", "Q42"]).unmatched == ["3"]
    assert names.match(["3", "1984"]).entity == {"1984": 5}


def test_q_ids_and_titles_out_of_keys():
    assert [q_id(key) for key in KEYS[:4]] == [None, None, "Q42", "Q64"]
    assert q_id("wd:Q7") == "Q7"
    assert q_id("Quebec") is None
    assert title("<http://dbpedia.org/resource/AC/DC>") == "AC/DC"
    assert title("http://dbpedia.org/resource/Caf%C3%A9_au_lait") == "Café au lait"


def test_files_are_numbered_by_name_and_folders_above_do_not_matter():
    names = Names(KEYS, LABELS)
    flat = {"Q42/a.jpg": (2, 0), "Q42/b.jpg": (2, 1), "Berlin/2.jpg": (3, 0), "Berlin/10.jpg": (3, 1)}
    matched, places = match_files(FILES, names)
    assert places == flat
    assert matched.unmatched == ["nobody"]
    below, places = match_files([f"release/images/{name}" for name in FILES], names)
    assert places == {f"release/images/{name}": place for name, place in flat.items()}
    assert below.unmatched == ["nobody"]
    _, places = match_files(["train/Q42/1.jpg", "test/Q64/1.jpg"], names)
    assert places == {"train/Q42/1.jpg": (2, 0), "test/Q64/1.jpg": (3, 0)}
    _, places = match_files(["Q42.jpg", "Q64.jpg"], names)
    assert places == {"Q42.jpg": (2, 0), "Q64.jpg": (3, 0)}
    _, places = match_files(["AC/DC/1.jpg", "Q42/1.jpg"], names)
    assert places["AC/DC/1.jpg"] == (4, 0)


# ------------------------------------------------------------------------------------------------ forms
@pytest.mark.parametrize("form", ["folder", "a.zip", "a.tar", "a.tar.gz", "a.tar.xz", "memory folder", "memory zip"])
def test_every_form_gives_the_same_files(form, tmp_path):
    if form == "folder":
        address = make_folder(tmp_path / "pictures", FILES)
    elif form == "a.zip":
        address = make_zip(tmp_path / form, FILES)
    elif form.startswith("a.tar"):
        address = make_tar(tmp_path / form, FILES, "w:" + form.split(".")[2] if form.count(".") > 1 else "w")
    else:
        memory = fsspec.filesystem("memory")
        address = f"memory://{tmp_path.name}/pictures" + (".zip" if form == "memory zip" else "")
        files = FILES
        if form == "memory zip":
            files, address_root = {"": make_zip(tmp_path / "b.zip", FILES).read_bytes()}, address
            memory.pipe(address_root, files[""])
        else:
            for name, data in files.items():
                memory.pipe(f"{address}/{name}", data)
    assert contents(address) == FILES


def test_what_is_no_archive_is_said(tmp_path):
    (tmp_path / "a.rar").write_bytes(b"Rar!")
    (tmp_path / "b.zip").write_bytes(b"PK\x03\x04 cut short")
    (tmp_path / "c.tar.gz").write_bytes(b"\x1f\x8b cut short")
    for address, word in (
        (tmp_path / "nothing", "no folder or archive"),
        (tmp_path / "a.rar", "neither a folder"),
        (tmp_path / "b.zip", "damaged"),
        (tmp_path / "c.tar.gz", "damaged|cannot be opened"),
        ("nosuchprotocol://x/y.zip", "cannot be opened"),
    ):
        with pytest.raises(UserError, match=word):
            open_archive(address)


def test_junk_of_file_managers_is_no_picture(tmp_path):
    files = {"Q42/a.jpg": b"a", "__MACOSX/Q42/._a.jpg": b"", "Q42/.DS_Store": b"", "Q42/Thumbs.db": b""}
    for address in (make_folder(tmp_path / "f", files), make_zip(tmp_path / "f.zip", files)):
        with open_archive(address) as archive:
            assert archive.names == ["Q42/a.jpg"]
            assert archive.skipped["ignored"] == 3


def test_a_member_with_a_password_is_said(tmp_path):
    path = make_zip(tmp_path / "a.zip", {"Q42/a.jpg": b"a"})
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + offset] |= 1
    path.write_bytes(bytes(data))
    with pytest.raises(UserError, match="password"):
        contents(path)


# --------------------------------------------------------------------------------------- those that mean harm
def test_no_name_leaves_its_folder(tmp_path):
    bad = {"../../evil.jpg": b"e", "/etc/evil.jpg": b"e", "Q42/../../evil.jpg": b"e", "C:\\evil.jpg": b"e"}
    for address in (make_zip(tmp_path / "a.zip", {**bad, **FILES}), make_tar(tmp_path / "a.tar", {**bad, **FILES})):
        with open_archive(address) as archive:
            assert set(archive.names) == set(FILES)
            assert archive.skipped["unsafe"] == 4


def test_links_are_not_followed(tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    folder = make_folder(tmp_path / "f", FILES)
    (folder / "Q42" / "link.jpg").symlink_to(secret)
    (folder / "Q7").symlink_to(tmp_path)
    with open_archive(folder) as archive:
        assert set(archive.names) == set(FILES)
        assert archive.skipped["links"] == 2
    path = make_tar(tmp_path / "a.tar", FILES)
    with tarfile.open(path, "a") as archive:
        for name, kind in (("Q42/soft.jpg", tarfile.SYMTYPE), ("Q42/hard.jpg", tarfile.LNKTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, str(secret)
            archive.addfile(member)
        device = tarfile.TarInfo("Q42/device.jpg")
        device.type = tarfile.CHRTYPE
        archive.addfile(device)
    with open_archive(path) as archive:
        assert set(archive.names) == set(FILES)
        assert archive.skipped == {"links": 2, "ignored": 1}
    path = make_zip(tmp_path / "a.zip", FILES)
    with zipfile.ZipFile(path, "a") as archive:
        link = zipfile.ZipInfo("Q42/soft.jpg")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, str(secret))
    with open_archive(path) as archive:
        assert set(archive.names) == set(FILES)
        assert archive.skipped["links"] == 1


TARGETS = {
    "in DVC's cache": f"cache/files/md5/ab/{'c' * 30}",
    "in the cache of an older DVC": f"cache/0f/{'1' * 30}",
    "in a folder of DVC's cache on another disk": f"disk/team cache/files/md5/00/{'a' * 30}",
    "inside": "f/Q42/kept.jpg",
}


@pytest.mark.parametrize("target", TARGETS)
def test_links_that_stay_inside_or_that_dvc_made_are_followed(target, tmp_path):
    folder = make_folder(tmp_path / "f", FILES)
    path = tmp_path / TARGETS[target]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"the picture")
    (folder / "Q42" / "link.jpg").symlink_to(path)
    (folder / "Q42" / "relative.jpg").symlink_to(os.path.relpath(path, folder / "Q42"))
    found = contents(folder)
    assert found["Q42/link.jpg"] == found["Q42/relative.jpg"] == b"the picture"
    with open_archive(folder) as archive:
        assert archive.links == []


OUTSIDE = {"gone": "gone", "a folder": "f/Q42", "beside it": "f-outside.jpg",
           "like DVC's but no digest": f"cache/files/md5/ab/{'z' * 30}", "too short": "cache/0f/111"}  # fmt: skip


@pytest.mark.parametrize("target", OUTSIDE)
def test_links_that_lead_elsewhere_are_left_out_and_named(target, tmp_path):
    folder = make_folder(tmp_path / "f", FILES)
    path = tmp_path / OUTSIDE[target]
    if target != "gone" and not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"secret")
    (folder / "Q42" / "link.jpg").symlink_to(path)
    assert contents(folder) == FILES
    with open_archive(folder) as archive:
        assert archive.links == ["Q42/link.jpg"]
        assert archive.skipped["links"] == 1


def test_folders_of_an_object_store_are_no_files():
    """What consoles and sync tools of S3 write for a folder: a key that ends in `/`, of no bytes."""

    class Store(AbstractFileSystem):
        protocol = "markers"

        def ls(self, path, detail=True, **options):
            sizes = {"pics/": 0, "pics/Q1/": 0, "pics/Q1/1.jpg": 3}
            return [{"name": name, "size": size, "type": "file"} for name, size in sizes.items()]

        def isdir(self, path):
            return path == "pics"

    fsspec.register_implementation("markers", Store, clobber=True)
    with open_archive("markers://pics") as archive:
        assert archive.names == ["Q1/1.jpg"]


def test_a_link_put_in_after_listing_is_not_followed_either(tmp_path):
    folder = make_folder(tmp_path / "f", FILES)
    (tmp_path / "secret").write_bytes(b"secret")
    with open_archive(folder) as archive:
        os.remove(folder / "Q42" / "a.jpg")
        (folder / "Q42" / "a.jpg").symlink_to(tmp_path / "secret")
        with pytest.raises(UserError, match=r"a\.jpg cannot be read"):
            list(archive.read(["Q42/a.jpg"]))


def test_a_large_member_is_left_at_its_limit(tmp_path):
    files = {"Q42/small.jpg": b"x" * 10, "Q42/large.jpg": b"x" * 5_000}
    for address in (
        make_folder(tmp_path / "f", files),
        make_zip(tmp_path / "a.zip", files),
        make_tar(tmp_path / "a.tgz", files, "w:gz"),
    ):
        found = contents(address, limit=1000)
        assert found["Q42/small.jpg"] == b"x" * 10
        assert isinstance(found["Q42/large.jpg"], TooLarge)


def test_a_zip_bomb_is_refused_before_it_is_read(tmp_path):
    path = make_zip(tmp_path / "bomb.zip", {f"Q42/{n}.jpg": bytes(1000) for n in range(4)})
    data = bytearray(path.read_bytes())
    at = 0
    for _ in range(4):  # each member claims a gigabyte, as a real bomb does that overlaps its members
        at = data.index(b"PK\x01\x02", at)
        data[at + 24 : at + 28] = (2**30).to_bytes(4, "little")
        at += 4
    path.write_bytes(bytes(data))
    with pytest.raises(UserError, match="no archive of pictures"):
        open_archive(path)


def test_a_tar_bomb_is_refused_while_it_is_listed(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.modalities.archives._BOMB_BYTES", 10_000_000)
    path = make_tar(tmp_path / "bomb.tar.gz", {f"Q42/{n}.jpg": bytes(6_000_000) for n in range(3)}, "w:gz")
    assert path.stat().st_size < 100_000
    with pytest.raises(UserError, match="no archive of pictures"):
        open_archive(path)
