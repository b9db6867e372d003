"""Seconds and memory of one training step at the papers' settings, beside what the machine allows.

    python -m benchmarks.train_step [adamf_mat momok mygo] [--precision bfloat16] [--device cuda] [--json out.json]

Each model runs in a process of its own, so that the peak memory is its own; `--gib` bounds it. The ceilings (matrix
products, memory traffic) are measured before and after each model in further processes; the better of the two counts.
The floor is the sum over the parts of a step (benchmarks/step_cost) of the larger of operations / ceiling and bytes /
ceiling. Steps are timed by both clocks; the floor is compared by the clock of the ceilings: of one thread on the CPU
the processor's, else the wall's.
"""

import argparse
import importlib
import json
import pkgutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

from benchmarks import step_cost
from benchmarks.conditions import add_bound, as_trained, bound
from trainers.about import module_of
from trainers.training.runs import peak_memory

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def main() -> None:
    arguments = parse()
    if arguments.worker:
        bound(arguments.gib)
        torch.set_num_threads(arguments.threads)
        work = measure_ceilings if arguments.worker == "ceilings" else measure_model
        print(json.dumps(work(arguments)))
        return
    results = {}
    for model in arguments.models:
        before = worker("ceilings", arguments)
        found = worker(model, arguments)
        after = worker("ceilings", arguments)
        ceilings = {name: max(before[name], after[name]) for name in before}
        results[model] = report(model, found, ceilings)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")


def parse() -> argparse.Namespace:
    known = sorted(found.name for found in pkgutil.iter_modules(step_cost.__path__))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=known, help=f"of {', '.join(known)}")
    parser.add_argument("--precision", choices=DTYPES, default="float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=10, help="timed steps; the median counts")
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    add_bound(parser)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=JSON", help="another setting of the model")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser.parse_args()


def worker(name: str, arguments: argparse.Namespace) -> dict:
    """Run this file again for one measurement, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.train_step", "--worker", name, "--precision", arguments.precision]
    command += ["--device", arguments.device, "--steps", str(arguments.steps), "--warmup", str(arguments.warmup)]
    command += ["--threads", str(arguments.threads), *(["--gib", str(arguments.gib)] if arguments.gib else [])]
    command += [part for pair in arguments.set for part in ("--set", pair)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{name} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def measure_ceilings(arguments: argparse.Namespace) -> dict[str, float]:
    """Operations a second of a large matrix product by the best route, and bytes a second of a large sum of vectors."""
    device, dtype = torch.device(arguments.device), DTYPES[arguments.precision]
    size = 4096 if device.type == "cpu" else 8192
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    a, b = (torch.ones(1 << 26, device=device) for _ in range(2))  # 256 MiB each, beyond any cache
    out = torch.empty_like(a)
    seconds = [fastest(lambda: left @ right, device)]
    if dtype == torch.float32 and device.type == "cpu":  # whatever torch takes by itself: oneDNN twice, if it is there
        torch.set_float32_matmul_precision("medium")
        seconds.append(fastest(lambda: left @ right, device, times=2))
        torch.set_float32_matmul_precision("highest")
        if torch.backends.mkldnn.is_available():
            packed = right.T.contiguous()
            linear = torch.ops.mkldnn._linear_pointwise
            seconds.append(fastest(lambda: linear(left, packed, None, "none", [], ""), device, times=2))
    return {
        "flops": 2.0 * size**3 / min(seconds),
        "bytes": 3.0 * a.numel() * a.element_size() / fastest(lambda: torch.add(a, b, out=out), device),
    }


def measure_model(arguments: argparse.Namespace) -> dict:
    """Median seconds of a step by both clocks, peak memory in bytes, and the work that the step must do."""
    cost = importlib.import_module(f"benchmarks.step_cost.{arguments.worker}")
    module = module_of(arguments.worker)
    device, generator = torch.device(arguments.device), torch.Generator().manual_seed(0)
    data, settings = cost.data(generator), cost.settings()
    changed = {key: json.loads(value) for key, value in (pair.split("=", 1) for pair in arguments.set)}
    settings = type(settings)(**{**vars(settings), **changed})
    torch.manual_seed(0)
    with as_trained(device) as multiplied:
        learner = module.Learner(
            module.build(data, settings, generator).to(device),
            data,
            settings,
            device=device,
            precision=DTYPES[arguments.precision],
            seed=0,
        )
        wall, processor = clocked(learner, arguments.warmup + arguments.steps, device)
    return {
        "seconds": statistics.median(wall[arguments.warmup :]),
        "processor_seconds": statistics.median(processor[arguments.warmup :]),
        "each": wall,
        "matmul": multiplied,
        "clock": "processor" if by_processor(device) else "wall",
        "peak": peak_memory(device),
        "work": [vars(part) for part in cost.work(data, settings)],
    }


def clocked(learner, steps: int, device: torch.device) -> tuple[list[float], list[float]]:
    """Wall and processor seconds of each of so many steps, batches included, over epochs where they are short."""
    learner.model.train()
    wall: list[float] = []
    processor: list[float] = []
    epoch = 0
    while len(wall) < steps:
        batches = iter(learner.batches(epoch))
        for _ in range(min(learner.steps_per_epoch, steps - len(wall))):
            began = time.process_time()
            # With its batch, which on a GPU a thread has made: what is drawn for it is part of what a step costs.
            wall.append(timed(lambda batches=batches: learner.step(next(batches)), device))
            processor.append(time.process_time() - began)
        epoch += 1
    return wall, processor


def report(model: str, found: dict, ceilings: dict[str, float]) -> dict:
    """Print one model's figures and return them with the floor beside."""
    parts = {
        part["name"]: max(part["flops"] / ceilings["flops"], part["bytes"] / ceilings["bytes"])
        for part in found["work"]
    }
    floor = sum(parts.values())
    measured = found["processor_seconds" if found["clock"] == "processor" else "seconds"]
    print(
        f"{model}: {found['seconds']:.3f} s a step (median), {found['processor_seconds']:.3f} s of processor time; "
        f"floor {floor:.3f} s, floor/measured {floor / measured:.2f} by the {found['clock']} clock, peak "
        f"{found['peak'] / 1e9:.2f} GB\n"
        f"  ceilings: {ceilings['flops'] / 1e9:,.0f} GFLOP/s, {ceilings['bytes'] / 1e9:,.1f} GB/s; work: "
        f"{sum(part['flops'] for part in found['work']) / 1e9:,.1f} GFLOP, "
        f"{sum(part['bytes'] for part in found['work']) / 1e9:,.2f} GB\n"
        "  floor by part: " + ", ".join(f"{name} {seconds:.3f} s" for name, seconds in parts.items()),
        flush=True,
    )
    return {**found, "ceilings": ceilings, "floor": floor, "floor_by_part": parts, "share": floor / measured}


def by_processor(device: torch.device) -> bool:
    """Whether ceilings are of processor time, which other work disturbs less; of several threads it would be a sum."""
    return device.type == "cpu" and torch.get_num_threads() == 1


def fastest(work, device: torch.device, times: int = 7) -> float:
    """Seconds of the fastest of some calls, by the clock that `by_processor` says."""
    if by_processor(device):
        return min(busy(work) for _ in range(times))
    return min(timed(work, device) for _ in range(times))


def busy(work) -> float:
    """Processor seconds of one call."""
    began = time.process_time()
    work()
    return time.process_time() - began


def timed(work, device: torch.device) -> float:
    """Seconds of one call, waiting for the device on both sides."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
