"""A disk that fills up: the project on a small tmpfs, with just so much room left."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.soak.tools import Row, build, clone, copy, differs, litter, must, set_key, snapshot, ugly

SIZE = 256 << 20  # bytes of the disk
# What is tried to be built with too little room, and what must stand before it.
STAGES = {
    "download": (["download@mini"], []),
    "encode": (["encode_text@mini", "encode_images@mini"], ["text@mini", "images@mini"]),
    "train": (["train@mini-transe"], ["encode_text@mini", "encode_images@mini"]),
}


def full(work: Path, times: int, seed: int) -> list[Row]:
    """Download, encode and train with 0 bytes of room and with two amounts that last a while."""
    rows = {name: Row(f"no disk space in {name}") for name in STAGES}
    reference = clone(work / "roomy", epochs=20)
    set_key(reference, "train", "checkpoint_every", 1)
    must(build(reference))
    expected = snapshot(reference)
    with _small_disk(work / "disk") as disk:
        if disk is None:
            return [Row(f"{row.fault} (skipped: only root can mount a tmpfs)") for row in rows.values()]
        for turn in range(times):
            folder = copy(reference, disk / f"clone-{turn}")
            for name, (targets, before) in STAGES.items():
                if before:
                    must(_repro(folder, before))
                rows[name].add(_too_little(folder, disk, targets, turn))
            must(_repro(folder, ["train@mini-transe"]))
            complaint = (
                differs(folder, expected) if not (done := build(folder))[0] else f"cannot go on: {done[1][-600:]}"
            )
            for name in STAGES if complaint or litter(folder) else ():
                rows[name].lost += 1
                rows[name].notes.append(complaint or litter(folder))
                print("   ", rows[name].notes[-1], flush=True)
            shutil.rmtree(folder)
    return list(rows.values())


def _too_little(folder: Path, disk: Path, targets: list[str], turn: int) -> str | None:
    """Run targets with too little room, then with enough. What is wrong with what happened; None if nothing."""
    ballast = disk / "ballast"
    room, failed = [0, 64 << 10, 160 << 10][turn % 3], False  # what any of the stages writes is more than the last
    for left in (room, room * 4 + (32 << 10)):
        _fill(ballast, disk, left)
        code, output = _repro(folder, targets)
        ballast.unlink()
        if code:
            failed = True
            if ugly(output):
                return f"with {left:,} bytes left: {ugly(output)}"
            if "error: " not in output.lower():
                return f"with {left:,} bytes left no sentence: {output[-400:]}"
            print("   ", [line for line in output.splitlines() if "error: " in line.lower()][:2], flush=True)
    code, output = _repro(folder, targets)
    if code:
        return f"does not go on when there is room: {output[-600:]}"
    return None if failed else "never ran out of room: nothing was tried"


def _repro(folder: Path, targets: list[str]) -> tuple[int, str]:
    """What `make repro` does, up to some stages."""
    steps = ("python -m stages.check", "python -m stages.ops.unlock", f"dvc repro {' '.join(targets)}")
    return build(folder, "sh", "-c", " && ".join(steps))


def _fill(ballast: Path, disk: Path, left: int) -> None:
    """Take all of the disk but `left` bytes."""
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
    with open(ballast, "wb") as handle:
        os.posix_fallocate(handle.fileno(), 0, max(free - left, 1))


@contextmanager
def _small_disk(folder: Path) -> Iterator[Path | None]:
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "none", str(folder)], capture_output=True)
    if done.returncode:
        yield None
        return
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)
