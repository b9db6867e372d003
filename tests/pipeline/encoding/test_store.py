"""The feature store: what was written is found, torn parts are not, and nothing that goes wrong loses rows."""

import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.encoding.store import KEY, CorruptPart, Store, StoreFailure, Stores, fingerprint_id, key_of, statuses
from tests.helpers.store_rows import FINGERPRINT, keys, rows


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path), "text", FINGERPRINT)


def read_back(store: Store, first: int, last: int) -> None:
    found = store.find(keys(first, last))
    assert found.known.all()
    for at, n in enumerate(range(first, last)):
        row = store.read(found.names[found.part[at]]).slice(int(found.row[at]), 1).to_pylist()[0]
        assert row["token_ids"] == list(range(n % 5))
        assert row["embedding"] == [n, -n, 0.5]
        assert row["count"] == n % 7


def test_what_was_written_is_found_and_nothing_else(store, tmp_path):
    store.write(*rows(0, 30))
    store.write(*rows(30, 50))
    again = Store(str(tmp_path), "text", FINGERPRINT)
    assert again.find(keys(20, 60)).known.tolist() == [True] * 30 + [False] * 10
    read_back(again, 0, 50)
    assert again.status() == {
        "parts": 2, "rows": 50, "bytes": sum(p.stat().st_size for p in tmp_path.rglob("*.parquet")), "orphans": 0,
        "quarantined": 0,
    }  # fmt: skip


def test_a_key_that_ends_in_zero_bytes(store):
    key = b"\1" * 30 + b"\0\0"
    _, *values = rows(0, 1)
    store.write([key], *values)
    assert store.find(np.array([key, b"\1" * 30 + b"\0\1"], dtype=KEY)).known.tolist() == [True, False]


def test_encoders_do_not_see_one_another(store, tmp_path):
    store.write(*rows(0, 3))
    other = {**FINGERPRINT, "weights": "1" * 64}
    assert not Store(str(tmp_path), "text", other).find(keys(0, 3)).known.any()
    assert fingerprint_id(FINGERPRINT) == fingerprint_id(dict(reversed(FINGERPRINT.items())))
    assert [fingerprint for fingerprint, _ in statuses(str(tmp_path), "text")] == [FINGERPRINT]


def test_rows_without_features(store):
    held, tokens, _, count = rows(0, 4)
    part = store.write(held, tokens, np.zeros((4, 0), dtype=np.float32), count)
    assert "embedding" not in store.read(part).column_names


def test_a_part_without_its_manifest_does_not_count(store, tmp_path):
    store.write(*rows(0, 5))
    next(tmp_path.rglob("parts/*.json")).unlink()
    fresh = Store(str(tmp_path), "text", FINGERPRINT)
    assert not fresh.find(keys(0, 5)).known.any()
    assert fresh.status()["orphans"] == 1
    fresh.write(*rows(0, 5))
    assert fresh.find(keys(0, 5)).known.all()


def flip(content: bytes) -> bytes:
    middle = len(content) // 3
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize("harm", [lambda c: c[: len(c) // 2], lambda c: b"", flip], ids=["torn", "empty", "changed"])
def test_a_damaged_part_is_noticed_set_aside_and_made_again(harm, store, tmp_path):
    store.write(*rows(0, 5))
    store.write(*rows(5, 9))
    path = next(p for p in tmp_path.rglob("parts/*.parquet") if p.stem == store.find(keys(0, 5)).names[0])
    path.write_bytes(harm(path.read_bytes()))
    fresh = Store(str(tmp_path), "text", FINGERPRINT)
    found = fresh.find(keys(0, 9))
    if found.known.all():  # the key column may still be readable: then reading the rows must notice
        with pytest.raises(CorruptPart):
            fresh.read(path.stem)
    assert fresh.find(keys(0, 9)).known.tolist() == [False] * 5 + [True] * 4
    assert fresh.status()["quarantined"] == 1
    assert not path.exists()
    fresh.write(*rows(0, 5))
    read_back(fresh, 0, 9)


def test_verify_reads_everything(store, tmp_path):
    store.write(*rows(0, 5))
    name = store.write(*rows(5, 9))
    path = next(tmp_path.rglob(f"parts/{name}.parquet"))
    path.write_bytes(flip(path.read_bytes()))
    assert Store(str(tmp_path), "text", FINGERPRINT).verify() == (5, [name])


def _fill(address: str, first: int) -> None:
    store = Store(address, "text", FINGERPRINT)
    for start in range(first, first + 60, 10):
        store.write(*rows(start, start + 10))


def test_two_writers_at_once(tmp_path):
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_fill, args=(str(tmp_path), first)) for first in (0, 40)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    store = Store(str(tmp_path), "text", FINGERPRINT)
    read_back(store, 0, 100)
    assert store.verify()[1] == []


def test_a_writer_killed_at_any_moment_leaves_whole_parts(tmp_path):
    """A process writes parts without end and is killed; whatever is found afterwards is sound."""
    code = (
        "import sys; sys.path[:0] = sys.argv[2:]; sys.argv = sys.argv[:2]\n"
        "from pipeline.encoding.store import Store; from tests.helpers.store_rows import FINGERPRINT, rows\n"
        "store = Store(sys.argv[1], 'text', FINGERPRINT)\n"
        "n = 0\n"
        "while True: store.write(*rows(n, n + 500)); n += 500; print(n, flush=True)\n"
    )
    here = Path(__file__).parent
    for attempt in range(3):
        address = str(tmp_path / str(attempt))
        command = [sys.executable, "-c", code, address, str(here.parents[2])]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            written = [writer.stdout.readline() for _ in range(2 + attempt)]
            writer.send_signal(signal.SIGKILL)
        store = Store(address, "text", FINGERPRINT)
        promised = int(written[-1])
        assert store.find(keys(0, promised)).known.all()
        sound, damaged = store.verify()
        assert sound >= promised
        assert damaged == []


def test_a_reader_without_rights_to_write(tmp_path):
    """Rows are found; new ones stop the run, or stay here, as the key says. A full disk takes the same way."""
    Store(str(tmp_path / "shared"), "text", FINGERPRINT).write(*rows(0, 5))
    for mode, scratch in (("stop", "a"), ("continue", "b")):
        stores = Stores(str(tmp_path / "shared"), tmp_path / scratch, "text", FINGERPRINT, mode)
        stores._shared._put = _no_room(stores._shared)
        assert stores.find(keys(0, 5))[0][1].known.all()
        if mode == "stop":
            with pytest.raises(StoreFailure, match="No space left"):
                stores.write(*rows(5, 9))
        else:
            stores.write(*rows(5, 9))
            known = [found.known for _, found in stores.find(keys(0, 9))]
            assert (known[0] | known[1]).all()
            assert not known[0][5:].any()
    stores.close()
    assert not (tmp_path / "b").exists()


def _no_room(store: Store):
    def put(*_) -> None:
        raise store._failure("write", OSError(28, os.strerror(28)))

    return put


def test_a_note_that_cannot_be_kept_stops_nothing(tmp_path, caplog):
    stores = Stores(str(tmp_path / "a"), tmp_path / "b", "text", FINGERPRINT)
    stores.write(*rows(0, 2))
    stores._shared.refuse = _no_room(stores._shared)
    stores.refuse({key_of("x"): "no text"})
    assert "asked again next time" in caplog.text
    stores.close()


@pytest.mark.parametrize("address", ["nosuchprotocol://x/y", "ftp://127.0.0.1:9/x"])
def test_an_unreachable_store(address, tmp_path):
    with pytest.raises(StoreFailure, match="store"):
        Stores(address, tmp_path / "scratch", "text", FINGERPRINT).find(keys(0, 2))
    stores = Stores(address, tmp_path / "scratch", "text", FINGERPRINT, "continue")
    stores.write(*rows(0, 2))
    assert stores.find(keys(0, 2))[-1][1].known.all()


def test_a_store_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreFailure):
        Store(str(tmp_path / "file"), "text", FINGERPRINT).write(*rows(0, 2))


def test_a_store_on_another_file_system():
    """Any fsspec address: here one in memory."""
    store = Store("memory://tessera-test", "text", FINGERPRINT)
    store.write(*rows(0, 5))
    read_back(Store("memory://tessera-test", "text", FINGERPRINT), 0, 5)


def test_the_store_that_vanishes_midway(tmp_path):
    shared = tmp_path / "shared"
    Store(str(shared), "text", FINGERPRINT).write(*rows(0, 5))
    stores = Stores(str(shared), tmp_path / "scratch", "text", FINGERPRINT, "continue")
    store, found = stores.find(keys(0, 5))[0]
    for path in shared.rglob("*.parquet"):
        path.unlink()
    with pytest.raises(CorruptPart):
        stores.read(store, found.names[0])
    assert not any(found.known.any() for _, found in stores.find(keys(0, 5)))
