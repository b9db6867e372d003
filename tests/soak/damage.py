"""Files changed or cut short behind everybody's back: noticed, named, and made again or refused."""

import random
import re
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.soak.tools import Row, build, clone, differs, fresh, kill, litter, must, set_key, snapshot, start, ugly


def damages(work: Path, times: int, seed: int) -> list[Row]:
    """Each damage `times` times, each followed by `make repro`."""
    dice = random.Random(seed)
    folder = clone(work / "damaged", epochs=40)
    for key in ("checkpoint_every", "evaluate_every"):
        set_key(folder, "train", key, 2)
    must(build(folder))
    expected = snapshot(folder)
    rows = []
    for harm in (*FILES, *OTHERS):
        row = Row(harm.__doc__.rstrip("."))
        for _ in range(times):
            harm(folder, dice)
            complaint = _not_found(folder) if harm in ROTTEN else None
            code, output = build(folder)
            complaint = complaint or (f"exit code {code}: {output[-600:]}" if code else ugly(output))
            row.add(complaint or differs(folder, expected) or litter(folder))
            if row.lost:
                fresh(folder)
                must(build(folder))
        rows.append(row)
    return rows


def _not_found(folder: Path) -> str | None:
    """What DVC does not see by itself `make verify` must name; a complaint if it does not."""
    code, output = build(folder, "make", "verify", "VENV=")
    return None if code and "set aside" in output and not ugly(output) else f"make verify: {output[-600:]}"


def cut(path: Path, dice: random.Random) -> None:
    """Cut a file short, whatever its rights and links."""
    content = path.read_bytes()
    path.chmod(0o644)
    path.unlink()
    path.write_bytes(content[: dice.randrange(len(content))])


def _cached(folder: Path, out: str) -> Path:
    """Where DVC's cache keeps the file or folder `out`, by dvc.lock."""
    text = (folder / "dvc.lock").read_text()
    md5 = re.search(rf"path: {re.escape(out)}\n\s+hash: md5\n\s+md5: ([0-9a-f]+)(\.dir)?", text)
    return folder / ".dvc" / "cache" / "files" / "md5" / md5[1][:2] / (md5[1][2:] + (md5[2] or ""))


def _rewrite(path: Path, mode: int) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.chmod(0o644)
    path.write_bytes(content)
    path.chmod(mode)


def cache_changed(folder: Path, dice: random.Random) -> None:
    """a file in DVC's cache changed, the output gone."""
    _rewrite(_cached(folder, "data/mini/text.parquet"), 0o644)
    (folder / "data/mini/text.parquet").unlink()


def cache_rotten(folder: Path, dice: random.Random) -> None:
    """a file in DVC's cache changed without its rights (bit rot, or root); `make verify`."""
    _rewrite(_cached(folder, "data/mini/text.parquet"), 0o444)
    (folder / "data/mini/text.parquet").unlink()


def weights_rotten(folder: Path, dice: random.Random) -> None:
    """weights in DVC's cache changed without their rights; `make verify`."""
    _rewrite(_cached(folder, "runs/mini/transe/weights.safetensors"), 0o444)
    shutil.rmtree(folder / "runs")


def table_cut(folder: Path, dice: random.Random) -> None:
    """a table cut short in the workspace."""
    cut(folder / "data/mini/graph/triples.parquet", dice)


def features_cut(folder: Path, dice: random.Random) -> None:
    """a feature table cut short in the workspace."""
    cut(folder / "data/mini/encoded/text/features.parquet", dice)


def weights_cut(folder: Path, dice: random.Random) -> None:
    """weights cut short in the workspace."""
    cut(folder / "runs/mini/transe/weights.safetensors", dice)


def about_cut(folder: Path, dice: random.Random) -> None:
    """run.json cut short in the workspace."""
    cut(folder / "runs/mini/transe/run.json", dice)


ROTTEN = (cache_rotten, weights_rotten)
FILES: tuple[Callable, ...] = (cache_changed, *ROTTEN, table_cut, features_cut, weights_cut, about_cut)


def part_cut(folder: Path, dice: random.Random) -> None:
    """parts of the feature store cut short, the tables gone."""
    for path in (folder / "data/.store").rglob("parts/*.parquet"):
        cut(path, dice)
    _forget(folder, "encoded")


def codebook_cut(folder: Path, dice: random.Random) -> None:
    """a learned codebook in the feature store cut short, the tables gone."""
    for path in (folder / "data/.store").rglob("centroids.npy"):
        cut(path, dice)
    _forget(folder, "encoded")


def checkpoint_cut(folder: Path, dice: random.Random) -> None:
    """the newest checkpoint cut short after a kill in training."""
    _forget(folder)
    shutil.rmtree(folder / "runs")
    process = start(folder, folder.parent / "checkpoint.log", sys.executable, "-m", "stages.train",
                    "--graph", "mini", "--model", "transe")  # fmt: skip
    while process.poll() is None and len(_checkpoints(folder)) < 2:
        time.sleep(0.01)
    kill(process, folder)
    newest = _checkpoints(folder)[-1]
    cut(newest / dice.choice(["tensors.safetensors", "rest.json"]), dice)


def lock_torn(folder: Path, dice: random.Random) -> None:
    """DVC's file of locks cut short by a kill."""
    (folder / ".dvc/tmp/rwlock").write_text('{"write": {"/a": {"pid": 1, "c')


def lock_of_another(folder: Path, dice: random.Random) -> None:
    """a lock of a killed DVC whose process number another program has got."""
    path = folder / "data/mini/text.parquet"
    (folder / ".dvc/tmp/rwlock").write_text(
        f'{{"write": {{"{path}": {{"pid": 1, "cmd": "dvc repro"}}}}, "read": {{}}}}'
    )
    path.unlink()


OTHERS = (part_cut, codebook_cut, checkpoint_cut, lock_torn, lock_of_another)


def _checkpoints(folder: Path) -> list[Path]:
    found = (folder / "data/.work/runs").glob("*/epoch-*")
    return sorted(found, key=lambda path: int(path.name.removeprefix("epoch-")))


def _forget(folder: Path, *names: str) -> None:
    """Make DVC forget all results, so that the stages run again instead of being taken from its cache."""
    for name in names:
        shutil.rmtree(folder / "data/mini" / name)
    shutil.rmtree(folder / ".dvc/cache/runs")
    (folder / "dvc.lock").unlink()
