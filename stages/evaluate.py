"""Stage evaluate: the chosen weights of one run, ranked once on dev and once on test."""

from pathlib import Path

from pipeline import tables
from pipeline.graph.vocabulary import EVALUATED
from stages.cli import arguments, stage
from stages.params import load_params
from trainers.about import protocol_of
from trainers.evaluation import ranking, significance
from trainers.evaluation.metrics import METRICS, MRR, headline
from trainers.evaluation.protocols import protocol_metrics
from trainers.training import data, runs
from trainers.training.train import check_inputs, filter_index, resolve_device

# What run.json holds beyond that which each figure carries.
NOT_BESIDE_FIGURES = ("shapes", "settings", "inputs", "memmap", "reference_protocol")


@stage
def main() -> None:
    options = arguments(__doc__, "graph", "model").parse_args()
    params = load_params()
    device = resolve_device(params.train.device)
    graph = Path("data") / options.graph / "graph"
    folder = Path("runs") / options.graph / options.model
    run = runs.load_run(folder, device)
    check_inputs(folder, run.about, graph)
    triples = data.load(graph, graph.parent / "encoded", name=options.graph)
    known = filter_index(triples)
    protocol = params.evaluate.reference_protocol
    provenance = {key: value for key, value in run.about.items() if key not in NOT_BESIDE_FIGURES}
    ranks, shown = {}, {}
    for split in EVALUATED:
        ranks[split] = ranking.rank(
            run.score,
            getattr(triples, split),
            known,
            entities=triples.entities,
            memory_bytes=params.evaluate.memory << 20,
            device=device,
        )
    ranking.write(folder / "ranks.parquet", ranks, {**provenance, "kind": "ranks"})
    for split, one in ranks.items():
        found = {**ranking.metrics(one), "intervals": significance.intervals(one)}
        if protocol and split == "test":
            found["reference_protocol"] = {
                **run.about.get("reference_protocol", {}),
                "same_weights": protocol_metrics(protocol_of(protocol), one),
            }
        tables.write_json(folder / f"{split}.json", {**found, "provenance": provenance})
        shown[split] = {name: found[name] for name in headline()}
        figures = ", ".join(f"{METRICS[name].label} {found[name]:.4f}" for name in headline())
        print(f"{options.model} on {options.graph}, {split}: {figures} over {found['queries']:,} queries")
    # What `dvc metrics show` and `dvc exp show` print, and no more: a row that fits a terminal.
    dev = runs.comparable_dev_mrr(run.about, shown["dev"][MRR.name])
    tables.write_json(folder / "metrics.json", {**shown["test"], "dev_mrr": dev})


if __name__ == "__main__":
    main()
