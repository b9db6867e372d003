"""Fetching from a real HTTP server on loopback: resuming, retrying, refusing, mirrors; nothing half-written."""

import contextlib
import hashlib
import http.server
import json
import os
import resource
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pipeline.download.sources import chosen_mirror, copy_folder, fetch
from pipeline.errors import UserError
from pipeline.retry import RetryPolicy

BODY = bytes(range(256)) * 20_000  # 5 MB
SHA = hashlib.sha256(BODY).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves BODY with Range; `server.faults` is a list of what to do instead, one entry a request."""

    protocol_version = "HTTP/1.1"

    def handle(self):
        with contextlib.suppress(ConnectionError):  # a client that is killed, or has no room, hangs up
            super().handle()

    def log_message(self, *_):
        pass

    def do_GET(self):
        server = self.server
        server.asked.append((self.path, self.headers.get("Range"), self.headers.get("If-Range")))
        fault = server.faults.pop(0) if server.faults else None
        if isinstance(fault, int):
            return self.reply(fault, b"no", {"Retry-After": server.retry_after} if server.retry_after else {})
        if self.path.startswith("/moved"):
            return self.reply(302, b"", {"Location": "/file"})
        time.sleep(server.slow)
        if not self.path.partition("?" if server.any_query else "\0")[0].endswith("/file"):
            return self.reply(404, b"not here")
        body, start = server.body, 0
        range_ = self.headers.get("Range")
        if range_ and server.ranges and self.headers.get("If-Range") in (None, server.tag):
            start = int(range_.removeprefix("bytes=").rstrip("-"))
            if start >= len(body):
                return self.reply(416, b"", {"Content-Range": f"bytes */{len(body)}"})
        headers = {"ETag": server.tag} if server.tag else {}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        return self.reply(206 if start else 200, body[start:], headers, cut=fault)

    def reply(self, status: int, body: bytes, headers: dict | None = None, cut: str | None = None):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if cut:
            self.wfile.write(body[: int(cut.removeprefix("cut "))])
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        else:
            self.wfile.write(body)


@pytest.fixture
def server():
    found = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.asked, found.faults, found.body, found.ranges, found.tag, found.retry_after = [], [], BODY, True, None, None
    found.slow, found.any_query = 0.0, False
    found.url = f"http://127.0.0.1:{found.server_port}/file"
    thread = threading.Thread(target=found.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield found
    found.shutdown()
    found.server_close()


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def retry(waits) -> RetryPolicy:
    return RetryPolicy(timeout=5, retries=4, wait=waits.append)


def only(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")


def test_a_file_comes_whole_and_a_second_fetch_asks_nobody(server, tmp_path, retry):
    got = fetch(server.url, SHA, tmp_path / "raw/a.bin", work=tmp_path / "work", retry=retry)
    assert (tmp_path / "raw/a.bin").read_bytes() == BODY
    assert (got.size, got.sha256, got.origin) == (len(BODY), SHA, server.url)
    assert only(tmp_path) == ["a.bin"]
    fetch(server.url, SHA, tmp_path / "raw/a.bin", work=tmp_path / "work", retry=retry)
    assert len(server.asked) == 1
    (tmp_path / "raw/a.bin").write_bytes(b"edited")
    fetch(server.url, SHA, tmp_path / "raw/a.bin", work=tmp_path / "work", retry=retry)
    assert (tmp_path / "raw/a.bin").read_bytes() == BODY


def test_a_redirect_is_followed(server, tmp_path, retry):
    fetch(server.url.replace("/file", "/moved"), SHA, tmp_path / "a", retry=retry)
    assert (tmp_path / "a").read_bytes() == BODY


def test_cut_bodies_are_gone_on_from(server, tmp_path, retry, waits):
    server.faults = ["cut 2000000", "cut 1000000", 503]
    fetch(server.url, SHA, tmp_path / "a", retry=retry)
    assert (tmp_path / "a").read_bytes() == BODY
    assert [range_ for _, range_, _ in server.asked] == [None, "bytes=2000000-", "bytes=3000000-", "bytes=3000000-"]
    assert len(waits) == 3


def test_a_flaky_line_that_brings_some_each_time_is_not_given_up(server, tmp_path, waits):
    server.body = BODY * 2
    server.faults = ["cut 1200000"] * 7
    sha256 = hashlib.sha256(server.body).hexdigest()
    fetch(server.url, sha256, tmp_path / "a", retry=RetryPolicy(retries=2, wait=waits.append))
    assert len(waits) == 7
    assert max(waits) <= 1
    assert (tmp_path / "a").read_bytes() == server.body


def test_an_interrupted_process_leaves_what_came_and_the_next_goes_on(server, tmp_path):
    def give_up(_):
        raise KeyboardInterrupt

    server.faults = ["cut 3000000"]
    with pytest.raises(KeyboardInterrupt):
        fetch(server.url, SHA, tmp_path / "raw/a", work=tmp_path / "work", retry=RetryPolicy(wait=give_up))
    assert not (tmp_path / "raw/a").exists()
    fetch(server.url, SHA, tmp_path / "raw/a", work=tmp_path / "work")
    assert server.asked[-1][1] == "bytes=3000000-"
    assert (tmp_path / "raw/a").read_bytes() == BODY
    assert only(tmp_path / "work") == []


def test_a_server_without_ranges_sends_all_again(server, tmp_path, retry):
    server.ranges, server.faults = False, ["cut 2000000"]
    fetch(server.url, SHA, tmp_path / "a", retry=retry)
    assert (tmp_path / "a").read_bytes() == BODY


def test_an_unfinished_file_of_something_else_is_dropped(server, tmp_path, retry):
    part = tmp_path / f"{hashlib.sha256(server.url.encode()).hexdigest()[:20]}.part"
    for stale in (b"z" * 1000, b"z" * len(BODY), b"z" * (len(BODY) + 5)):
        part.write_bytes(stale)
        fetch(server.url, SHA, tmp_path / "a", retry=retry)
        assert (tmp_path / "a").read_bytes() == BODY
        (tmp_path / "a").unlink()


def test_waits_double_with_jitter_and_heed_the_server(server, tmp_path, retry, waits):
    server.faults = [503, 500, 429]
    fetch(server.url, SHA, tmp_path / "a", retry=retry)
    assert all(2**place / 10 <= wait <= 2**place for place, wait in enumerate(waits))
    (tmp_path / "a").unlink()
    waits.clear()
    server.faults, server.retry_after = [503, 429], "17"
    fetch(server.url, SHA, tmp_path / "a", retry=retry)
    assert waits == [17, 17]


def test_a_server_that_stays_down_is_given_up(server, tmp_path, retry, waits):
    server.faults = [503] * 100
    with pytest.raises(
        UserError, match=r"the server answers 503, after 5 tries\); expected the file with sha256 " + SHA
    ):
        fetch(server.url, SHA, tmp_path / "a", retry=retry)
    assert len(server.asked) == 5
    assert only(tmp_path) == []


def test_a_wrong_checksum_names_both_and_leaves_nothing(server, tmp_path, retry):
    server.body = b"<html>log in first</html>"
    with pytest.raises(UserError) as caught:
        fetch(server.url, SHA, tmp_path / "a", retry=retry)
    assert SHA in str(caught.value)
    assert hashlib.sha256(server.body).hexdigest() in str(caught.value)
    assert server.url in str(caught.value)
    assert len(server.asked) == 1  # the same wrong bytes are not asked for again and again
    assert only(tmp_path) == []


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_refusal_is_not_asked_again(server, tmp_path, retry, status):
    server.faults = [status]
    with pytest.raises(UserError, match=f"the server answers {status}"):
        fetch(server.url, SHA, tmp_path / "a", retry=retry)
    assert len(server.asked) == 1
    assert only(tmp_path) == []


def test_no_network_is_one_sentence_after_few_tries(tmp_path, retry, waits):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}/x"
    with pytest.raises(UserError, match=r"no connection .*check the address and the network, or put the file into a"):
        fetch(address, SHA, tmp_path / "a", retry=retry)
    assert len(waits) == 2
    assert only(tmp_path) == []


def test_a_silent_server_times_out(tmp_path, waits):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/x"
        with pytest.raises(UserError, match="no answer in time, after 2 tries"):
            fetch(address, SHA, tmp_path / "a", retry=RetryPolicy(timeout=0.2, retries=1, wait=waits.append))


def test_a_full_disk_is_told_apart_from_the_network(server, tmp_path, retry):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, limits[1]))  # writing beyond fails as on a full disk
    try:
        with pytest.raises(UserError, match=r"There is no room for .*\.part on the disk \(File too large\)"):
            fetch(server.url, SHA, tmp_path / "a", retry=retry)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not (tmp_path / "a").exists()
    fetch(server.url, SHA, tmp_path / "a", retry=retry)
    assert [range_ for _, range_, _ in server.asked] == [None, "bytes=3000000-"]
    assert (tmp_path / "a").read_bytes() == BODY


def test_a_place_that_cannot_be_written_is_named(server, tmp_path, retry):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"file/a cannot be written"):
        fetch(server.url, SHA, tmp_path / "file/a", retry=retry)
    assert server.asked == []


AT_ONCE = """
import sys
from pathlib import Path
from pipeline.download.sources import fetch
folder, addresses = Path(sys.argv[1]), sys.argv[2:]
print("ready", flush=True)
sys.stdin.readline()
for place, address in enumerate(addresses):
    fetch(address, None, folder / f"{address.split('?')[-1]}", record=folder / "checksums.json")
"""


def at_once(folder: Path, addresses: list[list[str]]) -> list[int]:
    """Exit codes of one process per list of addresses, all let go at the same moment."""
    command = [sys.executable, "-c", AT_ONCE, str(folder)]
    processes = [
        subprocess.Popen([*command, *some], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for some in addresses
    ]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        process.communicate()
    return [process.returncode for process in processes]


def test_processes_that_want_one_file_fetch_it_once(server, tmp_path):
    server.slow, server.any_query = 0.3, True
    assert at_once(tmp_path, [[f"{server.url}?a"]] * 3) == [0, 0, 0]
    assert len(server.asked) == 1
    assert (tmp_path / "a").read_bytes() == BODY


def test_processes_that_share_a_record_lose_no_checksum(server, tmp_path):
    server.body, server.any_query = b"small", True
    wanted = [[f"{server.url}?{process}{place}" for place in range(20)] for process in "abc"]
    assert at_once(tmp_path, wanted) == [0, 0, 0]
    assert len(json.loads((tmp_path / "checksums.json").read_text())) == 60


def test_a_lock_file_stays_where_it_is(server, tmp_path, retry):
    """Unlinking it while another process waits for it would let two in."""
    fetch(server.url, SHA, tmp_path / "a", work=tmp_path / "work", retry=retry)
    assert [path.suffix for path in (tmp_path / "work").iterdir()] == [".lock"]


@pytest.mark.parametrize("address", ["data/file", "ftp://x.org/a", "https://", "https://x.org/../../etc/passwd"])
def test_what_is_no_address_is_refused(tmp_path, address):
    with pytest.raises(UserError, match="is not an address that can be fetched"):
        fetch(address, SHA, tmp_path / "a")


def test_a_mirror_folder_is_asked_first_and_needs_no_network(tmp_path, retry):
    mirror = tmp_path / "mirror"
    (mirror / "nowhere.invalid/some dir").mkdir(parents=True)
    (mirror / "nowhere.invalid/some dir/file").write_bytes(BODY)
    got = fetch("https://nowhere.invalid/some%20dir/file", SHA, tmp_path / "a", mirror=str(mirror), retry=retry)
    assert (tmp_path / "a").read_bytes() == BODY
    assert got.origin.startswith(str(mirror))


def test_a_mirror_address_is_asked_first_with_host_and_path(server, tmp_path, retry):
    mirror = server.url.replace("/file", "/pub/")
    fetch("https://nowhere.invalid/some/file", SHA, tmp_path / "a", mirror=mirror, retry=retry)
    assert server.asked[0][0] == "/pub/nowhere.invalid/some/file"
    assert (tmp_path / "a").read_bytes() == BODY


@pytest.mark.parametrize("content", [None, b"old version"])
def test_a_mirror_without_the_right_file_is_passed_over(server, tmp_path, retry, content):
    host = tmp_path / "mirror" / server.url.split("/")[2]
    host.mkdir(parents=True)
    if content:
        (host / "file").write_bytes(content)
    got = fetch(server.url, SHA, tmp_path / "a", mirror=str(tmp_path / "mirror"), retry=retry)
    assert got.origin == server.url
    assert (tmp_path / "a").read_bytes() == BODY
    server.faults = [404]
    with pytest.raises(UserError) as caught:
        fetch(server.url, SHA, tmp_path / "b", mirror=str(tmp_path / "mirror"), retry=retry)
    assert "the mirror's" in str(caught.value)
    assert "the server answers 404" in str(caught.value)


def test_a_mirror_that_is_no_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="correct TESSERA_MIRROR or"):
        fetch("https://x.org/a", SHA, tmp_path / "a", mirror=str(tmp_path / "absent"))


def test_the_variable_goes_before_the_setting(monkeypatch):
    monkeypatch.delenv("TESSERA_MIRROR", raising=False)
    assert chosen_mirror(None) is None
    assert chosen_mirror("configured") == "configured"
    monkeypatch.setenv("TESSERA_MIRROR", "of the variable")
    assert chosen_mirror("configured") == "of the variable"


def test_a_file_without_a_checksum_is_held_to_its_first(server, tmp_path, retry):
    record = tmp_path / "checksums.json"
    fetch(server.url, None, tmp_path / "a", record=record, retry=retry)
    assert json.loads(record.read_text()) == {server.url: SHA}
    (tmp_path / "a").unlink()
    server.body = b"moved on"
    with pytest.raises(UserError, match=f"expected the file with sha256 {SHA}"):
        fetch(server.url, None, tmp_path / "a", record=record, retry=retry)
    record.write_text("[")
    with pytest.raises(UserError, match="is not JSON"):
        fetch(server.url, None, tmp_path / "a", record=record, retry=retry)


def test_without_a_checksum_a_changed_file_is_not_patched_together(server, tmp_path, retry):
    server.tag, server.faults = '"one"', ["cut 2000000"]

    def change(_):
        server.tag, server.body = '"two"', BODY[::-1]

    fetch(server.url, None, tmp_path / "a", retry=RetryPolicy(wait=change))
    assert server.asked[-1][2] == '"one"'
    assert (tmp_path / "a").read_bytes() == BODY[::-1]


def test_a_folder_is_copied_file_by_file(tmp_path):
    (tmp_path / "mine/deeper").mkdir(parents=True)
    with pytest.raises(UserError, match="holds no files"):
        copy_folder(tmp_path / "mine", tmp_path / "raw")
    (tmp_path / "mine/train.tsv").write_text("a\tr\tb\n")
    (tmp_path / "mine/.hidden").write_text("")
    assert copy_folder(tmp_path / "mine", tmp_path / "raw") == 1
    assert only(tmp_path / "raw") == ["train.tsv"]
    with pytest.raises(UserError, match="is not a folder"):
        copy_folder(tmp_path / "absent", tmp_path / "raw")


def test_the_pinned_files_of_params_are_those_of_the_mirror(mirror):
    from stages.params import load_params

    root = Path(__file__).resolve().parents[3]
    known = dict(line.split()[::-1] for line in (mirror / "SHA256SUMS").read_text().splitlines())
    pinned = [file for one in load_params(root / "params.yaml").graph.values() for file in one.files.values()]
    here = [file for file in pinned if f"./{file.address.removeprefix('https://')}" in known]
    assert len(here) >= 20
    for file in here:
        assert known[f"./{file.address.removeprefix('https://')}"] == file.sha256
        assert os.path.exists(mirror / file.address.removeprefix("https://"))
