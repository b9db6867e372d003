"""Released files of the true shapes: read without running code, checked against the graph, missing rows recognised."""

import json
import pickle
import zipfile
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline import tables
from pipeline.errors import UserError
from pipeline.graph.matching import Names
from pipeline.modalities.released import Files, import_released, placeholders
from pipeline.modalities.released_files import read_hdf5, read_index, read_tensor, read_tokens
from trainers.training.data import read_features
from trainers.training.data import read_tokens as load_tokens

E = 300


@pytest.fixture
def names() -> Names:
    keys = [f"http://dbpedia.org/resource/Entity_{n}" for n in range(E)]
    return Names(keys, [f"Entity {n}" for n in range(E)])


def matrix(rows: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.3, 1, (rows, width)).astype(np.float32)


def saved(path: Path, value) -> Path:
    torch.save(value, path)
    return path


# ------------------------------------------------------------------------------------------------ features
@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"image": torch.ones(2, 3), "text": torch.ones(2, 3)}, r"is a dict of 2 tensors \(image, text\), and one is"),
        ({"epoch": 3}, "is a dict of 0 tensors, and one is expected"),
        ([torch.ones(3), torch.ones(4)], r"list of tensors of unlike shapes \(\(3,\), \(4,\)\)"),
        ("words", "holds a str, and a tensor is expected"),
        ([1.0, 2.0], "holds a list, and a tensor is expected"),
    ],
)
def test_a_sound_file_that_holds_something_else_is_not_called_damaged(tmp_path, content, said):
    with pytest.raises(UserError, match=said) as error:
        read_tensor(saved(tmp_path / "x.pth", content))
    assert "fetch it again" not in str(error.value)


@pytest.mark.parametrize("width", [4096, 768, 383, 384])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda tensor: tensor,
        torch.nn.Parameter,
        lambda tensor: {"weight": tensor},
        lambda tensor: tensor.double(),
        lambda tensor: tensor[:, None, :],
        list,
    ],
)
def test_a_tensor_in_the_order_of_entities(tmp_path, names, width, wrap):
    rows = matrix(E, width)
    path = saved(tmp_path / "DB15K-visual.pth", wrap(torch.from_numpy(rows)))
    counts = import_released(Files(features=path), names, E, tmp_path / "out", {"stage": "test"})
    found = read_features(tmp_path / "out" / "features.parquet", E)
    assert found.entity.tolist() == list(range(E))
    assert np.array_equal(found.matrix.numpy(), rows)
    assert counts["features"]["dropped"] == 0
    told = tables.provenance(tmp_path / "out" / "features.parquet")["released"]
    assert told["features"]["sha256"] == counts["files"]["features"]["sha256"]
    assert not (tmp_path / "out" / "tokens.parquet").exists()


def with_placeholders() -> tuple[np.ndarray, dict[str, list[int]]]:
    rows = matrix(E, 64)
    kinds = {"zero": [3, 4], "constant": [5], "not_finite": [6, 7]}
    kinds |= {"common": [*range(20, 40)], "mean": [*range(50, 90)]}
    rows[kinds["zero"]], rows[kinds["constant"]], rows[6, 5], rows[7] = 0, 0.25, np.nan, np.inf
    rows[kinds["common"]] = matrix(1, 64, seed=9)
    rows[100] = rows[101]  # two entities may show the same picture
    real = np.setdiff1d(np.arange(E), [*chain(*kinds.values())])
    rows[kinds["mean"]] = rows[real].mean(axis=0)
    return rows, kinds


def test_rows_that_stand_for_missing_are_recognised():
    rows, kinds = with_placeholders()
    assert {name: np.flatnonzero(mask).tolist() for name, mask in placeholders(rows).items()} == kinds
    assert not any(mask.any() for mask in placeholders(matrix(E, 64)).values())
    alone = matrix(E, 64)
    alone[7] = np.delete(alone, 7, axis=0).mean(axis=0)
    assert np.flatnonzero(placeholders(alone)["mean"]).tolist() == [7]


@pytest.mark.parametrize("keep", [False, True])
def test_rows_that_stand_for_missing_are_dropped_or_kept(tmp_path, names, keep):
    rows, kinds = with_placeholders()
    path = saved(tmp_path / "visual.pth", torch.from_numpy(rows))
    counts = import_released(Files(features=path, keep_placeholders=keep), names, E, tmp_path, {})["features"]
    gone = kinds["not_finite"] if keep else [*chain(*kinds.values())]
    found = read_features(tmp_path / "features.parquet", E)
    assert found.entity.tolist() == sorted(set(range(E)) - set(gone))
    assert counts["placeholders"] == {name: len(ids) for name, ids in kinds.items()}
    assert (counts["dropped"], counts["kept"]) == (len(gone), E - len(gone))
    assert counts["examples"]["zero"] == [3, 4]


def test_a_wrong_number_of_rows_is_said(tmp_path, names):
    path = saved(tmp_path / "x.pth", torch.zeros(E - 1, 4))
    with pytest.raises(UserError, match=r"299 rows.*300 entities"):
        import_released(Files(features=path), names, E, tmp_path / "out", {})
    assert not (tmp_path / "out").exists()


class Harmful:
    ran = False

    def __reduce__(self):
        return (setattr, (Harmful, "ran", True))


def test_a_file_that_needs_code_is_refused_and_its_code_not_run(tmp_path):
    torch.save({"weight": torch.zeros(3, 2), "extra": Harmful()}, tmp_path / "a.pth")
    (tmp_path / "b.pth").write_bytes(pickle.dumps(Harmful()))
    np.save(tmp_path / "c.npy", np.array([Harmful()], dtype=object))
    for name, word in (("a.pth", "torch.save"), ("b.pth", "torch.save"), ("c.npy", "not a tensor file")):
        with pytest.raises(UserError, match=word):
            read_tensor(tmp_path / name)
    assert not Harmful.ran


def test_what_is_no_tensor_is_said(tmp_path):
    (tmp_path / "cut.pth").write_bytes(saved(tmp_path / "whole.pth", torch.zeros(50, 50)).read_bytes()[:5000])
    (tmp_path / "words.pth").write_text("not found")
    saved(tmp_path / "vector.pth", torch.zeros(5))
    saved(tmp_path / "two.pth", {"a": torch.zeros(2, 2), "b": torch.zeros(2, 2)})
    for name in ("cut.pth", "words.pth", "vector.pth", "two.pth", "missing.pth"):
        with pytest.raises(UserError, match=name):
            read_tensor(tmp_path / name)


# -------------------------------------------------------------------------------------------------- tokens
def token_file(path: Path, lists: dict) -> Path:
    text = json.dumps(lists)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("tokens.json", text)
    else:
        path.write_text(text)
    return path


@pytest.mark.parametrize("end", ["json", "zip"])
@pytest.mark.parametrize("by", ["http://dbpedia.org/resource/Entity_{}", "{}"])
def test_picture_tokens_in_multiples_of_196(tmp_path, names, end, by):
    generator = np.random.default_rng(0)
    lists = {by.format(n): generator.integers(0, 50, 196 * (1 + n % 3)).tolist() for n in range(0, E, 2)}
    tokens = token_file(tmp_path / f"tokens.{end}", lists)
    codebook = saved(tmp_path / "visual.pth", torch.from_numpy(matrix(50, 32)))
    files = Files(tokens=tokens, codebook=codebook, tokens_per_picture=196)
    counts = import_released(files, names, E, tmp_path / "out", {})
    found = load_tokens(tmp_path / "out", E)
    assert sorted(set(found.entity.tolist())) == list(range(0, E, 2))
    assert np.diff(found.offsets.numpy()).tolist() == [196] * counts["tokens"]["lists"]
    assert found.values[: 196 * 4].tolist() == lists[by.format(0)] + lists[by.format(2)]
    assert counts["tokens"]["uneven"] == 0
    assert counts["codebook"]["padding_rows"] == 0


def test_text_tokens_are_one_list_and_nested_lists_one_a_picture(tmp_path, names):
    codebook = saved(tmp_path / "c.pth", torch.from_numpy(matrix(9, 3)))
    lists = {"Entity_1": [1, 2, 3], "Entity_2": [[4, 5], [6]], "Entity_3": [], "Nobody": [1]}
    files = Files(tokens=token_file(tmp_path / "t.json", lists), codebook=codebook)
    counts = import_released(files, names, E, tmp_path, {})["tokens"]
    rows = tables.read(tmp_path / "tokens.parquet", "tokens").to_pylist()
    assert [(one["entity_id"], one["image_ix"], one["token_ids"]) for one in rows] == [
        (1, 0, [1, 2, 3]), (2, 0, [4, 5]), (2, 1, [6]),
    ]  # fmt: skip
    assert counts["empty"] == 1
    assert (counts["names"]["unmatched"], counts["names"]["unmatched_examples"]) == (1, ["Nobody"])


def test_padding_is_recognised_and_dropped(tmp_path, names):
    book = matrix(11, 8)
    book /= np.linalg.norm(book, axis=1, keepdims=True)
    book[10] *= 0.2
    codebook = saved(tmp_path / "c.pth", torch.from_numpy(book))
    files = Files(tokens=token_file(tmp_path / "t.json", {"Entity_1": [1, 10, 2, 10]}), codebook=codebook)
    counts = import_released(files, names, E, tmp_path, {})
    assert counts["codebook"]["padding_rows"] == 1
    assert counts["tokens"]["padding_dropped"] == 2
    assert tables.read(tmp_path / "tokens.parquet", "tokens")["token_ids"].to_pylist() == [[1, 2]]
    assert tables.codebook(tmp_path / "codebook.parquet")[1].shape == (10, 8)


@pytest.mark.parametrize(("ends", "said"), [((101, 102), [101, 102]), ((101, None), [101]), ((None, None), [])])
def test_special_tokens_among_the_released_are_said(tmp_path, names, caplog, ends, said):
    codebook = saved(tmp_path / "c.pt", torch.from_numpy(matrix(400, 8)))
    begin, end = ([one] if one is not None else [] for one in ends)
    lists = {f"Entity_{n}": [*begin, n + 3, n + 4, (7 * n) % 90, *end] for n in range(E)}
    files = Files(tokens=token_file(tmp_path / "t.json", lists), codebook=codebook)
    counts = import_released(files, names, E, tmp_path, {})["tokens"]
    assert counts["special"] == said
    assert ("nearly every list begins or ends with" in caplog.text) == bool(said)


def test_an_uneven_number_of_picture_tokens_is_counted(tmp_path, names):
    codebook = saved(tmp_path / "c.pth", torch.from_numpy(matrix(9, 3)))
    tokens = token_file(tmp_path / "t.json", {"Entity_1": [1] * 200})
    counts = import_released(Files(tokens=tokens, codebook=codebook, tokens_per_picture=196), names, E, tmp_path, {})[
        "tokens"
    ]
    assert (counts["uneven"], counts["uneven_examples"], counts["lists"]) == (1, ["Entity_1"], 2)


@pytest.mark.parametrize(
    ("lists", "word"),
    [
        ({"Entity_1": [1, 9], "Entity_2": [50]}, r"2 lists hold token ids beyond the 9 rows.*9 of 'Entity_1'"),
        ({"Stranger": [1]}, r"none of its 1 names.*'Stranger'"),
        ({"Entity_1": []}, "no tokens"),
        ({"Entity_1": ["1"]}, "not a token id|not JSON"),
        ({"Entity_1": [-1]}, "not a token id"),
        ({"Entity_1": 7}, "no list"),
        ([1, 2], "not JSON of name"),
    ],
)
def test_token_files_that_do_not_fit_are_said(tmp_path, names, lists, word):
    codebook = saved(tmp_path / "c.pth", torch.from_numpy(matrix(9, 3)))
    with pytest.raises(UserError, match=word):
        import_released(
            Files(tokens=token_file(tmp_path / "t.json", lists), codebook=codebook), names, E, tmp_path / "out", {}
        )
    assert not (tmp_path / "out").exists()


def test_cut_json_is_said(tmp_path):
    (tmp_path / "t.json").write_text('{"a": [1, 2], "b": [3')
    with pytest.raises(UserError, match="not JSON of name"):
        read_tokens(tmp_path / "t.json")


def test_tokens_need_their_codebook(tmp_path, names):
    with pytest.raises(UserError, match="codebook"):
        import_released(Files(tokens=token_file(tmp_path / "t.json", {"Entity_1": [1]})), names, E, tmp_path, {})
    with pytest.raises(UserError, match="neither features nor tokens"):
        import_released(Files(), names, E, tmp_path, {})


def test_the_codebooks_that_mygo_released(mirror, tmp_path, names):
    visual, vqgan = next(mirror.rglob("visual.pth")), next(mirror.rglob("visual_vqgan.pth"))
    tokens = token_file(tmp_path / "t.json", {"Entity_1": [0, 1023, 8191, 8192]})
    counts = import_released(Files(tokens=tokens, codebook=visual), names, E, tmp_path / "a", {})
    assert counts["codebook"] == {"rows": 8193, "width": 32, "padding_rows": 1}
    assert counts["tokens"]["padding_dropped"] == 1
    assert tables.codebook(tmp_path / "a" / "codebook.parquet")[1].shape == (8192, 32)
    tokens = token_file(tmp_path / "u.json", {"Entity_1": [0, 1023]})
    counts = import_released(Files(tokens=tokens, codebook=vqgan), names, E, tmp_path / "b", {})
    assert counts["codebook"] == {"rows": 1024, "width": 256, "padding_rows": 0, "untrained": True}


# ---------------------------------------------------------------------------------------------------- HDF5
def hdf5(path: Path, members: dict) -> Path:
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        for name, value in members.items():
            file[name] = value
    return path


def test_mmkbs_pictures_by_their_index(tmp_path, names):
    rows = matrix(3, 4096)
    members = {"DBIMG1": rows[:1], "DBIMG2": rows[1], "DBIMG3": rows[2:], "DBIMG9": rows[:1]}
    path = hdf5(tmp_path / "DB15K_ImageData.h5", members)
    index = tmp_path / "DB15K_ImageIndex.txt"
    index.write_text(
        "<http://dbpedia.org/resource/Entity_5>\tDBIMG1\n<http://dbpedia.org/resource/Entity_7>\tDBIMG2\n"
        "<http://dbpedia.org/resource/Entity_7>\tDBIMG3\n"
    )
    counts = import_released(Files(features=path, index=index), names, E, tmp_path / "out", {})["features"]
    table = tables.read(tmp_path / "out" / "features.parquet", "features").to_pylist()
    assert [(one["entity_id"], one["count"]) for one in table] == [(5, 1), (7, 2)]
    assert np.allclose(table[1]["embedding"], rows[1:].mean(axis=0), atol=1e-6)
    assert counts["pictures_not_in_index"] == 1
    assert counts["pictures_not_in_index_examples"] == ["DBIMG9"]


def test_mmrns_one_vector_a_sentence(tmp_path, names):
    rows = matrix(5, 384)
    members = {"Entity_1": rows[:3], "Entity_2/0": rows[3], "Entity_2/1": rows[4], "X": rows[:1]}
    path = hdf5(tmp_path / "MKG.h5", members)
    counts = import_released(Files(features=path), names, E, tmp_path / "out", {})["features"]
    table = tables.read(tmp_path / "out" / "features.parquet", "features").to_pylist()
    assert [(one["entity_id"], one["count"]) for one in table] == [(1, 3), (2, 2)]
    assert np.allclose(table[0]["embedding"], rows[:3].mean(axis=0), atol=1e-6)
    assert counts["names"]["unmatched_examples"] == ["X"]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_row_that_is_not_finite_takes_no_good_one_with_it(tmp_path, names, bad):
    rows = matrix(5, 384)
    rows[[1, 4], 7] = bad
    members = {"Entity_1": rows[:3], "Entity_2/0": rows[3], "Entity_2/1": rows[4], "Entity_3": rows[4:]}
    path = hdf5(tmp_path / "MKG.h5", members)
    counts = import_released(Files(features=path), names, E, tmp_path / "out", {})["features"]
    table = tables.read(tmp_path / "out" / "features.parquet", "features").to_pylist()
    assert [(one["entity_id"], one["count"]) for one in table] == [(1, 2), (2, 1)]
    assert np.allclose(table[0]["embedding"], rows[[0, 2]].mean(axis=0), atol=1e-6)
    assert np.allclose(table[1]["embedding"], rows[3], atol=1e-6)
    assert counts["rows_not_finite"] == 3
    assert (counts["dropped"], counts["examples"]["not_finite"]) == (1, [3])


def test_links_out_of_an_hdf5_file_are_refused(tmp_path):
    h5py = pytest.importorskip("h5py")
    secret = hdf5(tmp_path / "secret.h5", {"v": np.ones((1, 4))})
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["Entity_1"] = h5py.ExternalLink(str(secret), "v")
    layout = h5py.VirtualLayout(shape=(1, 4), dtype="f8")
    layout[:] = h5py.VirtualSource(str(secret), "v", shape=(1, 4))
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file.create_virtual_dataset("Entity_1", layout)
    for name, word in (("a.h5", "a link"), ("b.h5", "another file")):
        with pytest.raises(UserError, match=word):
            list(read_hdf5(tmp_path / name))
    (tmp_path / "c.h5").write_bytes(b"no HDF5")
    with pytest.raises(UserError, match="cannot be read as HDF5"):
        list(read_hdf5(tmp_path / "c.h5"))


def test_the_index_that_mmkb_released(mirror, tmp_path):
    index = read_index(next(mirror.rglob("DB15K_ImageIndex.txt")))
    assert index["DBIMG00001"] == ["<http://dbpedia.org/resource/Andy_Griffith>"]
    assert len(index) > 12_000
    (tmp_path / "bad").write_text("one two\n")
    with pytest.raises(UserError, match="line 1"):
        read_index(tmp_path / "bad")
