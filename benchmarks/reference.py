"""Our training step beside that of the authors' code and of PyKEEN, in turn, on this machine: docs/speed.md.

    python -m benchmarks.reference --reference DIR [--cases mygo rotate] [--rounds 2] [--steps 3]

DIR holds checkouts of zjukg/AdaMF-MAT, zjukg/MoMoK and zjukg/MyGO, named so; what is not there is left out, and so is
PyKEEN where it is not installed. Each side runs in a process of its own with `--threads` threads, theirs and ours in
turn, after a step to warm up; processor seconds count, since other work on the machine disturbs them less, and wall
seconds stand beside. Each ratio is of one run of this command. Nothing here knows a number from anywhere else.

Writes docs/speed.md and benchmarks/results/speed.json with the machine and its ceilings (benchmarks.train_step); with
`--cases` or without DIR, what other cases had in the file is kept if it is of this machine.
"""

import argparse
import importlib
import importlib.util
import itertools
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks import reference_steps as theirs
from benchmarks.step_cost import DB15K, random_triples
from pipeline import tables
from stages.params import load_params
from stages.params.models import model_settings
from trainers.about import module_of
from trainers.training.data import Data

PAGE, FIGURES = Path("docs/speed.md"), Path("benchmarks/results/speed.json")
CASES = ("adamf_mat", "mygo", "momok", "rotate", "complex", "transe", "distmult", "tucker")
CPU = torch.device("cpu")


def main() -> None:
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    if arguments.worker:
        print(json.dumps(measured(*arguments.worker.split(":"), arguments)))
        return
    known = json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.exists() else {}
    found = known.get("cases", {}) if known.get("machine") == machine(arguments.threads) else {}
    for case in arguments.cases:
        if side_of(case, arguments.reference) is not None:
            found[case] = compared(case, arguments)
            print(line(case, found[case]), flush=True)
            figures = {"machine": machine(arguments.threads), "ceilings": ceilings(), "cases": found}
            tables.write_json(FIGURES, figures)
            tables.write_text(PAGE, page(figures))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=Path, help="folder of the authors' checkouts")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--rounds", type=int, default=2, help="how often each side takes its turn")
    parser.add_argument("--steps", type=int, default=3, help="timed steps a turn, after one to warm up")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser.parse_args()


def side_of(case: str, folder: Path | None) -> str | None:
    """Whom a case is compared with, if that is here."""
    if case in theirs.AUTHORS:
        return "authors" if folder and (folder / theirs.AUTHORS[case][0]).is_dir() else None
    return "PyKEEN" if importlib.util.find_spec("pykeen") else None


def compared(case: str, arguments: argparse.Namespace) -> dict:
    """Both sides in turn: their steps' processor and wall seconds, and peak memory."""
    sides: dict[str, list[dict]] = {"theirs": [], "ours": []}
    for _ in range(arguments.rounds):
        for side, turns in sides.items():
            command = [sys.executable, "-m", "benchmarks.reference", "--worker", f"{case}:{side}"]
            command += ["--steps", str(arguments.steps), "--threads", str(arguments.threads)]
            command += ["--reference", str(arguments.reference)] if arguments.reference else []
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                sys.exit(f"{case}, {side} failed:\n{done.stderr[-3000:]}")
            turns.append(json.loads(done.stdout.splitlines()[-1]))
    return {"against": side_of(case, arguments.reference), **{side: summed(turns) for side, turns in sides.items()}}


def summed(turns: list[dict]) -> dict:
    """The medians over all steps of all turns, how far processor seconds lie apart, and the largest peak."""
    busy, wall = ([one for turn in turns for one in turn[name]] for name in ("busy", "wall"))
    return {
        "busy": statistics.median(busy), "wall": statistics.median(wall), "least": min(busy), "most": max(busy),
        "steps": len(busy), "peak": max(turn["peak"] for turn in turns),
    }  # fmt: skip


def measured(case: str, side: str, arguments: argparse.Namespace) -> dict:
    """One turn of one side."""
    torch.manual_seed(0)
    if side == "theirs" and case in theirs.PYKEEN:
        times = theirs.pykeen_clock(case, 1 + arguments.steps, now)
    elif side == "theirs":
        name, make = theirs.AUTHORS[case]
        times = clocked(make(arguments.reference / name), 1 + arguments.steps)
    else:
        learner = ours(case)
        batches = iter(learner.batches(0))
        times = clocked(lambda: learner.step(next(batches)), 1 + arguments.steps)
    each = [[after - before for before, after in itertools.pairwise(one[1:])] for one in zip(*times, strict=True)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {"busy": each[0], "wall": each[1], "peak": peak}


def now() -> tuple[float, float]:
    return time.process_time(), time.perf_counter()


def clocked(step: theirs.Step, steps: int) -> list[tuple[float, float]]:
    times = [now()]
    for _ in range(steps):
        step()
        times.append(now())
    return times


def ours(case: str):
    """Our learner at the same sizes."""
    module, generator = module_of(case), torch.Generator().manual_seed(0)
    if case in theirs.AUTHORS:
        cost = importlib.import_module(f"benchmarks.step_cost.{case}")
        data, settings = cost.data(generator), cost.settings()
    else:
        train = random_triples(generator, DB15K["entities"], DB15K["relations"], 20 * theirs.BATCH)
        data = Data("random", DB15K["entities"], DB15K["relations"], train, train[:1], train[:1], {}, {})
        settings = replace(model_settings(load_params(), case), **settings_of(case))
    model = module.build(data, settings, generator)
    learner = module.Learner(model, data, settings, device=CPU, precision=torch.float32, seed=0)
    learner.model.train()
    return learner


def settings_of(case: str) -> dict:
    """What PyKEEN's side is given too."""
    if case == "tucker":
        return {"batch_size": theirs.BATCH, "dimension": 256, "relation_dimension": 256, "candidates": None}
    found = {
        "objective": "negative_sampling", "batch_size": theirs.BATCH, "negatives": theirs.NEGATIVES, "dropout": 0.0,
        "dimension": theirs.DIMENSION, "optimizer": "adam", "learning_rate": 1e-3, "adversarial_temperature": 1.0,
        "reciprocal": False, "regularization": 0.0, "relation_prediction": 0.0, "strangers": "own",
    }  # fmt: skip
    return found | ({"margin": 12.0} if case in ("rotate", "transe") else {})


def ceilings() -> dict[str, float]:
    """The machine's, as train_step measures them."""
    command = [sys.executable, "-m", "benchmarks.train_step", "--worker", "ceilings"]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])


def machine(threads: int) -> str:
    """The processor's name, and the threads in use."""
    about = Path("/proc/cpuinfo")
    names = [one.split(":")[1].strip() for one in about.read_text().splitlines() if one.startswith("model name")] if (
        about.exists()) else [platform.processor() or platform.machine()]  # fmt: skip
    return f"{names[0]}, {torch.backends.cpu.get_cpu_capability()}, {threads} threads, torch {torch.__version__}"


def line(case: str, found: dict) -> str:
    ratio = found["theirs"]["busy"] / found["ours"]["busy"]
    return f"{case}: {found['theirs']['busy']:.3f} / {found['ours']['busy']:.3f} s of processor time = {ratio:.1f}"


def page(figures: dict) -> str:
    """docs/speed.md."""
    found = figures["ceilings"]
    rows = [
        "# How fast a training step is", "",
        "Written by `python -m benchmarks.reference --reference DIR`: the authors' code, PyKEEN and ours in turn, on "
        "DB15K's sizes at the papers' settings, in float32, processor seconds a step (the median; wall seconds in "
        "brackets). Each ratio is of one run.", "",
        f"Machine: {figures['machine']}; {found['flops'] / 1e9:.0f} GFLOP/s in matrix products by the best route, "
        f"{found['bytes'] / 1e9:.1f} GB/s.", "",
        "| a step of | against | theirs | ours | ratio | peak GB, theirs / ours |", "|---" * 6 + "|",
    ]  # fmt: skip
    for case, one in figures["cases"].items():
        sides = [f"{one[side]['busy']:.3f} ({one[side]['wall']:.3f})" for side in ("theirs", "ours")]
        peaks = " / ".join(f"{one[side]['peak'] / 1e9:.1f}" for side in ("theirs", "ours"))
        ratio = one["theirs"]["busy"] / one["ours"]["busy"]
        rows.append(f"| {case} | {one['against']} | {' | '.join(sides)} | {ratio:.1f} | {peaks} |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    main()
