"""Months of use in an hour: repeated repros with random parameters. Memory, open files and disk stay flat."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

from tests.soak.tools import MINI, TRANSE, Row, build, clone, environment, must, set_key, size

FLAT = ("data/.store", "data/.work", "data/mini", "runs", "reports", ".dvc/tmp")
ALLOWED = 0.1  # of growth, over that of the first tenth, which fills caches


def soak(work: Path, times: int, seed: int) -> list[Row]:
    """`times` repros of random parameters in one clone, then as many runs of the stages in one process."""
    folder = clone(work / "soaked")
    for split, encoder in ((1, "other"), (2, "minilm"), (0, "minilm")):  # every row that the store will ever hold
        set_key(folder, "split_seed", split, file=MINI)
        set_key(folder, "text", "encoder", encoder)
        must(build(folder))
    return [_repros(folder, times, random.Random(seed)), _stages(folder, times, seed)]


def choose(folder: Path, dice: random.Random) -> None:
    """Random seed, epochs, learning rate, encoder and split: every stage after ingest has to run now and then."""
    set_key(folder, "seed", dice.randrange(10**6))
    set_key(folder, "mini", "epochs", dice.choice([1, 1, 2]), file=TRANSE)
    set_key(folder, "text", "encoder", dice.choice(["minilm", "minilm", "other"]))
    set_key(folder, "split_seed", dice.choice([0, 0, 0, 1, 2]), file=MINI)


def _repros(folder: Path, times: int, dice: random.Random) -> Row:
    """Disk and the largest memory of any process, over repros."""
    row = Row("soak: repeated `dvc repro` with random parameters")
    seen: list[dict[str, int]] = []
    for turn in range(times):
        choose(folder, dice)
        code, output, peak = _measured(folder, "dvc", "repro", "-q")
        row.add(f"exit code {code}: {output[-400:]}" if code else None)
        seen.append({**size(folder, *FLAT), "memory": peak, "cache": size(folder, ".dvc/cache")[".dvc/cache"]})
        if turn % 10 == 9:
            print("   ", {name: f"{value / 2**20:.1f} MiB" for name, value in seen[-1].items()}, flush=True)
    _judge(row, seen)
    return row


def _judge(row: Row, seen: list[dict[str, int]]) -> None:
    """Everything but the cache, which rightly keeps each result, ends where it was after the first tenth."""
    early = seen[: max(len(seen) // 10, 2)]
    late = seen[-max(len(seen) // 10, 1) :]
    for name in seen[0]:
        before, after = max(one[name] for one in early), max(one[name] for one in late)
        row.notes.append(f"{name}: {before:,} -> {after:,} after {len(seen)}")
        if name != "cache" and after > before * (1 + ALLOWED) + (1 << 20):
            row.lost += 1
            row.notes[-1] += " GROWS"


def _measured(folder: Path, *words: str) -> tuple[int, str, int]:
    """Exit code, output, and the largest resident set of any process, in bytes."""
    code = (
        "import resource, subprocess, sys\n"
        "done = subprocess.run(sys.argv[1:])\n"
        "print('PEAK', resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n"
        "sys.exit(done.returncode)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=folder, env=environment(), text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip
    output, _, peak = done.stdout.rpartition("PEAK ")
    return done.returncode, output, int(peak) * 1024


def _stages(folder: Path, times: int, seed: int) -> Row:
    """The stages' mains over and over in one process: what one call leaves behind, the next would carry."""
    row = Row("soak: the stages repeated in one process")
    done = subprocess.run([sys.executable, __file__, str(folder), str(times), str(seed)], cwd=folder, text=True,
                          env=environment(PYTHONPATH=str(folder)), stdout=subprocess.PIPE)  # fmt: skip
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    row.tries = len(lines)
    if done.returncode or len(lines) < times:
        row.lost += 1
        row.notes.append(f"ended with {done.returncode} after {len(lines)} of {times}")
    if lines:
        _judge(row, lines)
    return row


def _in_one_process(folder: Path, times: int, seed: int) -> None:
    """Prints a line of JSON a turn: open files and resident memory."""
    from pipeline.modalities import MODALITIES
    from stages import encode, evaluate, ingest, text, train
    from stages.report import __main__ as report

    dice = random.Random(seed)
    graph, model = ["--graph", "mini"], ["--graph", "mini", "--model", "transe"]
    for _ in range(times):
        choose(folder, dice)
        encodings = [(encode, [*graph, "--modality", name]) for name in MODALITIES]
        turn = [(ingest, graph), (text, graph), *encodings, (train, model), (evaluate, model), (report, [])]
        for stage, arguments in turn:
            sys.argv = [stage.__name__, *arguments]
            stage.main()
        with open("/proc/self/statm") as handle:
            memory = int(handle.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        print("\n" + json.dumps({"open files": len(os.listdir("/proc/self/fd")), "memory": memory}), flush=True)


if __name__ == "__main__":
    _in_one_process(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
