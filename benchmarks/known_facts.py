"""How long the index of known facts takes to say which of many triples are facts, beside plain ways of asking.

    python benchmarks/known_facts.py                      # random facts of DB15K's size
    python benchmarks/known_facts.py --graph data/DB15K/graph

Prints a table: seconds for a million questions (best of several), and how many times slower the others are in the same
run. "search": a binary search for every question, without the sieve; "set": a Python set of tuples, on a sample.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from pipeline import tables
from pipeline.graph.filter_index import KnownFacts

SIZE = (12842, 279, 89_000)  # entities, relations and facts of DB15K
QUESTIONS, SAMPLE, ROUNDS = 1 << 20, 1 << 16, 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--graph", type=Path, help="folder of a graph's tables; default: random facts")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    facts, entities, relations = _facts(options.graph, generator)
    device = torch.device(options.device)
    known = KnownFacts.build(facts, entities, relations).to(device)
    chosen = facts[torch.randint(len(facts), (QUESTIONS,), generator=generator)]
    head, relation, _ = (part.contiguous().to(device) for part in chosen.T)
    tail = torch.randint(entities, (QUESTIONS,), generator=generator).to(device)
    key = (head * relations + relation) * entities + tail
    plain = set(map(tuple, facts.tolist()))
    sample = torch.stack([head, relation, tail], dim=1)[:SAMPLE]
    queries = chosen[:4096, 0].to(device), chosen[:4096, 1].to(device)

    index = _best(lambda: known.contains(head, relation, tail), device)
    print(
        f"{entities:,} entities, {relations} relations, {len(known):,} facts; "
        f"{device}, {torch.get_num_threads()} threads"
    )
    print(f"{'index':12} {index * 1000:9.2f} ms a million questions")
    for name, seconds in (
        ("search", _best(lambda: known._searched(key), device)),
        ("set", _best(lambda: [tuple(fact) in plain for fact in sample.tolist()], device) * QUESTIONS / SAMPLE),
    ):
        print(f"{name:12} {seconds * 1000:9.2f} ms, {seconds / index:.1f} times the index")
    seconds = _best(lambda: known.answers(*queries, "tail"), device)
    print(f"{'answers':12} {seconds * 1000:9.2f} ms for {len(queries[0]):,} queries")
    seconds = _best(lambda: KnownFacts.build(facts, entities, relations), torch.device("cpu"))
    print(f"{'build':12} {seconds * 1000:9.2f} ms")


def _facts(folder: Path | None, generator: torch.Generator) -> tuple[torch.Tensor, int, int]:
    if folder is None:
        entities, relations, count = SIZE
        sides = torch.randint(entities, (count, 2), generator=generator)
        relation = torch.randint(relations, (count,), generator=generator)
        return torch.stack([sides[:, 0], relation, sides[:, 1]], dim=1), entities, relations
    table = tables.read(folder / "triples.parquet", "triples")
    rows = np.stack([table[name].to_numpy() for name in ("head", "relation", "tail")], axis=1).astype(np.int64)
    counts = (tables.read(folder / f"{kind}.parquet", kind).num_rows for kind in ("entities", "relations"))
    return torch.from_numpy(rows), *counts


def _best(run: Callable[[], object], device: torch.device) -> float:
    """Seconds of the fastest of several runs."""
    found = []
    for _ in range(ROUNDS):
        if device.type == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize()
        found.append(time.perf_counter() - start)
    return min(found)


if __name__ == "__main__":
    main()
