"""In two minutes: has a step become slower? Beside what was committed for this machine, and by more than the noise.

    python -m benchmarks.quick [--write] [--rounds 5]        # make bench-quick

Steps of all models on small random data (benchmarks.gpu's), the ingest of a small graph, and ranking, each in turn over
the rounds, in processor seconds on one thread, beside a fixed piece of work in the same rounds (a product and a sum of
vectors): what counts is their ratio, which a slower minute of the machine changes least. The noise of each is half of
the middle half of its rounds. Compared is with benchmarks/results/quick.json where that is of this machine; `--write`
writes it. Ends with 1 if something is slower by more than four times the noise of both and by more than a tenth.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

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
STEPS, LEAST, TIMES_NOISE = 3, 0.1, 4


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", action="store_true", help="keep these figures for this machine")
    parser.add_argument("--kept", type=Path, default=KEPT)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    now = measured(arguments.rounds)
    kept = json.loads(arguments.kept.read_text(encoding="utf-8")) if arguments.kept.exists() else {}
    before = kept.get(machine(1))
    for line in lines(now, before or {}):
        print(line)
    if before is None:
        print(f"{arguments.kept} holds nothing of this machine ({machine(1)}); --write keeps these figures.")
    if arguments.write:
        tables.write_json(arguments.kept, kept | {machine(1): now})
    return int(any(change(now[name], one) > 0 for name, one in (before or {}).items() if name in now))


def measured(rounds: int) -> dict[str, dict[str, float]]:
    """name -> {ratio, noise, seconds} of each piece of work, after one round to warm up."""
    work = pieces()
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in work}
    for each in range(rounds + 1):
        for name, one in work.items():
            fixed, seconds = busy(yardstick), busy(one)
            if each:
                found[name].append((seconds / fixed, seconds))
    return {name: summed(values) for name, values in found.items()}


def summed(values: list[tuple[float, float]]) -> dict[str, float]:
    ratios, seconds = zip(*values, strict=True)
    low, high = np.quantile(ratios, (0.25, 0.75))
    return {
        "ratio": round(statistics.median(ratios), 4), "noise": round(float(high - low) / 2, 4),
        "seconds": round(statistics.median(seconds), 5),
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


def lines(now: dict[str, dict[str, float]], before: dict[str, dict[str, float]]) -> list[str]:
    found = []
    for name, one in now.items():
        said = "new" if name not in before else ""
        if name in before and (by := change(one, before[name])):
            said = f"{abs(by):.0%} {'slower' if by > 0 else 'faster'}"
        found.append(
            f"{name:20} {one['seconds'] * 1000:9.2f} ms  {one['ratio']:8.3f} ± {one['noise']:.3f}  {said}".rstrip()
        )
    return found


if __name__ == "__main__":
    sys.exit(main())
