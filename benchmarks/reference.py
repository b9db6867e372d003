"""Our training step beside that of the authors' code and of PyKEEN, in turn, on this machine: docs/speed.md.

    python -m benchmarks.reference --reference DIR [--cases mygo rotate] [--batch 256] [--rounds 2] [--steps 3]

DIR holds checkouts of zjukg/AdaMF-MAT, zjukg/MoMoK and zjukg/MyGO, named so; what is not there is left out, and so is
PyKEEN where it is not installed. Each side runs in a process of its own with `--threads` threads, theirs and ours in
turn, after a step to warm up, ours as the train stage runs it; processor seconds count, since other work on the machine
disturbs them less, and wall seconds stand beside. Each ratio is of one run of this command. Nothing here knows a number
from anywhere else. A side that does not fit `--gib` is said to be too large; `--batch` compares both sides at a smaller
batch, which the table names.

Writes docs/speed.md and benchmarks/results/speed.json with the machine and its ceilings (benchmarks.train_step); with
`--cases` or without DIR, what other cases had in the file is kept if it is of this machine.
"""

import argparse
import importlib
import importlib.util
import itertools
import json
import platform
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks import reference_steps as theirs
from benchmarks.conditions import add_bound, as_trained, bound, out_of_memory
from benchmarks.step_cost import DB15K, random_triples
from pipeline import tables
from stages.params import load_params
from stages.params.models import model_settings
from trainers.about import module_of
from trainers.training.data import Data
from trainers.training.runs import peak_memory

PAGE, FIGURES = Path("docs/speed.md"), Path("benchmarks/results/speed.json")
CASES = ("adamf_mat", "mygo", "momok", "rotate", "complex", "transe", "distmult", "tucker")
CPU = torch.device("cpu")
WHOSE = {"theirs": "the other side", "ours": "our side"}


class TooLarge(Exception):
    """One of two sides asks for more memory than it may have; says which."""


def main() -> None:
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    if arguments.worker:
        bound(arguments.gib)
        print(json.dumps(measured(*arguments.worker.split(":"), arguments)))
        return
    known = json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.exists() else {}
    kept = known if known.get("machine") == machine(arguments.threads) else {}
    found, refused, fresh = kept.get("cases", {}), kept.get("not_measured", {}), []
    for case in arguments.cases:
        if side_of(case, arguments.reference) is None:
            continue
        name, batch = called(case, arguments.batch), arguments.batch or theirs.batch_of(case)
        try:
            found[name] = compared(case, arguments) | {"batch": batch}
            refused.pop(name, None)
            fresh.append(name)
            print(line(name, found[name]), flush=True)
        except TooLarge as error:
            found.pop(name, None)
            refused[name] = f"{error} at a batch of {batch:,}"
            print(f"{name}: {refused[name]}", flush=True)
        figures = {
            "machine": machine(arguments.threads), "cases": found, "not_measured": refused,
            "ceilings": ceilings(arguments.threads) | {"run_of": fresh},
        }  # fmt: skip
        tables.write_json(FIGURES, figures)
        tables.write_text(PAGE, page(tables.read_json(FIGURES)))  # in the order in which the file has them


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=Path, help="folder of the authors' checkouts")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--batch", type=int, help="the batch of both sides (the paper's, with PyKEEN 1,024)")
    parser.add_argument("--rounds", type=int, default=2, help="how often each side takes its turn")
    parser.add_argument("--steps", type=int, default=3, help="timed steps a turn, after one to warm up")
    parser.add_argument("--threads", type=int, default=1)
    add_bound(parser)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser.parse_args()


def called(case: str, batch: int | None) -> str:
    """A case's name among the figures: beside that of the paper's batch there is room for others."""
    return case if batch in (None, theirs.batch_of(case)) else f"{case}, batch {batch:,}"


def side_of(case: str, folder: Path | None) -> str | None:
    """Whom a case is compared with, if that is here."""
    if case in theirs.AUTHORS:
        return "authors" if folder and (folder / theirs.AUTHORS[case][0]).is_dir() else None
    return "PyKEEN" if importlib.util.find_spec("pykeen") else None


def compared(case: str, arguments: argparse.Namespace) -> dict:
    """Both sides in turn: their steps' processor and wall seconds, and peak memory.

    Raises TooLarge if one of them does not fit `--gib`.
    """
    sides: dict[str, list[dict]] = {"theirs": [], "ours": []}
    for _ in range(arguments.rounds):
        for side, turns in sides.items():
            command = [sys.executable, "-m", "benchmarks.reference", "--worker", f"{case}:{side}"]
            command += ["--steps", str(arguments.steps), "--threads", str(arguments.threads)]
            for option in ("reference", "batch", "gib"):
                value = getattr(arguments, option)
                command += [] if value is None else [f"--{option}", str(value)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode and arguments.gib and out_of_memory(done.stderr):
                raise TooLarge(f"{WHOSE[side]} needs more than {arguments.gib:g} GiB of memory")
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
    batch, steps = arguments.batch or theirs.batch_of(case), 1 + arguments.steps
    if side == "theirs" and case in theirs.PYKEEN:
        times = theirs.pykeen_clock(case, steps, batch, now)
    elif side == "theirs":
        name, make, _ = theirs.AUTHORS[case]
        times = clocked(make(arguments.reference / name, batch), steps)
    else:
        with as_trained(CPU):
            learner = ours(case, batch)
            batches = iter(learner.batches(0))
            times = clocked(lambda: learner.step(next(batches)), steps)
    each = [[after - before for before, after in itertools.pairwise(one[1:])] for one in zip(*times, strict=True)]
    return {"busy": each[0], "wall": each[1], "peak": peak_memory(CPU)}


def now() -> tuple[float, float]:
    return time.process_time(), time.perf_counter()


def clocked(step: theirs.Step, steps: int) -> list[tuple[float, float]]:
    times = [now()]
    for _ in range(steps):
        step()
        times.append(now())
    return times


def ours(case: str, batch: int):
    """Our learner at the same sizes."""
    module, generator = module_of(case), torch.Generator().manual_seed(0)
    if case in theirs.AUTHORS:
        cost = importlib.import_module(f"benchmarks.step_cost.{case}")
        data, settings = cost.data(generator), replace(cost.settings(), batch_size=batch)
    else:
        train = random_triples(generator, DB15K["entities"], DB15K["relations"], 20 * batch)
        data = Data("random", DB15K["entities"], DB15K["relations"], train, train[:1], train[:1], {}, {})
        settings = replace(model_settings(load_params(), case), **settings_of(case, batch))
    model = module.build(data, settings, generator)
    learner = module.Learner(model, data, settings, device=CPU, precision=torch.float32, seed=0)
    learner.model.train()
    return learner


def settings_of(case: str, batch: int) -> dict:
    """What PyKEEN's side is given too."""
    if case == "tucker":
        width = theirs.TUCKER_DIMENSION
        return {"batch_size": batch, "dimension": width, "relation_dimension": width, "candidates": None}
    found = {
        "objective": "negative_sampling", "batch_size": batch, "negatives": theirs.NEGATIVES, "dropout": 0.0,
        "dimension": theirs.DIMENSION, "optimizer": "adam", "learning_rate": 1e-3, "adversarial_temperature": 1.0,
        "reciprocal": False, "regularization": 0.0, "relation_prediction": 0.0, "strangers": "own",
    }  # fmt: skip
    return found | ({"margin": 12.0} if case in ("rotate", "transe") else {})


def ceilings(threads: int) -> dict:
    """The machine's, as train_step measures them."""
    command = [sys.executable, "-m", "benchmarks.train_step", "--worker", "ceilings", "--threads", str(threads)]
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
    """docs/speed.md: nothing stands there that is not in `figures`, which is benchmarks/results/speed.json."""
    found, cases = figures["ceilings"], figures["cases"]
    rows = [
        "# How fast a training step is", "",
        "Written by `python -m benchmarks.reference --reference DIR`: the authors' code, PyKEEN and ours in turn, on "
        "DB15K's sizes, in float32; processor seconds a step (wall seconds in brackets), the median of "
        "as many steps of each side as the table says. Each ratio is of one run. " + " ".join(settings_in_words(cases)),
        "",
        f"Machine: {figures['machine']}; {found['flops'] / 1e9:.0f} GFLOP/s in matrix products by the best route, "
        f"{found['bytes'] / 1e9:.1f} GB/s{when(found['run_of'], cases)}.", "",
        "| a step of | against | batch | steps | theirs | ours | ratio | peak GB, theirs / ours |", "|---" * 8 + "|",
    ]  # fmt: skip
    for name, one in sorted(cases.items(), key=lambda pair: (CASES.index(model_in(pair[0])), pair[0])):
        sides = [f"{one[side]['busy']:.3f} ({one[side]['wall']:.3f})" for side in ("theirs", "ours")]
        peaks = " / ".join(f"{one[side]['peak'] / 1e9:.1f}" for side in ("theirs", "ours"))
        steps = " / ".join(sorted({str(one[side]["steps"]) for side in ("theirs", "ours")}))
        ratio = one["theirs"]["busy"] / one["ours"]["busy"]
        rows.append(
            f"| {model_in(name)} | {one['against']} | {one['batch']:,} | {steps} | {' | '.join(sides)} | {ratio:.1f} | "
            f"{peaks} |"
        )
    if refused := figures["not_measured"]:
        rows += ["", "Not measured:", "", *(f"- {model_in(name)}: {why}" for name, why in refused.items())]
    return "\n".join(rows) + "\n"


def model_in(name: str) -> str:
    """The model of a case's name (`called`)."""
    return name.split(",")[0]


def settings_in_words(cases: dict) -> list[str]:
    """At which settings the cases of the table were compared, a sentence for each kind."""
    models = {model_in(name) for name in cases}
    listed = [name for name in CASES if name in models]
    papers = [f"`{name}`" for name in listed if name in theirs.AUTHORS]
    sampled = [f"`{name}`" for name in listed if name not in theirs.AUTHORS and name != "tucker"]
    complex_ = [name for name in ("`rotate`", "`complex`") if name in sampled]
    said = []
    if papers:
        said.append(f"At the paper's settings, but for a batch that is not the paper's: {', '.join(papers)}.")
    if sampled:
        said.append(
            f"At settings of no paper, negative sampling with {theirs.NEGATIVES} negatives and {theirs.DIMENSION} "
            "numbers an entity"
            + (f" (complex ones in {' and '.join(complex_)})" if complex_ else "")
            + f": {', '.join(sampled)}."
        )
    if "tucker" in models:
        said.append(f"At settings of no paper, {theirs.TUCKER_DIMENSION} numbers against all entities: `tucker`.")
    return said


def when(fresh: list[str], cases: dict) -> str:
    """Of which run the ceilings are, where it is not that of all cases in the table."""
    if all(name in fresh for name in cases):
        return ""
    run = f"the run of {', '.join(fresh)}" if fresh else "a run after those of the table"
    return f", both measured in {run}"


if __name__ == "__main__":
    main()
