"""Where the MRR of benchmark runs comes from: test queries by what train and the texts say of them.

    python -m benchmarks.groups --graph MKG-Y [--models mosaic complex] [--seed 0]

Reads data/<graph> and the ranks that `python -m benchmarks.run` kept on this machine; prints the table and writes
benchmarks/results/<graph>/groups-seed<k>.json, in which models of earlier calls stay. A query is in one of three groups
by train: one of its two entities has no fact there; some relation joins the two, in either direction; neither. And in
one of three by text: both entities have one beyond their name, one of them, none.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.run import RESULTS, test_ranks, train_facts
from pipeline import tables
from stages.cli import stage


def by_train(triples: np.ndarray, train: np.ndarray) -> np.ndarray:
    """(n,) words: "unseen", "joined" or "neither", for `triples` (n, 3) and the facts of `train` (m, 3)."""
    pairs = pd.MultiIndex.from_arrays(np.sort(train[:, [0, 2]], axis=1).T)
    asked = pd.MultiIndex.from_arrays(np.sort(triples[:, [0, 2]], axis=1).T)
    unseen = ~np.isin(triples[:, [0, 2]], train[:, [0, 2]]).all(axis=1)
    return np.select([unseen, asked.isin(pairs)], ["unseen", "joined"], "neither")


def by_text(triples: np.ndarray, described: np.ndarray) -> np.ndarray:
    """(n,) words: "both", "one" or "none" of a query's entities is `described` (k,)."""
    have = np.isin(triples[:, [0, 2]], described).sum(axis=1)
    return np.array(["none", "one", "both"])[have]


def mrr_by_group(ranks: pd.DataFrame, train: np.ndarray, described: np.ndarray) -> dict[str, dict[str, float]]:
    """group -> {mrr, queries} for a run's ranks, a row a query; `train` (m, 3), `described` (k,)."""
    triples, reciprocal = ranks[["head", "relation", "tail"]].to_numpy(), 1 / ranks["realistic"].to_numpy()
    found = {}
    for group in (by_train(triples, train), by_text(triples, described), np.full(len(triples), "all")):
        means = pd.Series(reciprocal).groupby(group).agg(["mean", "size"])
        found |= {name: {"mrr": float(mean), "queries": int(size)} for name, (mean, size) in means.iterrows()}
    return found


def keep(path: Path, graph: str, seed: int, found: dict[str, dict]) -> None:
    """Write what was found of some models beside what the file has of others."""
    kept = tables.read_json(path)["test"] if path.exists() else {}
    tables.write_json(path, {"graph": graph, "seed": seed, "test": kept | found})


@stage
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graph", required=True)
    parser.add_argument("--models", nargs="+", default=["mosaic", "complex"])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    folder = Path("data") / options.graph
    train = train_facts(options.graph)
    texts = tables.read(folder / "text.parquet", "text").to_pandas()
    described = texts.loc[texts["description"].notna(), "entity_id"].to_numpy()
    found = {
        model: mrr_by_group(test_ranks(options.graph, model, options.seed), train, described)
        for model in options.models
    }
    keep(RESULTS / options.graph / f"groups-seed{options.seed}.json", options.graph, options.seed, found)
    queries = {name: one["queries"] for groups in found.values() for name, one in groups.items()}
    percent = {model: {name: round(100 * one["mrr"], 2) for name, one in found[model].items()} for model in found}
    print(f"Test MRR on {options.graph}, seed {options.seed}, in percent:")
    print(pd.DataFrame({"queries": queries, **percent}).to_string())


if __name__ == "__main__":
    main()
