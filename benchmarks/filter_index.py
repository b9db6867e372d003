"""How long the filter index takes to be built and to answer queries.

    python benchmarks/filter_index.py                      # random facts of DB15K's size
    python benchmarks/filter_index.py --graph data/DB15K/graph

Prints milliseconds, the best of several runs.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from pipeline import tables
from pipeline.graph.filter_index import FilterIndex

SIZE = (12842, 279, 89_000)  # entities, relations and facts of DB15K
QUERIES, ROUNDS = 4096, 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--graph", type=Path, help="folder of a graph's tables; default: random facts")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    facts, entities, relations = _facts(options.graph, generator)
    device = torch.device(options.device)
    known = FilterIndex.build(facts, entities, relations).to(device)
    chosen = facts[torch.randint(len(facts), (QUERIES,), generator=generator)].to(device)
    print(
        f"{entities:,} entities, {relations} relations, {len(known):,} facts; "
        f"{device}, {torch.get_num_threads()} threads"
    )
    seconds = _best(lambda: known.answers(chosen[:, 0], chosen[:, 1], "tail"), device)
    print(f"answers {seconds * 1000:9.2f} ms for {QUERIES:,} queries")
    seconds = _best(lambda: FilterIndex.build(facts, entities, relations), torch.device("cpu"))
    print(f"build   {seconds * 1000:9.2f} ms")


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
