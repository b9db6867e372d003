"""The floor that every model must clear: rank candidates by how often train has them on the asked side of the relation.

    python benchmarks/frequency.py --graph data/mini/graph [--run runs/mini/adamf_mat]

Prints the filtered test figures of that ranking (both directions, realistic ranks) and, with --run, how many times
higher the run's test MRR is.
"""

import argparse
import json
from pathlib import Path

import torch
from torch import Tensor

from pipeline.graph.filter_index import FilterIndex
from trainers.evaluation import ranking
from trainers.training.data import Data, load


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--graph", type=Path, required=True, help="folder of a graph's tables")
    parser.add_argument("--run", type=Path, help="a run's folder, to compare with")
    options = parser.parse_args()
    data = load(options.graph, options.graph, name=options.graph.parent.name)
    known = FilterIndex.build(torch.cat([data.train, data.dev, data.test]), data.entities, data.relations)
    found = ranking.metrics(ranking.rank(frequency(data), data.test, known, entities=data.entities))
    shown = ", ".join(f"{key} {found[key]:.4f}" for key in ("mrr", "hits_at_1", "hits_at_3", "hits_at_10"))
    print(f"{data.name}, frequency, test: {shown}")
    if options.run:
        run = json.loads((options.run / "test.json").read_text())
        print(f"{options.run}, test: mrr {run['mrr']:.4f}, {run['mrr'] / found['mrr']:.2f} times that")


def frequency(data: Data):
    """A scorer: counts (R, E) of train rows that have the candidate as tail (as head) of the relation."""
    counts = {side: torch.zeros(data.relations, data.entities) for side in ("head", "tail")}
    for side, column in (("head", 0), ("tail", 2)):
        ones = torch.ones(len(data.train))
        counts[side].index_put_((data.train[:, 1], data.train[:, column]), ones, accumulate=True)

    def score(known: Tensor, relation: Tensor, side: str) -> Tensor:
        return counts[side][relation]

    return score


if __name__ == "__main__":
    main()
