"""The documented array of jobs: all shards of one graph at once, where neither weights nor rows are there yet."""

import http.server
import json
import multiprocessing
import shutil
import threading
import time
from pathlib import Path

import pytest

from pipeline import tables
from pipeline.encoding.store import key_of, statuses
from tests.helpers import encoder_zoo as zoo
from tests.helpers import shard_process
from tests.helpers.clones import MINI, ROOT, set_key

SHARDS, PICTURES, DISTINCT = 8, 40, 30


class Weights(http.server.BaseHTTPRequestHandler):
    """Gives `server.content` slowly enough for all to come while it is under way; counts how often it was asked."""

    def do_GET(self):
        self.server.asked += 1
        content, half = self.server.content, len(self.server.content) // 2
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[:half])
        time.sleep(0.5)
        self.wfile.write(content[half:])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Weights) as running:
        running.asked, running.content = 0, zoo.vqkd(tmp_path / "weights").read_bytes()
        threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True).start()
        yield running
        running.shutdown()


@pytest.fixture
def world(tmp_path, server) -> Path:
    """A project's folder with pictures, the keys that name the weights' address, and an empty store."""
    folder = tmp_path / "world"
    folder.mkdir()
    shutil.copy(ROOT / "params.yaml", folder)
    shutil.copytree(ROOT / "configs", folder / "configs")
    set_key(folder, "images", "encoder", "beit")
    set_key(folder, "encode", "precision", "float32")
    address = f"http://127.0.0.1:{server.server_address[1]}/models/vqkd.pth"
    set_key(folder, "weights", address, file="configs/encoders/beit.yaml")
    set_key(folder, "heads", 4, file="configs/encoders/beit.yaml")
    assert (folder / MINI).is_file()
    zoo.write_pictures(folder / "data/mini/images", [(n, 0, zoo.picture(n % DISTINCT)) for n in range(PICTURES)])
    return folder


@pytest.fixture
def processes(monkeypatch):
    """Processes that share nothing but the modules, which are imported once for all of them."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # the process that imports them does not know pytest's path
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.helpers.shard_process"])
    return context


def ends(started) -> list[int]:
    """The exit codes of started processes; whoever hangs is killed."""
    for one in started:
        one.join(60)
    for one in started:
        if one.is_alive():
            one.kill()
            one.join()
    return [one.exitcode for one in started]


def test_all_shards_at_once_on_an_empty_store(world, server, processes):
    start = processes.Barrier(SHARDS)
    shards = [
        processes.Process(target=shard_process.encode, args=(world, start, "--shard", f"{n}/{SHARDS}"))
        for n in range(SHARDS)
    ]
    for one in shards:
        one.start()
    assert ends(shards) == [0] * SHARDS
    assert server.asked == 1, "the weights were fetched more than once"
    ((_, store),) = statuses(str(world / "data/.store"), "image")
    kept = [key for part in store.parts() for key in store.read(part)["key"].to_pylist()]
    assert sorted(kept) == sorted(key_of(zoo.picture(n)) for n in range(DISTINCT))

    last = processes.Process(target=shard_process.encode, args=(world, None))
    last.start()
    assert ends([last]) == [0]
    counts = json.loads((world / "data/mini/encode_images.json").read_text())
    assert (counts["found"], counts["encoded"], counts["rows"]) == (PICTURES, 0, PICTURES)
    assert tables.read(world / "data/mini/encoded/image/tokens.parquet", "tokens").num_rows == PICTURES
    assert server.asked == 1
