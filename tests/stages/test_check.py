"""The check reads models and encoders, and so PyTorch, only where something it rests on changed."""

import subprocess
import sys

import pytest

from stages import settled
from tests.helpers.clones import TRANSE, attempt, clone, command, environment, set_key

CODE = "import sys; from stages import check; sys.argv = ['check']; check.main(); print('torch' in sys.modules)"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = clone(tmp_path_factory.mktemp("checked") / "clone")
    assert checked(folder)
    return folder


def checked(folder) -> bool:
    """Check; whether it took all that it reads, and not only a look at what changed."""
    done = subprocess.run(
        [sys.executable, "-c", CODE], cwd=folder, env=environment(), capture_output=True, text=True, check=True
    )
    return {"True": True, "False": False}[done.stdout.strip()]


def test_what_has_been_checked_is_not_checked_again(folder):
    assert not checked(folder)
    answers = folder / "data/mini/web"
    answers.mkdir(parents=True)
    assert not checked(folder)
    version = folder / "data/.code/models/transe.txt"
    before = version.read_text()
    version.unlink()
    assert checked(folder)
    assert version.read_text() == before
    answers.rmdir()  # with them goes what made a contact needless
    assert checked(folder)
    with open(folder / "trainers/models/transe.py", "a") as file:
        file.write("\n_more = 1\n")
    assert checked(folder)
    assert version.read_text() != before


def test_what_is_saved_during_a_check_has_not_been_checked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text("seed: 0\n")
    read = settled.digest()
    (tmp_path / "params.yaml").write_text("seed: 1\n")
    settled.settle(read)
    assert not settled.settled(settled.digest())
    (tmp_path / "params.yaml").write_text("seed: 0\n")
    assert settled.settled(settled.digest())


@pytest.mark.parametrize("spoilt", [b"", b"one line alone", b"\xff\xfe\n\xff\n"])
def test_what_was_kept_and_cannot_be_read_is_checked_again(tmp_path, monkeypatch, spoilt):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text("seed: 0\n")
    settled.settle(settled.digest())
    assert settled.settled(settled.digest())
    settled.KEPT.write_bytes(spoilt)
    assert not settled.settled(settled.digest())


def test_dvc_does_not_check_again_what_was_just_checked(folder):
    checked(folder)
    kept = folder / "data/.checked/settled"
    before = kept.stat().st_mtime_ns
    assert "Running stage 'check'" in command(folder, "dvc", "repro", "check")
    assert kept.stat().st_mtime_ns == before


def test_a_change_for_the_worse_is_refused_each_time(folder):
    set_key(folder, "mini", "epochs", 0, file=TRANSE)
    for _ in range(2):
        code, said = attempt(folder, "python", "-m", "stages.check")
        assert (code, "mini.epochs cannot be 0" in said) == (1, True), said
