"""In two minutes: has a step become slower? Beside what was committed for this machine, and by more than the noise.

    python -m benchmarks.quick [--write] [--seconds 90]        # make bench-quick

Steps of all models on small random data (benchmarks.gpu's), the ingest of a small graph, and ranking, each in turn over
as many rounds as the seconds allow, in processor seconds on one thread, beside a fixed piece of work in the same rounds
(a product and a sum of vectors). What counts is the ratio of the least seconds of the one to the least of the other:
other work on the machine only ever adds to either. The noise is half of how far that ratio lies apart between thirds of
the rounds. Compared is with benchmarks/results/quick.json where that is of this machine; what is noisier than a
twentieth, now or there, is said to be too noisy to judge unless the change is beyond the noise all the same. `--write`
keeps the figures, but none so noisy. Ends with 1 if something is slower by more than twice the noise of both and by
more than a tenth, and with 2 if figures were not kept.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks.conditions import as_trained
from benchmarks.gpu import EPOCHS, problem, small
from benchmarks.reference import machine
from pipeline import tables
from pipeline.graph.audit import audit
from pipeline.graph.graph import Graph
from pipeline.graph.splits import choose
from stages.params import load_params
from stages.params.models import model_settings
from trainers.about import module_of
from trainers.evaluation import ranking
from trainers.training.train import filter_index

KEPT = Path("benchmarks/results/quick.json")
BASELINES = ("rotate", "transe", "complex", "distmult", "tucker")
CPU = torch.device("cpu")
STEPS, LEAST, TIMES_NOISE = 3, 0.1, 2
PARTS = 3  # of the rounds, whose figures are compared to tell the noise
MOST_NOISE = 0.05  # of a figure that is kept, as a share of it
Figures = dict[str, dict[str, float]]  # name -> ratio, noise, seconds, rounds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=90)
    parser.add_argument("--write", action="store_true", help="keep these figures for this machine")
    parser.add_argument("--kept", type=Path, default=KEPT)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    now = measured(arguments.seconds)
    kept = json.loads(arguments.kept.read_text(encoding="utf-8")) if arguments.kept.exists() else {}
    before = comparable(kept.get(machine(1), {}))
    for line in lines(now, before):
        print(line)
    if not before:
        print(f"{arguments.kept} holds nothing of this machine ({machine(1)}) that was taken in this way.")
    if arguments.write and (said := too_noisy(now)):
        print(said, file=sys.stderr)
        return 2
    if arguments.write:
        tables.write_json(arguments.kept, kept | {machine(1): now})
    return int(any(change(now[name], one) > 0 for name, one in before.items() if name in now))


def comparable(kept: Figures) -> Figures:
    """Those that are ratios of least seconds; older ones are of medians, which other work makes larger."""
    return {name: one for name, one in kept.items() if "rounds" in one}


def too_noisy(now: Figures) -> str:
    """Why figures are not kept, a sentence; empty if they may be."""
    loud = [f"{name} (±{one['noise'] / one['ratio']:.0%})" for name, one in now.items() if noisy(one)]
    if not loud:
        return ""
    return (
        f"Not kept, since a slowdown would be lost in such noise: {', '.join(loud)} with at most ±{MOST_NOISE:.0%} "
        "allowed; run it again when nothing else runs on this machine, or with more --seconds."
    )


def noisy(one: dict[str, float]) -> bool:
    return one["noise"] > MOST_NOISE * one["ratio"]


def measured(seconds: float) -> Figures:
    """name -> ratio, noise, seconds, rounds of each piece of work, run as the train stage runs it.

    A first round warms up; `seconds` may end the rounds once each part has two.
    """
    with as_trained(CPU):
        work, fixed = pieces(), []
        found: dict[str, list[float]] = {name: [] for name in work}
        until, each = time.monotonic() + seconds, 0
        while each <= 2 * PARTS or time.monotonic() < until:
            yard = []
            for name, one in work.items():
                yard.append(busy(yardstick))
                found[name].append(busy(one))
            fixed.append(min(yard))
            each += 1
    return {name: summed(values[1:], fixed[1:]) for name, values in found.items()}


def summed(seconds: list[float], fixed: list[float]) -> dict[str, float]:
    """The figures of one piece of work, `seconds` beside those of the fixed one, a round each."""
    parts = [min(seconds[part::PARTS]) / min(fixed[part::PARTS]) for part in range(PARTS)]
    return {
        "ratio": round(min(seconds) / min(fixed), 4), "noise": round((max(parts) - min(parts)) / 2, 4),
        "seconds": round(min(seconds), 5), "rounds": len(seconds),
    }  # fmt: skip


def pieces() -> dict[str, Callable[[], object]]:
    """What is measured, by name."""
    data = small(torch.Generator().manual_seed(0))
    found: dict[str, Callable[[], object]] = {}
    for model in (*EPOCHS, *BASELINES):
        if model in EPOCHS:
            _, settings, _ = problem(model, reduced=True)
        else:
            settings = model_settings(load_params(), model)
        module = module_of(model)
        built = module.build(data, settings, torch.Generator().manual_seed(0))
        learner = module.Learner(built, data, settings, device=CPU, precision=torch.float32, seed=0)
        learner.model.train()
        found[f"step of {model}"] = lambda learner=learner: steps(learner)
    known, facts = filter_index(data), data.train[:100]
    score = (
        module_of("complex").build(data, model_settings(load_params(), "complex"), torch.Generator()).eval().scorer()
    )
    found["ranking"] = lambda: ranking.rank(score, facts, known, entities=data.entities)
    found["splits and audit"] = ingest
    return found


def steps(learner) -> None:
    """The first steps of an epoch, its batches made anew."""
    for _, batch in zip(range(STEPS), learner.batches(0), strict=False):
        learner.step(batch)


def ingest() -> None:
    """Splits and audit of 50,000 random facts."""
    draw = np.random.default_rng(0)
    rows = draw.integers((5000, 20, 5000), size=(50_000, 3))
    names = [str(number) for number in range(5000)]
    parts = {"train": rows[2000:], "dev": rows[:1000], "test": rows[1000:2000]}
    graph = Graph(names, names, names[:20], names[:20], parts)
    used, done = choose(graph.splits, "clean", dev_share=0.1, seed=0)
    audit(graph, used, done, "clean")


LEFT, RIGHT, LONG = torch.ones(384, 384), torch.ones(384, 384), torch.ones(1 << 20)


def yardstick() -> None:
    """Work that no change of ours touches."""
    for _ in range(4):
        LEFT @ RIGHT
        LONG + LONG


def busy(work: Callable[[], object]) -> float:
    """Processor seconds of one call."""
    began = time.process_time()
    work()
    return time.process_time() - began


def change(now: dict[str, float], before: dict[str, float]) -> float:
    """By which share it is slower (or, below 0, faster) by more than the noise; 0: it cannot be told."""
    by = now["ratio"] / before["ratio"] - 1
    noise = TIMES_NOISE * (now["noise"] / now["ratio"] + before["noise"] / before["ratio"])
    return by if abs(by) > max(noise, LEAST) else 0.0


def lines(now: Figures, before: Figures) -> list[str]:
    return [
        f"{name:20} {one['seconds'] * 1000:9.2f} ms  {one['ratio']:8.3f} ± {one['noise']:.3f}  "
        f"{verdict(one, before.get(name))}".rstrip()
        for name, one in now.items()
    ]


def verdict(now: dict[str, float], before: dict[str, float] | None) -> str:
    """What is said of one piece of work; empty: as before."""
    if before is None:
        return "new, and too noisy to keep" if noisy(now) else "new"
    if by := change(now, before):
        return f"{abs(by):.0%} {'slower' if by > 0 else 'faster'}"
    loud = [when for when, one in (("now", now), ("in what was kept", before)) if noisy(one)]
    return f"too noisy to judge, {' and '.join(loud)}" if loud else ""


if __name__ == "__main__":
    sys.exit(main())
