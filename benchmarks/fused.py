"""What fused entities (docs/fused.md) do to a benchmark run's MRR on test: with one of them in the query, and without.

    python -m benchmarks.fused --graph DB15K --model complex [--seed 0]

Reads data/<graph>/graph and the ranks that `python -m benchmarks.run` kept on this machine.
"""

from pathlib import Path

import numpy as np

from benchmarks.run import run_arguments, test_ranks, train_facts
from pipeline import tables
from pipeline.graph.fused import fused
from stages.cli import stage


def with_and_without(triples: np.ndarray, ranks: np.ndarray, broken: set[int]) -> dict[str, tuple[float, int]]:
    """MRR and number of queries: all, with, without an entity of `broken`; `triples` (n, 3), `ranks` (n,) realistic."""
    hit = np.isin(triples[:, [0, 2]], list(broken)).any(axis=1)
    parts = {"all": np.ones_like(hit), "with": hit, "without": ~hit}
    return {name: (float((1 / ranks[part]).mean()) if part.any() else np.nan, int(part.sum())) for name, part in
            parts.items()}  # fmt: skip


@stage
def main() -> None:
    options = run_arguments(__doc__).parse_args()
    ranks, train = test_ranks(options.graph, options.model, options.seed), train_facts(options.graph)
    folder = Path("data") / options.graph / "graph"
    sizes = [tables.read(folder / f"{name}.parquet", name).num_rows for name in ("entities", "relations")]
    broken = {one.entity for one in fused(train, *sizes)}
    found = with_and_without(ranks[["head", "relation", "tail"]].to_numpy(), ranks["realistic"].to_numpy(), broken)
    print(
        f"{options.model} on {options.graph}, seed {options.seed}, {len(broken)} fused entities; test MRR in percent:"
    )
    for name, (mrr, queries) in found.items():
        print(f"  {name:8} {100 * mrr:6.2f}  {queries:6,} queries")


if __name__ == "__main__":
    main()
