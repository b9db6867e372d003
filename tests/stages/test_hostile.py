"""What comes from outside is data: whatever it claims or asks for is refused with one sentence, and nothing is left.

Members that leave their archive, links, bombs and pictures of absurd sizes stand in test_archives and test_images;
checkpoints that carry code for encoders in test_encoder_pictures; here are the other doors.
"""

import json
import os
import resource
import shutil
import struct
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from pipeline import tables
from pipeline.download import sources
from pipeline.encoding import inputs
from pipeline.errors import UserError
from pipeline.graph.formats import read_graph
from pipeline.modalities import released_files
from pipeline.modalities import texts as text
from pipeline.wikimedia import answers, fetching
from pipeline.wikimedia import texts as web_texts
from pipeline.wikimedia.store import OK, Answer
from stages.params import load_params
from tests.helpers.clones import ROOT

NOW = datetime.now(UTC)
DEEP = "[" * 10_000 + "]" * 10_000
PARAMS = (ROOT / "params.yaml").read_text(encoding="utf-8")
GRAPHS = "graphs:\n- mini\n"


@pytest.fixture(autouse=True)
def little_memory():
    """Whatever takes more than 4 GiB beyond what is mapped by now fails here instead of taking the machine down."""
    with open("/proc/self/statm") as handle:
        mapped = int(handle.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (mapped + (4 << 30), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def one_sentence(error: pytest.ExceptionInfo, path: Path) -> None:
    said = str(error.value)
    assert path.name in said
    assert "\n" not in said
    assert len(said) < 600


# ------------------------------------------------------------------------------------------------------------ JSON
READERS = {
    "descriptions": (text.read_wikidata, '{"/m/1": %s}'),
    "tokens": (released_files.read_tokens, '{"Q42": %s}'),
    "checksums": (sources.recorded, "%s"),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("content", [DEEP, '"' + "x" * 5_000_000, "1" * 5_000, "\0", ""], ids=range(5))
def test_json_that_is_none(reader, content, tmp_path):
    read, around = READERS[reader]
    path = tmp_path / "outside.json"
    path.write_text(around % content)
    with pytest.raises(UserError) as error:
        read(path)
    one_sentence(error, path)


def test_an_answer_of_the_web_that_is_ten_thousand_levels_deep_is_no_answer():
    assert fetching._json(f'{{"entities": {DEEP}}}'.encode()) is None
    assert fetching._json(b'{"entities": {}}') == {"entities": {}}


ENTITY = {
    "id": "Q1", "labels": {"en": {"value": "universe"}}, "descriptions": {"en": {"value": "all there is"}},
    "aliases": {"en": [{"value": "cosmos"}]}, "sitelinks": {"enwiki": {"title": "Universe"}},
    "claims": {"P18": [{"rank": "normal", "mainsnak": {"datavalue": {"value": "Hubble.jpg"}}}]},
}  # fmt: skip
PAGE = {"title": "Universe", "extract": "All.", "pageprops": {"wikibase_item": "Q1"},
        "imageinfo": [{"extmetadata": {"Artist": {"value": "NASA"}}}]}  # fmt: skip
QUERY = {"normalized": [{"from": "universe", "to": "Universe"}], "redirects": [], "pages": {"1": PAGE}}


def damaged(value: object):
    """The value with each of its parts replaced by something else in turn: empty tables come as [], and worse."""
    yield from ([], {}, "", 7, None, ["x"], {"x": 1})
    if isinstance(value, dict):
        for name, one in value.items():
            yield from ({**value, name: other} for other in damaged(one))
    if isinstance(value, list):
        for place, one in enumerate(value):
            yield from ([*value[:place], other, *value[place + 1 :]] for other in damaged(one))


def test_answers_of_any_shape_are_read_without_a_stumble():
    def reads(answer: dict) -> list:
        def get(kind: str, key: str) -> Answer | None:
            body = {answers.ENTITY: entity, answers.ARTICLE: page, answers.FILE: file}[kind]
            return Answer(kind, key, OK, json.dumps(body).encode(), None, 1, NOW)

        kept = answers.by_id(answer, ["Q1"])["Q1"]
        answers.by_title(answer, ["Universe"])
        entity = kept[1]
        page = answers.by_page(answer, ["universe"], lambda one: one if one.get("extract") else None)["universe"][1]
        file = answers.by_page(answer, ["universe"], lambda one: one.get("imageinfo"))["universe"][1]
        props = answers.by_page(answer, ["universe"], lambda one: one.get("pageprops"))["universe"][1]
        leads = answers.redirection(Answer("", "", OK, json.dumps(props).encode(), None, 1, NOW))
        texts = web_texts._described(entity, get, "wikipedia")
        licence = answers.licence_of(get(answers.FILE, ""))
        return [leads, texts and texts.description, answers.picture_names(entity), licence[1]]

    answer = {"entities": {"Q1": ENTITY}, "query": QUERY}
    assert reads(answer) == ["Q1", "All.", ["Hubble.jpg"], "NASA"]
    shapes = [one for one in damaged(answer) if isinstance(one, dict)]
    assert len(shapes) > 200
    for shape in shapes:
        reads(shape)


@pytest.mark.parametrize("ids", [[{}], [None], [1, 2.7], [True], [1, "2"], [2**33], [-1], [1, [2]], "12", {"a": 1}])
def test_tokens_that_are_none(ids, tmp_path):
    path = tmp_path / "tokens.json"
    path.write_text(json.dumps({"Q1": [3, 4], "Q42": ids}))
    with pytest.raises(UserError, match=r"token id|inhomogeneous|int|list") as error:
        released_files.read_tokens(path)
    one_sentence(error, path)


# --------------------------------------------------------------------------------------------------------- tensors
class Code:
    """A pickle of it makes a file where it is read."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("old", [False, True])
def test_a_released_tensor_with_code_in_it_runs_none(old, tmp_path):
    path = tmp_path / "visual.pth"
    torch.save({"x": Code(tmp_path / "ran")}, path, _use_new_zipfile_serialization=not old)
    with pytest.raises(UserError, match="only their own code can load") as error:
        released_files.read_tensor(path)
    one_sentence(error, path)
    assert not (tmp_path / "ran").exists()


def huge() -> dict[str, object]:
    """Small files that claim to be large: a repeated number, a sparse tensor, an array's head without its body."""
    sparse = torch.sparse_coo_tensor(
        torch.zeros(2, 1, dtype=torch.int64), torch.ones(1), (10**6, 10**6), check_invariants=True
    )
    return {"repeated.pth": torch.zeros(1).expand(10**6, 10**6), "sparse.pth": sparse}


@pytest.mark.filterwarnings("ignore:overflow")  # of numpy, about the head
@pytest.mark.parametrize("name", ["repeated.pth", "sparse.pth", "head.npy", "endless.npy"])
def test_a_small_file_that_claims_terabytes(name, tmp_path):
    path = tmp_path / name
    if name.endswith(".pth"):
        torch.save(huge()[name], path)
    else:
        shape = (10**6, 10**6) if name == "head.npy" else (2**62, 2**62)
        head = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode()
        head += b" " * (-(len(head) + 11) % 64) + b"\n"
        path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head)
    assert path.stat().st_size < 10_000
    with pytest.raises(UserError, match="not a tensor file") as error:
        released_files.read_tensor(path)
    one_sentence(error, path)


def test_arrays_are_still_read(tmp_path):
    matrix = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.save(tmp_path / "a.npy", matrix)
    torch.save(torch.from_numpy(matrix), tmp_path / "a.pth")
    for name in ("a.npy", "a.pth"):
        assert np.array_equal(released_files.read_tensor(tmp_path / name), matrix)


@pytest.mark.parametrize("trick", ["claims", "cycle", "link", "outside"])
def test_tricks_of_hdf5(trick, tmp_path):
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    path = tmp_path / "pictures.h5"
    (tmp_path / "secret").write_bytes(b"\0" * 16)
    with h5py.File(path, "w") as file:
        if trick == "claims":
            file.create_dataset("Q42", shape=(10**6, 10**6), chunks=(1000, 1000), dtype="f4")
        elif trick == "cycle":
            group = file.create_group("Q42")
            group["again"] = group
        elif trick == "link":
            file["Q42"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/x")
        else:
            file.create_dataset("Q42", shape=(4,), dtype="f4", external=[(str(tmp_path / "secret"), 0, 16)])
    with pytest.raises(UserError, match=r"claims|group within|link|another file") as error:
        list(released_files.read_hdf5(path))
    one_sentence(error, path)


# ---------------------------------------------------------------------------------------------------------- tables
GOOD = {
    "entity_id": pa.array([0, 1], pa.int32()),
    "embedding": pa.array([[1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float32())),
}


@pytest.mark.parametrize(
    "bad",
    [
        {"entity_id": pa.array(["0", "1"])},
        {"entity_id": pa.array([0, None], pa.int32())},
        {"embedding": pa.array(["a", "b"])},
        {"embedding": pa.array([["a"], ["b"]])},
        {"embedding": pa.array([[1.0, 2.0], None])},
        {"embedding": pa.array([[1.0, 2.0], [3.0]])},
        {"embedding": None},
    ],
)
def test_a_table_of_another_schema(bad, tmp_path):
    path = tmp_path / "features.parquet"
    columns = {name: column for name, column in {**GOOD, **bad}.items() if column is not None}
    pq.write_table(pa.table(columns), path)
    with pytest.raises(UserError) as error:
        tables.features(path)
    assert "\n" not in str(error.value)


def test_a_table_of_wider_types_is_one_of_its_kind(tmp_path):
    path = tmp_path / "features.parquet"
    columns = {
        "entity_id": GOOD["entity_id"].cast(pa.int64()),
        "embedding": GOOD["embedding"].cast(pa.list_(pa.float64())),
    }
    pq.write_table(pa.table(columns), path)
    ids, matrix = tables.features(path)
    assert ids.tolist() == [0, 1]
    assert matrix.dtype == np.float32
    assert matrix.tolist() == [[1, 2], [3, 4]]


def test_texts_of_another_type(tmp_path):
    path = tmp_path / "text.parquet"
    pq.write_table(pa.table({"entity_id": [0, 1], "text": [5, 6]}), path)
    with pytest.raises(UserError, match="its 'text' is int64, not string") as error:
        inputs.Texts(path)
    one_sentence(error, path)


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.99])
def test_a_table_cut_short(share, tmp_path):
    path = tmp_path / "features.parquet"
    pq.write_table(pa.table(GOOD), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    for read in (tables.features, tables.provenance):
        with pytest.raises(UserError, match="cannot be read as Parquet") as error:
            read(path)
        one_sentence(error, path)


# ----------------------------------------------------------------------------------------------------------- names
LONG = "x" * 1_000_000


@pytest.mark.parametrize("name", ["entity2id.txt", "relation2id.txt"])
def test_a_name_of_a_million_characters(name, tmp_path):
    (tmp_path / "entity2id.txt").write_text("1\na 0\n")
    (tmp_path / "relation2id.txt").write_text("1\nr 0\n")
    for split in ("train", "valid", "test"):
        (tmp_path / f"{split}2id.txt").write_text("1\n0 0 0\n")
    read_graph(tmp_path, "openke")
    (tmp_path / name).write_text(f"1\n{LONG} 0\n")
    with pytest.raises(UserError, match="line 2 is longer than") as error:
        read_graph(tmp_path, "openke")
    one_sentence(error, tmp_path / name)


def test_links_and_texts_of_a_million_characters(tmp_path):
    (tmp_path / "links.txt").write_text(f"/m/1 <SameAs> <{LONG}> .\n")
    with pytest.raises(UserError, match="line 1 is longer than"):
        text.read_links(tmp_path / "links.txt")
    (tmp_path / "text.tsv").write_text(f"key\tlabel\tdescription\na\tA\t{LONG}\n")
    with pytest.raises(UserError, match="line 2 is longer than"):
        text.by_table(["a"], tmp_path)


# ----------------------------------------------------------------------------------------------------- params.yaml
LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (
            'graphs: !!python/object/apply:os.system ["touch ran"]\n',
            "line .* constructor for the tag",
        ),
        ("graphs: !include /etc/passwd\n", "line .* constructor for the tag"),
        (LAUGHS + "graphs: *i\n", "over 100,000 values"),
        ("graphs: &a [*a]\n", "over 100,000 values"),
        ("graphs: " + "[" * 2_000 + "\n", "nests its keys too deep"),
        ("graphs: [mini]\x00\n", "no YAML"),
    ],
)
def test_params_that_are_a_weapon(change, complaint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "params.yaml"
    path.write_text(PARAMS.replace(GRAPHS, change, 1))
    with pytest.raises(UserError, match=complaint) as error:
        load_params(path)
    one_sentence(error, path)
    assert not (tmp_path / "ran").exists()


def test_aliases_in_reason_are_welcome(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(PARAMS.replace(GRAPHS, "graphs: &mine [mini]\n"))
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    assert load_params(path).graphs == ["mini"]
