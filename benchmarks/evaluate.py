"""How long the full filtered test of DB15K takes, and in how much memory: each model, and the evaluator alone.

    python -m benchmarks.evaluate                      all models and the evaluator alone, each in its own process
    python -m benchmarks.evaluate --model mygo --repeat 3

Real triples are taken from the pinned files if TESSERA_MIRROR has them, else triples of the same
counts and about the same skew are drawn. Features and tokens are random, of the papers' widths; weights are the
initial ones: neither changes the work. Seconds are wall-clock from the trained model to the metrics, with what a scorer
prepares once; the best and the median of the repeats are shown, and the processor seconds of all threads in the
least busy repeat, which tell a slow test from a machine with other work. Memory is the peak of the whole process, of
which "before" was there when ranking began (libraries, features, model).
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.db15k import ENTITIES, RELATIONS, triples
from pipeline.graph.filter_index import FilterIndex
from stages.params import load_params
from stages.params.models import model_settings
from trainers.about import MODELS, module_of
from trainers.evaluation import ranking
from trainers.training.data import Data, Features, Tokens

ALONE = "evaluator alone"


def random_features(width: int, seed: int) -> Features:
    matrix = torch.randn((ENTITIES, width), generator=torch.Generator().manual_seed(seed))
    return Features(torch.arange(ENTITIES), matrix)


def random_tokens(codes: int, width: int, length: int, seed: int) -> Tokens:
    generator = torch.Generator().manual_seed(seed)
    return Tokens(
        entity=torch.arange(ENTITIES),
        offsets=torch.arange(ENTITIES + 1) * length,
        values=torch.randint(0, codes, (ENTITIES * length,), generator=generator),
        token_id=torch.arange(codes),
        codebook=torch.randn((codes, width), generator=generator),
    )


def data_for(reads: tuple[str, ...], train: np.ndarray, test: np.ndarray) -> Data:
    """DB15K with features as wide as VGG16's and BERT's, tokens as many and as wide as BEiT v2's and BERT's."""
    features = {"image": random_features(4096, 1), "text": random_features(768, 2)} if "features" in reads else {}
    tokens = (
        {"image": random_tokens(8192, 32, 196, 3), "text": random_tokens(30_522, 768, 40, 4)}
        if "tokens" in reads
        else {}
    )
    rows = [torch.from_numpy(part) for part in (train, test[:0], test)]
    return Data("DB15K", ENTITIES, RELATIONS, *rows, features=features, tokens=tokens)


def prepared(model: str, train: np.ndarray, test: np.ndarray):
    """A function that makes the scorer, as the evaluate stage does for each run."""
    if model == ALONE:
        scores = torch.randn((1, ENTITIES), generator=torch.Generator().manual_seed(0))
        return lambda: lambda known, relation, side: scores.repeat(len(known), 1)
    module = module_of(model)
    data = data_for(module.ABOUT.reads, train, test)
    built = module.build(data, model_settings(load_params(), model), torch.Generator().manual_seed(0)).eval()
    return built.scorer


def peak() -> int:
    """The most bytes of this process that were resident at once."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def resident() -> int:
    """Bytes of this process resident now; 0 where the system does not say."""
    path = Path("/proc/self/statm")
    return int(path.read_text().split()[1]) * resource.getpagesize() if path.exists() else 0


def measure(model: str, threads: int, repeat: int, memory: int) -> dict:
    """Rank the test set `repeat` times in this process."""
    torch.set_num_threads(threads)
    train, test, source = triples()
    known = FilterIndex.build(np.concatenate([train, test]), ENTITIES, RELATIONS)
    make = prepared(model, train, test)
    before, seconds, busy = resident(), [], []
    for _ in range(repeat):
        start, start_busy = time.perf_counter(), time.process_time()
        ranks = ranking.rank(make(), test, known, entities=ENTITIES, memory_bytes=memory << 20)
        metrics = ranking.metrics(ranks)
        seconds.append(time.perf_counter() - start)
        busy.append(time.process_time() - start_busy)
    return {
        "model": model,
        "source": source,
        "queries": metrics["queries"],
        "not_finite": metrics["not_finite"],
        "seconds": seconds,
        "busy": busy,
        "before": before,
        "peak": peak(),
    }


def apart(model: str, options: argparse.Namespace) -> dict:
    """`measure` in a process of its own, so that the peak of memory is this model's."""
    command = [sys.executable, "-m", "benchmarks.evaluate", "--here", model]
    for name in ("threads", "repeat", "memory"):
        command += [f"--{name}", str(getattr(options, name))]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def row(found: dict) -> str:
    best, median = min(found["seconds"]), statistics.median(found["seconds"])
    return (
        f"{found['model']:16}{best:8.2f} s{median:8.2f} s{min(found['busy']):8.2f} s"
        f"{found['before'] / 1e9:10.2f} GB{found['peak'] / 1e9:8.2f} GB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", choices=[*MODELS, ALONE], help="only these (default: all)")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--memory", type=int, default=512, help="evaluate.memory, in MiB")
    parser.add_argument("--here", choices=[*MODELS, ALONE], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        print(json.dumps(measure(options.here, options.threads, options.repeat, options.memory)))
        return
    print(f"{platform.machine()} CPU, {options.threads} threads, torch {torch.__version__}, float32")
    header = f"{'model':16}{'best':>10}{'median':>10}{'CPU':>10}{'before':>13}{'peak':>11}"
    for place, model in enumerate(options.model or [ALONE, *MODELS]):
        found = apart(model, options)
        if place == 0:
            print(f"{found['queries']:,} queries, {ENTITIES:,} candidates each; {found['source']}\n\n{header}")
        note = f"  ({found['not_finite']:,} scores not finite)" if found["not_finite"] else ""
        print(row(found) + note, flush=True)


if __name__ == "__main__":
    main()
