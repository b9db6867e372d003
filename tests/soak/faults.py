"""Faults, as they happen to users: kills, two at once, full disks, damaged files, months of use. Nothing may be lost.

    python -m tests.soak.faults                        all of it, with the numbers below; hours
    python -m tests.soak.faults kill --times 5         one part, fewer times

Each part works in a clone of this tree with the embedded graph, TransE and few epochs, and compares what it ends with
with an undisturbed run: contents of tables, bytes of weights, JSON without times and memory. Prints the table: fault,
times tried, survived, lost; the exit code is 1 if anything was lost.

kill    `make repro` is killed (SIGKILL, the whole process group) at random moments and run again
share   two `make repro` at once in two clones with one cache and one feature store
full    a disk (a small tmpfs) that fills up in download, encode and train; needs root
damage  files changed or cut short behind everybody's back
soak    repeated repros with random parameters: memory, open files and disk
"""

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.soak import damage, disk, soak
from tests.soak.tools import (
    Row,
    build,
    clone,
    copy,
    differs,
    fresh,
    kill,
    litter,
    must,
    set_key,
    snapshot,
    start,
    table,
    ugly,
)

TIMES = {"kill": 30, "share": 3, "full": 3, "damage": 1, "soak": 200}


def kills(work: Path, times: int, seed: int) -> list[Row]:
    """`make repro` killed at `times` moments; it is run again each time, and ends like one that was let be."""
    row = Row("SIGKILL of the whole pipeline at a random moment")
    folder = clone(work / "killed", epochs=40)
    # A checkpoint every other epoch: what is gone on from must be looked at too.
    for key in ("checkpoint_every", "evaluate_every"):
        set_key(folder, "train", key, 2)
    began = time.monotonic()
    must(build(folder))
    whole, expected = time.monotonic() - began, snapshot(folder)
    fresh(folder)
    dice, log = random.Random(seed), work / "killed.log"
    killed, stages = 0, []
    while killed < times:
        process = start(folder, log)
        moment = dice.uniform(0, whole / 2)
        began = time.monotonic()
        while process.poll() is None and time.monotonic() - began < moment:
            time.sleep(0.02)
        if process.poll() is None:
            kill(process, folder)
            killed += 1
            stages.append(_stage(log))
            continue
        _end_of_round(folder, expected, process.returncode, log, row, stages)
        stages = []
        fresh(folder)
    code, output = build(folder)
    log.write_text(output)
    _end_of_round(folder, expected, code, log, row, stages)
    return [row]


def _stage(log: Path) -> str:
    names = [line.split("'")[1] for line in log.read_text(errors="replace").splitlines() if "Running stage '" in line]
    return names[-1].split("@")[0] if names else "between stages"


def _end_of_round(folder: Path, expected: dict, code: int, log: Path, row: Row, stages: list[str]) -> None:
    """A run came to its end: every kill since the last end was survived, or one of them was not."""
    complaint = _complaint(folder, code, log, expected)
    print(f"  killed in: {', '.join(stages) or 'none'}", flush=True)
    for number in range(len(stages)):
        row.add(complaint if number == 0 else None)


def _complaint(folder: Path, code: int, log: Path, expected: dict[str, str]) -> str | None:
    """What is wrong with a `make repro` that came to its end; None if nothing."""
    output = log.read_text(errors="replace")
    if code:
        return f"exit code {code}: {output[-600:]}"
    return ugly(output) or differs(folder, expected) or litter(folder)


def shares(work: Path, times: int, seed: int) -> list[Row]:
    """Two clones, one cache, one store, `make repro` at once in both."""
    row = Row("two `make repro` at once, one cache and one store")
    expected = None
    first = clone(work / "first")
    for turn in range(times):
        place = work / f"group-{turn}"
        clones = [copy(first, place / name) for name in ("a", "b")]
        for one in clones:
            must(build(one, sys.executable, "-m", "stages.ops.share", str(place / "shared")))
        logs = [place / f"{one.name}.log" for one in clones]
        running = [start(one, log) for one, log in zip(clones, logs, strict=True)]
        codes = [process.wait() for process in running]
        expected = expected or snapshot(clones[0])
        complaints = [_complaint(*one, expected) for one in zip(clones, codes, logs, strict=True)]
        row.add(next(filter(None, complaints), None))
    return [row]


PARTS = {
    "kill": kills,
    "share": shares,
    "full": disk.full,
    "damage": damage.damages,
    "soak": soak.soak,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="*", default=list(PARTS), help=f"of {', '.join(PARTS)}; default: all")
    parser.add_argument("--times", type=int, help=f"how often; default: {TIMES}")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments and parameters")
    parser.add_argument("--work", type=Path, help="folder to work in, kept; default: a temporary one")
    options = parser.parse_args()
    if unknown := set(options.part) - set(PARTS):
        parser.error(f"there is no part {', '.join(unknown)}; known: {', '.join(PARTS)}")
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as temporary:
        work = (options.work or Path(temporary)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        for part in options.part:
            print(part, flush=True)
            rows += PARTS[part](work, options.times or TIMES[part], options.seed)
    print(table(rows))
    return 1 if any(row.lost for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
