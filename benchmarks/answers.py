"""How long a run takes to answer a question, to say why, and to complete its graph, and in how much memory.

    python -m benchmarks.answers --graph data/DB15K --model complex            # an untrained model of the real size
    python -m benchmarks.answers --graph data/DB15K --run runs/DB15K/complex   # a run that is there

Prints milliseconds of `run.ask` and of whole pages (`make ask`), the median of 50, and seconds, scores a second
and peak memory of `complete` with the types that train has; with --any-type also of some relations with all heads,
and what that comes to for all.
"""

import argparse
import resource
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from starlette.testclient import TestClient

from stages.ask.app import app
from stages.ask.questions import Questions
from stages.complete import calibrated, facts_of
from stages.params import load_params
from stages.params.models import model_settings
from trainers.about import module_of
from trainers.answers.ask import world_of
from trainers.answers.completions import Choice, complete
from trainers.training import data, runs
from trainers.training.loop import Progress
from trainers.training.train import filter_index, inputs_of, read, without_absent

QUESTIONS = 50
MEMORY = 512 << 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graph", type=Path, required=True, help="data/<graph>: its tables, texts, encoded tables")
    parser.add_argument("--model", default="complex", help="what is built untrained, where no --run is given")
    parser.add_argument("--run", type=Path)
    parser.add_argument("--any-type", type=int, default=0, metavar="N", help="also N relations with all heads")
    options = parser.parse_args()
    scratch = Path(tempfile.mkdtemp())
    try:
        path = options.run or untrained(options.graph, options.model, scratch / "runs" / options.graph.name)
        print(f"{options.graph.name}, {path.name}, {torch.get_num_threads()} threads")
        ask(options.graph, path)
        completions(options.graph, path, options.any_type)
    finally:
        shutil.rmtree(scratch)


def untrained(graph: Path, model: str, folder: Path) -> Path:
    """The folder of a run whose weights are those that training starts from: as large and as slow as a trained one."""
    settings = model_settings(load_params(), model, graph.name)
    tables, encoded = graph / "graph", graph / "encoded"
    given = read(model, settings, graph=tables, encoded=encoded)
    settings = without_absent(settings, given)
    built = module_of(model).build(given, settings, torch.Generator().manual_seed(0))
    about = runs.describe(given, model=model, settings=settings, split="clean", encoders={}, seed=0,
                          device=torch.device("cpu"), precision=torch.float32, progress=Progress())  # fmt: skip
    about["inputs"] = inputs_of(model, settings, graph=tables, encoded=encoded)
    runs.save_run(folder / model, built, about, [{"epoch": 0}])
    return folder / model


def timed(what: str, work: Callable[[int], object]) -> None:
    """Run `work` for each question, after one to warm up, and print what it takes: on the clock, and of processor time,
    which is what it would take were nothing else running.
    """
    work(0)
    found = []
    for place in range(QUESTIONS):
        start = time.perf_counter(), time.process_time()
        work(place)
        found.append((1000 * (time.perf_counter() - start[0]), 1000 * (time.process_time() - start[1])))
    clock, processor = np.array(found).T
    print(f"{what:34}{np.median(clock):9.1f} ms, processor {np.median(processor):.1f} ms, max {processor.max():.0f} ms",
          flush=True)  # fmt: skip


def ask(graph: Path, path: Path) -> None:
    """Questions of facts of test, asked of the run and of the page."""
    run = runs.load_run(path)
    world = world_of(run, graph / "graph")
    test = data.load(graph / "graph", graph / "encoded", name=graph.name).test
    keys, named = world.entities.key, world.relations.key
    rows = test[torch.randperm(len(test), generator=torch.Generator().manual_seed(0))[:QUESTIONS]].tolist()
    timed("run.ask", lambda at: run.ask(keys[rows[at][0]], named[rows[at][1]], graph=graph / "graph"))
    client = TestClient(app(Questions(graph, [path])), base_url="http://127.0.0.1")
    asked = [{"entity": keys[head], "relation": named[relation]} for head, relation, _ in rows]
    timed("the page of a question", lambda at: client.get("/", params=asked[at]).raise_for_status())
    starts = [world.entities.label[head][:4] for head, _, _ in rows]
    timed("names while typing", lambda at: client.get("/names", params={"entity": starts[at]}))
    why = {"model": path.name, "side": "tail"}
    facts = [{"head": keys[head], "relation": named[relation], "tail": keys[tail]} for head, relation, tail in rows]
    timed("the page that tells why", lambda at: client.get("/why", params=why | facts[at]).raise_for_status())


def completions(graph: Path, path: Path, any_type: int) -> None:
    """All relations with the heads and tails that train has; some with all heads."""
    run = runs.load_run(path)
    given = data.load(graph / "graph", graph / "encoded", name=graph.name)
    known = filter_index(given)
    start = time.process_time()
    facts = facts_of(given, known)
    found = calibrated(run, given, facts.others, MEMORY)
    print(f"calibration of both sides         {time.process_time() - start:9.1f} s of processor", flush=True)
    tail = found["tail"][0]
    queries = len(torch.unique(given.train[:, :2], dim=0))
    start = time.process_time()
    done = complete(run.score, facts, list(range(given.relations)), tail, Choice(20), memory_bytes=MEMORY)
    _told("complete, types as in train", time.process_time() - start, queries * given.entities)
    print(f"{len(done.missing['head']):,} missing facts of {queries:,} queries")
    if any_type:
        chosen = list(range(0, given.relations, max(1, given.relations // any_type)))[:any_type]
        start = time.process_time()
        complete(run.score, facts, chosen, tail, Choice(20, same_types=False), memory_bytes=MEMORY)
        seconds = time.process_time() - start
        _told(f"complete, any type, {len(chosen)} relations", seconds, len(chosen) * given.entities**2)
        print(f"that makes {seconds / len(chosen) * given.relations:,.0f} s for all {given.relations}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak memory of this process       {peak:9.2f} GiB")


def _told(what: str, seconds: float, scores: int) -> None:
    print(f"{what:34}{seconds:9.1f} s of processor, {scores / seconds / 1e6:.1f} million scores a second", flush=True)


if __name__ == "__main__":
    main()
