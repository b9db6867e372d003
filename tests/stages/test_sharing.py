"""A group's storage, as its members meet it: what one clone has built, another takes, without running it again."""

import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import fsspec
import numpy as np
import pytest
import yaml

from pipeline.encoding.store import KEY, CorruptPart, Store, StoreFailure, key_of
from tests.helpers.clones import clone, command, ran, repro, set_key, share

CHEAP = {"check", "describe"}  # they have no output in the cache, so each clone runs them once, in seconds

pytestmark = pytest.mark.slow


def takes_all(folder: Path, **environment: str) -> None:
    """A second clone gets everything without running it."""
    began = time.monotonic()
    assert ran(repro(folder, **environment)) <= CHEAP
    print(f"everything taken in {time.monotonic() - began:.1f} s")
    assert (folder / "reports" / "index.html").stat().st_size > 10_000
    assert (folder / "runs" / "mini" / "transe" / "test.json").exists()


def changes_one(folder: Path, **environment: str) -> None:
    """Another text encoder runs only what follows from it, and changing back runs nothing."""
    set_key(folder, "text", "encoder", "other")
    again = ran(repro(folder, **environment))
    assert {"encode_text", "report"} <= again
    assert again <= CHEAP | {"encode_text", "train", "evaluate", "shown_graph", "shown_run", "report"}
    set_key(folder, "text", "encoder", "minilm")
    began = time.monotonic()
    assert ran(repro(folder, **environment)) <= CHEAP
    print(f"changed back in {time.monotonic() - began:.1f} s")


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """Clone A, which has built everything, into a shared folder."""
    base = tmp_path_factory.mktemp("group")
    folder = clone(base / "a", rows=False)
    share(folder, str(base / "shared"))
    assert {"encode_text", "encode_images", "train", "evaluate"} <= ran(repro(folder))
    return folder


def test_a_shared_folder(first, tmp_path):
    second = clone(tmp_path / "b")
    share(second, str(first.parent / "shared"))
    takes_all(second)
    changes_one(second)


def test_nothing_runs_when_nothing_changed(first):
    assert ran(repro(first)) == set()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port: int, process: subprocess.Popen) -> None:
    for _ in range(100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert process.poll() is None, "the server ended"
        time.sleep(0.1)
    raise AssertionError("the server does not answer")


@pytest.fixture
def s3(tmp_path, monkeypatch):
    """A server that speaks S3 over HTTP, with an empty bucket; where it is, and the environment to reach it."""
    server = shutil.which("moto_server", path=str(Path(sys.executable).parent))
    if server is None:
        pytest.skip("no S3 server: moto[server] is not installed")
    port = free_port()
    with (
        open(tmp_path / "s3.log", "wb") as log,
        subprocess.Popen([server, "-p", str(port)], stdout=log, stderr=log) as process,
    ):
        try:
            wait_for(port, process)
            environment = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_ACCESS_KEY_ID": "a",
                           "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1"}  # fmt: skip
            for name, value in environment.items():
                monkeypatch.setenv(name, value)
            import boto3

            boto3.client("s3").create_bucket(Bucket="group")
            yield "s3://group/tessera", environment
        finally:
            process.terminate()


@pytest.mark.server
def test_an_s3_server(first, tmp_path, s3):
    place, environment = s3
    through_a_remote(first, tmp_path, place, environment)
    # What a change does, with a remote set: the same for every kind of remote, so it is looked at with one of them.
    changes_one(tmp_path / "b", **environment)


@pytest.fixture
def sshd(tmp_path, monkeypatch):
    """A real SSH server on loopback that lets this user in with a key; where it is, and the key."""
    program = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin")
    if program is None:
        pytest.skip("no SSH server: openssh-server is not installed")
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / name)], check=True)
    port = free_port()
    (tmp_path / "authorized").write_text((tmp_path / "user.pub").read_text())
    config = tmp_path / "sshd_config"
    config.write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {tmp_path / 'host'}\nPidFile none\nStrictModes no\n"
        f"AuthorizedKeysFile {tmp_path / 'authorized'}\nPasswordAuthentication no\nUsePAM no\n"
        "PermitRootLogin prohibit-password\nSubsystem sftp internal-sftp\nMaxSessions 100\nMaxStartups 100\n"
    )
    Path("/run/sshd").mkdir(exist_ok=True)  # where the program wants to give up its rights
    with (
        open(tmp_path / "sshd.log", "wb") as log,
        subprocess.Popen([program, "-D", "-e", "-f", config], stderr=log) as process,
    ):
        try:
            wait_for(port, process)
            yield port, tmp_path / "user"
        finally:
            process.terminate()


@pytest.mark.server
def test_a_real_ssh_server(first, tmp_path, sshd):
    port, key = sshd
    (tmp_path / "remote").mkdir()
    user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
    place = f"ssh://{user}@127.0.0.1:{port}{tmp_path / 'remote'}"
    through_a_remote(first, tmp_path, place, {}, keyfile=str(key))


@pytest.fixture
def webdav(tmp_path):
    """A WebDAV server on loopback that asks for a name and a password; where it is."""
    program = shutil.which("wsgidav", path=str(Path(sys.executable).parent))
    if program is None:
        pytest.skip("no WebDAV server: wsgidav is not installed")
    pytest.importorskip("dvc_webdav", reason="the extra webdav is not installed")
    (tmp_path / "files").mkdir()
    port = free_port()
    config = tmp_path / "wsgidav.yaml"
    config.write_text(
        yaml.safe_dump(
            {
                "host": "127.0.0.1", "port": port, "server": "cheroot", "logging": {"enable": False},
                "provider_mapping": {"/": str(tmp_path / "files")},
                "http_authenticator": {"domain_controller": None, "accept_digest": False},
                "simple_dc": {"user_mapping": {"*": {"me": {"password": "secret"}}}},
            }
        )
    )  # fmt: skip
    with (
        open(tmp_path / "webdav.log", "wb") as log,
        subprocess.Popen([program, "--config", str(config)], stdout=log, stderr=log) as process,
    ):
        try:
            wait_for(port, process)
            yield f"webdav://127.0.0.1:{port}/group/tessera"
        finally:
            process.terminate()


@pytest.mark.server
def test_a_webdav_server(first, tmp_path, webdav):
    with pytest.raises(AssertionError, match=r"cannot be made .*401"):
        share(first, webdav)
    (tmp_path / "webdav.json").write_text('{"webdav": {"auth": ["me", "secret"]}}')
    environment = {"FSSPEC_CONFIG_DIR": str(tmp_path)}
    through_a_remote(first, tmp_path, webdav, environment, user="me", password="secret")


@pytest.mark.server
def test_a_feature_store_on_webdav(tmp_path, webdav, monkeypatch):
    login = {"auth": ["me", "secret"]}
    monkeypatch.setitem(fsspec.config.conf, "webdav", login)
    keys = np.array([key_of("a"), key_of("b"), key_of("c")], dtype=KEY)
    rows = [np.array([1, 2]), np.array([3])], np.ones((2, 4), dtype=np.float32), np.array([1, 1])
    part = Store(f"{webdav}/store", "text", {"family": "f"}).write([key_of("a"), key_of("b")], *rows)
    other = Store(f"{webdav}/store", "text", {"family": "f"})
    assert other.find(keys).known.tolist() == [True, True, False]
    assert other.read(part)["token_ids"].to_pylist() == [[1, 2], [3]]
    path = next((tmp_path / "files").rglob(f"{part}.parquet"))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(CorruptPart):
        other.read(part)
    assert other.status()["quarantined"] == 1
    login["auth"] = ["me", "wrong"]
    with pytest.raises(StoreFailure, match="Cannot list the store webdav://"):
        Store(f"{webdav}/store", "text", {"family": "f"}).find(keys)


def through_a_remote(first: Path, folder: Path, place: str, environment: dict, **login: str) -> None:
    """Clone A pushes to an address; clone B, which shares nothing else with it, takes everything from there."""
    for one in (first, clone(folder / "b", rows=False)):
        share(one, place, **environment)
        # The feature store has a test of its own; here every clone keeps its own, so that only the remote can help.
        set_key(one, "store", "data/.store")
        for name, value in login.items():
            command(one, "dvc", "remote", "modify", "--local", "shared", name, value)
    command(first, "dvc", "push", "--run-cache", "-q", **environment)
    takes_all(folder / "b", **environment)
