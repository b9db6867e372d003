"""What goes wrong at users': no room, Ctrl-C, typing errors, missing and damaged files (more: tests/soak/faults.py).

The stages run as users run them, as programs; only then does what they print and how they end get looked at.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from pipeline import tables
from pipeline.encoding.encoders import learned, patches
from pipeline.encoding.store import KEY, Store, statuses
from pipeline.errors import UserError
from stages.ops.unlock import unlock
from tests.helpers import warm
from tests.helpers.clones import MINI, ROOT, TRANSE, command, environment, read_params, set_key, small
from trainers.training.checkpoint import Checkpoints


# --------------------------------------------------------------------------------------------------- a full disk
@pytest.fixture(params=["limit", "tmpfs"])
def no_room(request, tmp_path):
    """A folder, and what a program calls to have room for 200 kB there: by a limit of the process, or a real disk."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if request.param == "limit":
        yield folder, "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, -1))"
        return
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "none", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root can mount a disk of 400 kB")
    try:
        yield folder, f"open({str(folder / 'ballast')!r}, 'wb').write(bytes(200_000))"
    finally:
        subprocess.run(["umount", str(folder)], check=True)


WRITES = {
    "table": """
from pipeline import tables
def write(size):
    rows = np.random.default_rng(0).normal(size=(size, 100))
    columns = {"entity_id": np.arange(size, dtype=np.int32), "embedding": rows, "count": np.ones(size, dtype=np.int32)}
    tables.write(folder / "features.parquet", "features", columns, {})
""",
    "json": """
from pipeline import tables
def write(size):
    tables.write_json(folder / "audit.json", {"rows": ["x" * 400] * size})
""",
    "store": """
from pipeline.encoding.store import Store
def write(size):
    rows = np.random.default_rng(size).normal(size=(size, 100)).astype(np.float32)
    keys = [bytes([0, *divmod(one, 256)] * 10) + b"ab" for one in range(size)]
    Store(str(folder), "text", {"encoder": "a"}).write(keys, [np.zeros(1, np.int32)] * size, rows, np.ones(size))
""",
    "checkpoint": """
import torch
from trainers.training.checkpoint import Checkpoints
class Learner:
    optimizers, schedulers = {}, {}
def write(size):
    learner = Learner()
    learner.model = torch.nn.Linear(size, 100)
    Checkpoints(folder / "run").save(size, learner, {"epoch": size})
""",
}


@pytest.mark.parametrize("what", WRITES)
def test_no_room_is_a_sentence_and_nothing_is_torn(what, no_room):
    folder, limit = no_room
    code = f"""
import pathlib, sys
import numpy as np
from pipeline.errors import UserError
folder = pathlib.Path({str(folder)!r})
{WRITES[what]}
write(10)
{limit}
try:
    write(2000)
except UserError as error:
    print(error)
    sys.exit(7)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert done.returncode == 7, done.stderr
    assert done.stdout.count("\n") == 1
    assert "No space left" in done.stdout or "File too large" in done.stdout
    (folder / "ballast").unlink(missing_ok=True)
    names = {path.name for path in folder.rglob("*") if path.is_file()}
    assert not any(name.endswith(".part") for name in names), names
    if what == "table":
        assert len(tables.features(folder / "features.parquet")[0]) == 10
    if what == "json":
        assert len(json.loads((folder / "audit.json").read_text())["rows"]) == 10
    if what == "store":
        assert Store(str(folder), "text", {"encoder": "a"}).verify() == (10, [])
    if what == "checkpoint":
        assert Checkpoints(folder / "run").epochs() == [10]


@pytest.mark.parametrize("write", ["table", "text"])
def test_a_disk_that_fills_with_the_last_byte(write, tmp_path, monkeypatch):
    def put(text: str) -> None:
        if write == "text":
            tables.write_text(tmp_path / "out", text)
        else:
            tables.write(tmp_path / "out", "entities", {"entity_id": [0], "key": [text], "label": [text]}, {})

    def full(_: Path) -> None:
        raise OSError(28, os.strerror(28))

    put("first")
    before = (tmp_path / "out").read_bytes()
    monkeypatch.setattr(tables, "flush_to_disk", full)
    with pytest.raises(UserError, match=r"out cannot be written .No space left"):
        put("second")
    assert (tmp_path / "out").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


# ------------------------------------------------------------------------------------------------ what kills leave
@contextmanager
def asleep(code: str, *words: str, cwd: Path) -> Iterator[subprocess.Popen]:
    """A program that says a line when it is as far as it shall come, and is killed at the end."""
    program = [sys.executable, "-c", code, *words]
    with subprocess.Popen(program, cwd=cwd, env=environment(), stdout=subprocess.PIPE) as process:
        try:
            process.stdout.readline()
            yield process
        finally:
            process.kill()


def test_what_a_killed_writer_left_is_removed_and_a_living_ones_is_not(tmp_path):
    path = tmp_path / "text.json"
    code = f"""
import os, sys, time
from pathlib import Path
from pipeline import tables
with tables._beside(Path({str(path)!r})) as temporary:
    temporary.write_text("half")
    print("there", flush=True)
    time.sleep(600)
"""
    with asleep(code, cwd=ROOT):
        tables.write_json(path, {"whole": 1})
        assert len(list(tmp_path.iterdir())) == 2
    tables.write_json(path, {"whole": 2})
    assert [one.name for one in tmp_path.iterdir()] == ["text.json"]


def test_a_codebook_cut_short_in_the_store_is_learned_again(tmp_path, caplog):
    class Noise:
        keys = np.array([bytes([one]) * 32 for one in range(40)], dtype=KEY)

        def read(self, wanted, at_once):
            yield [(bytes(key), _picture(at)) for at, key in enumerate(self.keys)]

    settings = patches.Settings(codes=4, size=16, patch=8, sample=40)
    first = learned.learned(patches, settings, Noise(), str(tmp_path))["centroids"]
    kept = next(tmp_path.rglob("centroids.npy"))
    kept.write_bytes(kept.read_bytes()[:-100])
    again = learned.learned(patches, settings, Noise(), str(tmp_path))["centroids"]
    assert np.array_equal(first, again)
    assert "cut short" in caplog.text


def _picture(seed: int) -> bytes:
    import io

    from PIL import Image

    pixels = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "PNG")
    return sink.getvalue()


def test_a_store_whose_description_a_kill_cut_short_gets_it_back(tmp_path):
    for row in (1, 2):
        store = Store(str(tmp_path), "text", {"encoder": "a"})
        store.write([bytes([row]) * 32], [np.zeros(1, np.int32)], np.ones((1, 3), np.float32), np.ones(1))
        assert [fingerprint for fingerprint, _ in statuses(str(tmp_path), "text")] == [{"encoder": "a"}]
        described = next(tmp_path.rglob("fingerprint.json"))
        described.write_text(described.read_text()[:5])


@pytest.mark.parametrize(
    ("content", "removed"),
    [
        ("", 1),
        ('{"write": {"/a": {"pid": 1, "c', 1),
        ('{"write": [1]}', 1),
        ('{"write": {"/a": {"pid": 1, "cmd": "dvc repro"}}, "read": {"/b": [{"pid": 1, "cmd": "dvc"}]}}', 2),
        ('{"write": {"/a": {"pid": 999999999, "cmd": "dvc repro"}}, "read": {}}', 1),
        ("{}", 0),
    ],
)
def test_locks_of_a_killed_dvc_are_taken_back(content, removed, tmp_path):
    folder = tmp_path / ".dvc" / "tmp"
    folder.mkdir(parents=True)
    assert unlock(folder) == 0
    (folder / "rwlock").write_text(content)
    assert unlock(folder) == removed
    assert unlock(folder) == 0


def test_locks_of_a_living_dvc_stay(tmp_path):
    folder = tmp_path / ".dvc" / "tmp"
    folder.mkdir(parents=True)
    code = "import time; print(flush=True); time.sleep(600)"
    with asleep(code, "dvc", cwd=tmp_path) as living:
        locks = {"write": {"/a": {"pid": living.pid, "cmd": "dvc repro"}}, "read": {}}
        (folder / "rwlock").write_text(json.dumps(locks))
        assert unlock(folder) == 0
        assert json.loads((folder / "rwlock").read_text()) == locks
        (folder / "rwlock").write_text("{")
        with pytest.raises(UserError, match=f"process {living.pid}"):
            unlock(folder)


# ------------------------------------------------------------------------------------------ stages, run as programs
@pytest.fixture
def world(tmp_path):
    """The project's params.yaml and configs/, set to build little, and the files of mini; nothing is built yet."""
    shutil.copy2(ROOT / "params.yaml", tmp_path)
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    shutil.copytree(ROOT / "data" / "mini" / "source", tmp_path / "data" / "mini" / "source")
    small(tmp_path)
    return tmp_path


def stage(world: Path, name: str, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["python", "-m", f"stages.{name}", *arguments], cwd=world,
        env=warm.environment(environment(PYTHONPATH=str(ROOT))),
        capture_output=True, text=True,
    )  # fmt: skip


def refused(done: subprocess.CompletedProcess, *words: str) -> None:
    """The program ended with one sentence that holds these words."""
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1, done.stderr
    for word in words:
        assert word in done.stderr


def test_a_typing_error_in_params_names_line_and_nearest_key(world):
    text = (ROOT / "params.yaml").read_text().replace("\nseed: 0", "\nsede: 0")
    (world / "params.yaml").write_text(text)
    line = text.splitlines().index("sede: 0") + 1
    refused(stage(world, "check"), f"params.yaml, line {line}", "'sede'", "did you mean 'seed'?")
    assert not (world / "data" / "params.checked").exists()


@pytest.mark.parametrize(
    ("file", "path", "value", "words"),
    [
        (TRANSE, ("mini", "epohcs"), 3, ("'epohcs' in mini", "did you mean 'epochs'?")),
        (TRANSE, ("mini", "epochs"), 0, ("mini.epochs cannot be 0", "greater than or equal to 1")),
        (TRANSE, ("mini", "learning_rate"), float("nan"), ("mini.learning_rate", "finite")),
        (TRANSE, ("mini",), None, ("mini cannot be empty",)),
        ("params.yaml", ("models",), ["trnase"], ("'trnase'", "did you mean 'transe'?")),
        (MINI, ("splt",), "clean", ("'splt'", "did you mean 'split'?")),
    ],
)
def test_what_params_cannot_be(world, file, path, value, words, monkeypatch, capsys):
    from stages import check

    set_key(world, *path, value, file=file)
    monkeypatch.chdir(world)
    monkeypatch.setattr(sys, "argv", ["check"])
    with pytest.raises(SystemExit) as ended:
        check.main()
    said = capsys.readouterr().err
    assert ended.value.code == 1
    assert f"{file}, line " in said
    assert all(word in said for word in words), said


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("ingest", ("--graph", "mini"), ("data/mini/raw",)),
        ("ingest", ("--graph", "mni"), ("no graph 'mni'", "did you mean 'mini'?")),
        ("text", ("--graph", "mini"), ("entities.parquet is not there", "dvc repro")),
        ("train", ("--graph", "mini", "--model", "transe"), ("is not there", "dvc repro")),
        ("evaluate", ("--graph", "mini", "--model", "transe"), ("holds no run.json", "dvc repro")),
        ("ops.summary", (), ("test.json is not there", "dvc repro")),
    ],
)
def test_a_missing_file_or_block_is_named(world, name, arguments, words):
    refused(stage(world, name, *arguments), *words)
    assert sorted(path.name for path in (world / "data" / "mini").iterdir()) == ["source"]


@pytest.fixture
def ingested(world):
    """As `world`, ready to train: a model of the structure alone, many short epochs, a checkpoint after each."""
    params = read_params(world)
    assert params["models"] == ["transe"]
    few = {"epochs": 40, "dimension": 16, "batch_size": 4096, "negatives": 4}
    set_key(world, "mini", few, file=TRANSE)
    for key in ("evaluate_every", "checkpoint_every"):
        set_key(world, "train", key, 1)
    set_key(world, "train", "dev_sample", 50)
    set_key(world, "train", "patience", 0)
    for name in ("download", "ingest"):
        done = stage(world, name, "--graph", "mini")
        assert done.returncode == 0, done.stderr
    return world


TRAIN = ("train", "--graph", "mini", "--model", "transe")


def heeds_ctrl_c() -> None:
    """For a process to come: a shell's background jobs, these tests among them, may have been told to ignore it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def started(world: Path, checkpoints: int) -> subprocess.Popen:
    """Training that has written so many checkpoints."""
    process = subprocess.Popen([sys.executable, "-m", f"stages.{TRAIN[0]}", *TRAIN[1:]], cwd=world, text=True,
                               env=environment(PYTHONPATH=str(ROOT)), stderr=subprocess.PIPE,
                               preexec_fn=heeds_ctrl_c)  # fmt: skip
    while process.poll() is None and (not kept(world) or kept(world)[-1][0] < checkpoints):
        time.sleep(0.01)
    assert process.poll() is None, process.stderr.read()
    return process


def kept(world: Path) -> list[tuple[int, Path]]:
    found = (world / "data" / ".work" / "runs").glob("*/epoch-*")
    return sorted((int(path.name.removeprefix("epoch-")), path) for path in found)


def test_ctrl_c_and_a_checkpoint_cut_short_cost_nothing_but_time(ingested):
    assert stage(ingested, *TRAIN).returncode == 0
    weights = ingested / "runs" / "mini" / "transe" / "weights.safetensors"
    undisturbed = weights.read_bytes()
    shutil.rmtree(ingested / "runs")

    process = started(ingested, 2)
    process.send_signal(signal.SIGINT)
    said = process.stderr.read()
    assert process.wait() == 130
    assert "Traceback" not in said
    assert said.rstrip().endswith("stopped; run again to go on from here.")
    left = {path.name for path in (ingested / "runs").rglob("*") if path.is_file()}
    assert left <= {"history.csv"}, "nothing that looks like a trained run"
    assert kept(ingested), "what it goes on from"

    process = started(ingested, kept(ingested)[-1][0] + 2)
    process.kill()
    process.wait()
    process.stderr.close()
    epoch, newest = kept(ingested)[-1]
    os.truncate(newest / "tensors.safetensors", 1000)
    done = stage(ingested, *TRAIN)
    assert done.returncode == 0, done.stderr
    assert f"epoch-{epoch} cannot be read" in done.stderr
    assert "Going on after epoch" in done.stderr
    assert weights.read_bytes() == undisturbed
    assert not kept(ingested)


def test_a_second_process_does_not_train_the_same_run(ingested):
    set_key(ingested, "mini", "epochs", 100_000, file=TRANSE)
    process = started(ingested, 1)
    refused(stage(ingested, *TRAIN), f"Process {process.pid} is training this run already")
    assert process.poll() is None, "the first goes on"
    process.kill()
    process.wait()
    process.stderr.close()
    process = started(ingested, kept(ingested)[-1][0] + 1)  # the lock of a dead process holds nobody up
    process.send_signal(signal.SIGINT)
    assert "Going on after epoch" in process.stderr.read()
    process.wait()
    # The file stays, since an unlinked one would let two in.
    assert list((ingested / "data" / ".work").rglob("*.lock"))


def test_ctrl_c_while_a_stage_still_loads_is_no_traceback(world):
    words = [sys.executable, "-v", "-m", *(f"stages.{TRAIN[0]}", *TRAIN[1:])]  # -v tells of each import
    process = subprocess.Popen(
        words, cwd=world, env=environment(PYTHONPATH=str(ROOT)), stderr=subprocess.PIPE, text=True,
        preexec_fn=heeds_ctrl_c,
    )  # fmt: skip
    for line in process.stderr:
        if "import 'torch" in line:
            break
    process.send_signal(signal.SIGINT)
    said = [line for line in process.stderr if not line.startswith(("import ", "# ", "cleanup"))]
    assert process.wait() in (130, -signal.SIGINT)
    assert "Traceback" not in "".join(said)
    assert "stopped; run again" in "".join(said)


# --------------------------------------------------------------------------------------------------- a rotten cache
def test_verify_finds_what_the_cache_holds_wrongly(tmp_path):
    def dvc(*words: str) -> None:
        command(tmp_path, "dvc", *words)

    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    dvc("init", "-q")
    (tmp_path / "dvc.yaml").write_text(
        "stages: {one: {cmd: 'echo good > out; mkdir d; echo a > d/a', outs: [out, d]}}\n"
    )
    dvc("repro", "-q")
    done = stage(tmp_path, "ops.verify")
    assert done.returncode == 0, done.stderr
    assert "3 files in the cache, 0 damaged" in done.stderr

    held = next(
        path for path in (tmp_path / ".dvc/cache/files").rglob("*") if path.is_file() and path.read_bytes() == b"a\n"
    )
    held.chmod(0o644)
    held.write_bytes(b"b\n")
    held.chmod(0o444)
    done = stage(tmp_path, "ops.verify")
    assert done.returncode == 1
    assert "(d/a), set aside" in done.stderr
    assert not held.exists()
    shutil.rmtree(tmp_path / "d")
    dvc("repro", "-q")
    assert (tmp_path / "d/a").read_text() == "a\n"
    assert stage(tmp_path, "ops.verify").returncode == 0
