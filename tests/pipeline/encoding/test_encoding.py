"""Reader -> encoder -> writer: nothing is computed twice, nothing is lost, and bad input is said in a sentence."""

import io
import os
import signal
import subprocess
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline import tables
from pipeline.encoding import inputs, run
from pipeline.encoding.inputs import Pictures, Texts
from pipeline.encoding.publish import CHUNK
from pipeline.encoding.run import encode_modality
from pipeline.encoding.store import Store, Stores, key_of
from pipeline.errors import UserError
from tests.helpers import encoder_zoo as zoo
from tests.helpers import warm
from tests.helpers.clones import ROOT, environment
from tests.helpers.letters import Letters, texts

TABLES = ("tokens", "features", "codebook")


@pytest.fixture
def go(tmp_path):
    """Runs an encoder over texts: go(texts, encoder, …) -> (folder of the tables, counts)."""

    def run(texts, encoder=None, *, out="out", graph="g", store="store", **options):
        path = zoo.write_texts(tmp_path / graph / "text.parquet", texts)
        encoder = encoder or Letters()
        address = str(tmp_path / store) if store else None
        stores = Stores(address, tmp_path / f"scratch-{graph}", "text", encoder.fingerprint)
        counts = encode_modality(
            Texts(path), encoder, stores, tmp_path / out, provenance=encoder.fingerprint, **options
        )
        return tmp_path / out, counts

    return run


def contents(folder: Path) -> list[bytes]:
    return [(folder / f"{name}.parquet").read_bytes() for name in TABLES]


def test_one_percent_new_entities(go, caplog):
    caplog.set_level("INFO")
    go(texts(0, 1000))
    encoder = Letters()
    _, counts = go(texts(0, 1010), encoder, out="more")
    assert (counts.found, counts.encoded) == (1000, 10)
    assert sorted(set(encoder.worked)) == sorted(texts(1000, 1010).values())
    assert caplog.messages[-1] == "1,000 rows found in the store, 10 encoded now"


def test_short_inputs_stand_in_batches_of_as_many_tokens_as_the_longest(go):
    long = {i: f"{i:03d}" * 16 for i in range(40)}  # of size 6
    short = {i: f"{i:016d}" for i in range(40, 140)}  # of size 2
    many, few = Letters(window=1024), Letters(window=1024)
    out, _ = go(long | short, many, batch_size=10, longest=6)
    assert many.batches == [10] * 4 + [30] * 3 + [10]
    other, _ = go(long | short, few, out="few", store="other", batch_size=10)
    assert few.batches == [10] * 14
    assert contents(out) == contents(other)


def test_the_same_input_is_encoded_once_across_rows_and_graphs(go):
    encoder = Letters()
    same = {n: f"text {n % 10}" for n in range(100)}
    _, counts = go(same, encoder)
    assert (counts.encoded, counts.distinct) == (100, 10)
    assert len(encoder.worked) == 10
    out, counts = go({5: "text 3", 9: "a new one"}, encoder, graph="other", out="other-out")
    assert (counts.found, counts.encoded) == (1, 1)
    assert tables.read(out / "tokens.parquet", "tokens")["entity_id"].to_pylist() == [5, 9]


def test_shares_fill_the_store_and_the_stage_finds_everything(go):
    given = texts(0, 500)
    whole, _ = go(given, store="whole", out="whole-out")
    sizes = []
    for share in range(3):
        encoder = Letters()
        folder, counts = go(given, encoder, out="nothing", shard=(share, 3))
        sizes.append(counts.encoded)
        assert not folder.exists()
    assert sum(sizes) == 500
    assert min(sizes) > 120
    encoder = Letters()
    out, counts = go(given, encoder)
    assert (counts.found, counts.encoded, encoder.worked) == (500, 0, [])
    assert contents(out) == contents(whole)
    with pytest.raises(UserError, match="shard"):
        go(given, shard=(3, 3))


def test_without_a_store(go, tmp_path):
    out, counts = go(texts(0, 50), store=None)
    with_store, _ = go(texts(0, 50), out="other")
    assert counts.encoded == 50
    assert contents(out) == contents(with_store)
    assert not (tmp_path / "scratch-g").exists()


def test_a_damaged_part_costs_its_rows_and_no_more(go, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "PART_ROWS", 100)
    first, _ = go(texts(0, 1000))
    before = contents(first)
    path = sorted((tmp_path / "store").rglob("parts/*.parquet"))[2]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    encoder = Letters()
    again, _counts = go(texts(0, 1000), encoder)
    assert contents(again) == before
    assert 0 < len(set(encoder.worked)) <= 140, "a part and what shared its last batch"


def test_killed_at_any_moment_and_run_again(go, tmp_path):
    """At most one part's work is done twice, and the tables are the same, byte for byte."""
    given = texts(0, 400)
    whole, _ = go(given)
    base = tmp_path / "killed"
    zoo.write_texts(base / "text.parquet", given)
    command = ["python", "-m", "tests.helpers.slow_letters", str(base)]
    worked = 0
    for lines in (3, 14, 25, None):
        around = warm.environment(environment())
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=around, cwd=ROOT) as process:
            seen = []
            for line in process.stdout:
                seen.append(int(line))
                if lines is not None and len(seen) == lines:
                    process.send_signal(signal.SIGKILL)
                    process.stdout.read()  # its end: nothing runs any more
                    break
            worked += sum(seen)
        assert (base / "out" / "tokens.parquet").exists() == (lines is None)
    assert contents(base / "out") == contents(whole)
    assert 400 < worked <= 400 + 3 * (50 + 8 + 8), "a part, the batch at work, and one that was not yet reported"


def test_many_rows_of_one_entity_are_averaged(tmp_path):
    """Entities with more pictures than a chunk of rows, and chunks that end between entities."""
    pictures = [(0, ix, zoo.picture(ix % 7)) for ix in range(CHUNK + 10)] + [
        (e, 0, zoo.picture(e)) for e in range(1, 5)
    ]
    inputs = Pictures(zoo.write_pictures(tmp_path / "images", pictures))
    encoder = zoo.load("patches", {"family": "patches", "codes": 16, "size": 16}, inputs)
    stores = Stores(str(tmp_path / "store"), tmp_path / "scratch", "image", encoder.fingerprint)
    counts = encode_modality(inputs, encoder, stores, tmp_path / "out", provenance={})
    assert counts.distinct == 7
    features = tables.read(tmp_path / "out" / "features.parquet", "features")
    assert features["count"].to_pylist() == [CHUNK + 10, 1, 1, 1, 1]
    single = {ix: encoder.encode(encoder.prepare([zoo.picture(ix)])).features[0] for ix in range(7)}
    mean = np.mean([single[ix % 7] for ix in range(CHUNK + 10)], axis=0)
    np.testing.assert_allclose(tables.matrix(features["embedding"])[0], mean, rtol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_picture_that_others_encoded_as_nan_takes_no_good_one_with_it(bad, tmp_path, caplog):
    pictures = [(0, 0, zoo.picture(0)), (0, 1, zoo.picture(1)), (1, 0, zoo.picture(1)), (2, 0, zoo.picture(2))]
    inputs = Pictures(zoo.write_pictures(tmp_path / "images", pictures))
    encoder = zoo.load("patches", {"family": "patches", "codes": 16, "size": 16}, inputs)
    stores = Stores(str(tmp_path / "store"), tmp_path / "scratch", "image", encoder.fingerprint)
    keys = [key_of(zoo.picture(n)) for n in range(3)]
    features = np.array([[1, 2], [bad, 0], [5, 6]], dtype=np.float32)
    stores.write(keys, [np.array([n], dtype=np.int32) for n in range(3)], features, np.ones(3, dtype=np.int32))
    encode_modality(inputs, encoder, stores, tmp_path / "out", provenance={})
    table = tables.read(tmp_path / "out" / "features.parquet", "features").to_pylist()
    assert [(one["entity_id"], one["embedding"], one["count"]) for one in table] == [(0, [1, 2], 1), (2, [5, 6], 1)]
    assert "2 rows are not finite" in caplog.text


def test_an_empty_text_gets_no_row_and_is_named(go, caplog):
    out, counts = go({1: "one", 2: "  ", 3: None, 4: "four"})
    assert (counts.encoded, counts.refused, counts.missing) == (2, 1, 1)
    assert "entity 2" in caplog.text
    assert "empty" in caplog.text
    assert tables.read(out / "features.parquet", "features")["entity_id"].to_pylist() == [1, 4]


def test_nothing_but_empty_texts_stops(go):
    with pytest.raises(UserError, match="None of the 2 inputs"):
        go({1: "", 2: " "})


def test_no_inputs_at_all_give_empty_tables(go):
    out, _ = go({1: None, 2: None})
    for name in TABLES:
        assert pq.read_metadata(out / f"{name}.parquet").num_rows == 0


@pytest.mark.parametrize(
    ("content", "reason"), [("pixel", "1×1"), (b"GIF89a not a picture", "no picture"), (b"", "no picture")]
)
def test_a_picture_that_cannot_be_used_gets_no_row(content, reason, tmp_path, caplog):
    if content == "pixel":
        sink = io.BytesIO()
        Image.new("RGB", (1, 1)).save(sink, "PNG")
        content = sink.getvalue()
    inputs = Pictures(zoo.write_pictures(tmp_path / "images", [(7, 0, content), (8, 0, zoo.picture(1))]))
    encoder = zoo.load("patches", {"family": "patches", "codes": 16, "size": 16}, inputs)
    stores = Stores(str(tmp_path / "store"), tmp_path / "scratch", "image", encoder.fingerprint)
    counts = encode_modality(inputs, encoder, stores, tmp_path / "out", provenance={})
    assert counts.refused == 1
    assert "entity 7" in caplog.text
    assert reason in caplog.text
    assert tables.read(tmp_path / "out" / "tokens.parquet", "tokens")["entity_id"].to_pylist() == [8]


def test_a_nan_is_one_row_with_a_reason_and_the_others_go_on(go, tmp_path, caplog):
    given = texts(0, 20)
    out, counts = go(given, Letters(poison=given[11]))
    assert (counts.encoded, counts.refused) == (19, 1)
    assert "the text of entity 11" in counts.refusals[0]
    assert "not a finite number" in caplog.text
    for table in ("tokens", "features"):
        ids = tables.read(out / f"{table}.parquet", table)["entity_id"].to_pylist()
        assert ids == [n for n in range(20) if n != 11]
    _, counts = go(given, out="sound")  # weights that were mended: nothing of the NaN was kept
    assert (counts.found, counts.encoded, counts.refused) == (19, 1, 0)


def test_nothing_but_nans_writes_nothing(go, tmp_path):
    with pytest.raises(UserError, match=r"None of the 3 inputs .*not a finite number"):
        go(dict.fromkeys(range(3), "the same"), Letters(poison="the same"))
    assert not list((tmp_path / "out").glob("*")) if (tmp_path / "out").exists() else True
    assert not list((tmp_path / "store").rglob("*.parquet"))


def test_what_cannot_be_read_is_asked_once(go, tmp_path):
    """Its reason stands in the store, so whoever has the store needs no encoder for it either."""
    given = {**texts(0, 5), 5: " ", 6: ""}
    _, counts = go(given)
    assert (counts.encoded, counts.refused) == (5, 2)
    encoder = Letters()
    encoder.prepare = None
    _, counts = go(given, encoder, out="again")
    assert (counts.found, counts.encoded, counts.refused) == (5, 0, 2)
    assert "the text is empty" in counts.refusals[0]
    assert contents(tmp_path / "again") == contents(tmp_path / "out")


def test_the_codebook_is_kept_in_the_store(go, tmp_path):
    out, _ = go(texts(0, 30))
    encoder = Letters()
    asked = []
    encoder.codebook = lambda used: asked.extend(used) or Letters().codebook(used)
    again, _ = go(texts(0, 30), encoder, out="again")
    assert asked == []
    assert contents(again) == contents(out)
    go({0: "Ω", 1: "a"}, encoder, out="more")
    assert asked == [ord("Ω")], "what the store lacks, and nothing else"
    part = next((tmp_path / "store/text-codebook").rglob("parts/*.parquet"))
    part.write_bytes(b"torn")
    again, _ = go(texts(0, 30), encoder, out="third")
    assert contents(again) == contents(out)


def test_two_rows_of_one_name_are_refused(tmp_path):
    folder = zoo.write_pictures(tmp_path / "images", [(1, 0, zoo.picture(1)), (1, 0, zoo.picture(2))])
    with pytest.raises(UserError, match="two rows for picture 0 of entity 1"):
        Pictures(folder)


def test_pictures_that_are_not_what_their_sha256_says(tmp_path):
    folder = zoo.write_pictures(tmp_path / "images", [(1, 0, zoo.picture(1)), (2, 0, zoo.picture(2))], parts=1)
    path = folder / "part-00000.parquet"
    table = pq.read_table(path)
    swapped = table.set_column(table.column_names.index("bytes"), "bytes", table["bytes"].take([1, 0]))
    pq.write_table(swapped, path)
    inputs = Pictures(folder)
    with pytest.raises(UserError, match="not those of its sha256"):
        list(inputs.read(np.ones(2, bool), 8))


@pytest.mark.parametrize("harm", ["missing", "torn", "columns"])
def test_a_text_table_that_cannot_be_read(harm, tmp_path):
    path = tmp_path / "text.parquet"
    if harm != "missing":
        zoo.write_texts(path, {1: "one"})
    if harm == "torn":
        path.write_bytes(path.read_bytes()[:-20])
    if harm == "columns":
        pq.write_table(pq.read_table(path).drop_columns(["text"]), path)
    with pytest.raises(UserError, match=r"text\.parquet"):
        Texts(path)


def test_a_disk_without_room_leaves_what_stood_there(go, tmp_path, monkeypatch):
    out, _ = go(texts(0, 10))
    before = contents(out)

    def full(*_):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("pipeline.encoding.publish._write_at", full)
    with pytest.raises(UserError, match="No space left"):
        go(texts(0, 20))
    assert contents(out) == before
    assert sorted(path.name for path in out.iterdir()) == sorted(f"{name}.parquet" for name in TABLES)


def test_progress_reaches_the_end(go):
    seen = []
    go(texts(0, 100), progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (100, 100)
    assert seen == sorted(seen)


def test_the_store_says_what_it_holds(go, tmp_path):
    go(texts(0, 30))
    store = Store(str(tmp_path / "store"), "text", Letters().fingerprint)
    assert store.status()["rows"] == 30
    assert store.verify() == (30, [])


def test_a_learned_codebook_is_kept_and_survives_without_its_store(tmp_path, monkeypatch):
    from pipeline.encoding.encoders import learned, patches
    from pipeline.encoding.store import StoreFailure

    inputs = Pictures(zoo.write_pictures(tmp_path / "images", [(n, 0, zoo.picture(n)) for n in range(6)]))
    settings = patches.Settings(codes=8, size=16)
    address = str(tmp_path / "store")
    first = learned.learned(patches, settings, inputs, address)["centroids"]
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreFailure):
        learned.learned(patches, settings, inputs, str(tmp_path / "file"))
    again = learned.learned(patches, settings, inputs, str(tmp_path / "file"), "continue")["centroids"]
    assert first.tobytes() == again.tobytes(), "the same pictures give the same codebook, bit for bit"
    monkeypatch.setattr(patches, "learn", None)
    kept = learned.learned(patches, settings, inputs, address)["centroids"]
    assert kept.tobytes() == first.tobytes()


def test_tables_of_nothing_are_read_as_nothing(tmp_path):
    from pipeline.encoding.publish import publish_nothing
    from trainers.training import data

    publish_nothing(tmp_path, {"stage": "encode_images"})
    features = data.read_features(tmp_path / "features.parquet", 5)
    tokens = data.read_tokens(tmp_path, 5)
    assert len(features.entity) == len(features.matrix) == 0
    assert len(tokens.entity) == len(tokens.values) == len(tokens.codebook) == 0


def test_a_small_shard_reads_and_hashes_no_more_than_it_needs(tmp_path, monkeypatch):
    pictures = Pictures(zoo.write_pictures(tmp_path / "images", [(e, 0, zoo.picture(e)) for e in range(200)]))
    batches, stream = [], inputs._stream

    def counted(*given):
        for batch in stream(*given):
            batches.append(batch.num_rows)
            yield batch

    monkeypatch.setattr(inputs, "_stream", counted)
    checked: list[tuple] = []
    monkeypatch.setattr(pictures, "_check", lambda *given: checked.append(given))
    found = list(pictures.read(np.arange(200) == 3, 8))
    assert found == [[(key_of(zoo.picture(3)), zoo.picture(3))]]
    assert sum(batches) < 200
    assert checked == found[0]
