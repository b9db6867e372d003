"""One benchmark run: train a model of params.yaml on a real graph, rank test once, keep the figures.

    python -m benchmarks.run --graph MKG-Y --model complex --seed 0 [--variant clean | released | retrained | fast]

  clean      trained on train, weights chosen on dev: the headline
  released   the same on the splits as published, leaks included: what papers report
  retrained  trained on train + dev for as many epochs as `clean` with this seed has chosen; nothing else is changed
  fast       as clean, with the schedule that benchmarks/fast.yaml has for the model, where the papers' takes days here

Writes benchmarks/results/<graph>/<model>/[<variant>-]seed<k>.json when the run has come to its end and never before. In
Mosaic's, `dev_mrr_code_version` says which version has cross-validated the run's dev MRR again, where one has. An
interrupted run goes on from its last checkpoint when it is started again. Needs the graph's stages up to encode_*.
"""

import argparse
import json
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from pipeline import tables
from pipeline.errors import UserError
from pipeline.graph.formats import read_graph
from pipeline.graph.graph import write_graph
from pipeline.graph.splits import choose
from pipeline.settings import build
from stages.cli import stage
from stages.params import Params, load_params
from stages.params.models import model_settings
from trainers.evaluation import ranking
from trainers.training import runs
from trainers.training import train as training

GRAPHS = ("MKG-Y", "MKG-W", "DB15K")
VARIANTS = ("clean", "released", "retrained", "fast")
FAST = Path("benchmarks/fast.yaml")
RESULTS = Path("benchmarks/results")
WORK = Path("data/.work/benchmark")
KEPT = ("mrr", "mr", "hits_at_1", "hits_at_3", "hits_at_10", "queries")
OF_RUN = ("split", "train_on", "encoders", "seed", "epochs", "chosen_epoch", "dev_mrr", "seconds", "peak_memory_bytes",
          "device", "precision", "code_version")  # fmt: skip


def result_path(graph: str, model: str, seed: int, variant: str) -> Path:
    """Where a run's figures lie."""
    prefix = "" if variant == "clean" else f"{variant}-"
    return RESULTS / graph / model / f"{prefix}seed{seed}.json"


def run_folder(graph: str, model: str, seed: int, variant: str) -> Path:
    """Where a run's weights and ranks lie, on the machine that made them."""
    return WORK / "runs" / graph / model / f"{variant}-seed{seed}"


def test_ranks(graph: str, model: str, seed: int) -> pd.DataFrame:
    """The ranks of test that a clean run has left, a row a query. Raises UserError if the run is not there."""
    path = run_folder(graph, model, seed, "clean") / "ranks.parquet"
    if not path.exists():
        raise UserError(f"{path} is not there; python -m benchmarks.run makes it.")
    ranks = tables.read(path, "ranks").to_pandas()
    return ranks[ranks["split"] == "test"]


def train_facts(graph: str) -> np.ndarray:
    """(n, 3) head, relation, tail of the graph's train."""
    table = tables.read(Path("data") / graph / "graph" / "triples.parquet", "triples").to_pandas()
    return table[table["split"] == "train"][["head", "relation", "tail"]].to_numpy()


def settings_of(params: Params, graph: str, model: str, seed: int, variant: str) -> Any:
    """The model's settings on this graph; retrained: with the epochs that the clean run has chosen.

    Raises UserError if that run is not there, or no fast schedule of the model on this graph.
    """
    settings = model_settings(params, model, graph)
    if variant == "fast":
        return _fast(settings, graph, model)
    if variant != "retrained":
        return settings
    chosen = result_path(graph, model, seed, "clean")
    if not chosen.exists():
        raise UserError(f"{chosen} is not there: run the variant clean first, which chooses the epochs to train.")
    settings = replace(settings, epochs=json.loads(chosen.read_text(encoding="utf-8"))["chosen_epoch"])
    if hasattr(settings, "fusion_from"):
        settings = replace(settings, fusion_from=str(run_folder(graph, model, seed, "clean")))
    return settings


def _fast(settings: Any, graph: str, model: str) -> Any:
    keys = yaml.safe_load(FAST.read_text(encoding="utf-8")).get(model, {}).get(graph)
    if not keys:
        raise UserError(f"{FAST} has no schedule of {model} on {graph}; write one, or run another variant.")
    return build(type(settings), asdict(settings) | keys)


def done(path: Path, settings: object) -> bool:
    """Whether the figures of this run, with these settings, are there already."""
    if not path.exists():
        return False
    return json.loads(path.read_text(encoding="utf-8"))["settings"] == json.loads(json.dumps(asdict(settings)))


def graph_folder(params: Params, graph: str, variant: str) -> Path:
    """The folder of the graph's tables; those of the released splits are made if they are not there.

    Raises UserError if the graph has not been built, or not with clean splits.
    """
    clean = Path("data") / graph / "graph"
    if training.split_of(clean) != "clean":
        raise UserError(f"data/{graph}/graph is not built with `split: clean`; set that and run dvc repro.")
    if variant != "released":
        return clean
    folder = WORK / "graphs" / graph / "graph"
    if not (folder / "triples.parquet").exists():
        settings = params.graph[graph]
        read = read_graph(Path("data") / graph / "raw", settings.form)
        used, _ = choose(
            read.splits, "released", dev_share=settings.dev_share, seed=settings.split_seed,
            least_dev=settings.least_dev,
        )  # fmt: skip
        write_graph(folder, read.with_splits(used), {"stage": "benchmark", "split": "released"})
    return folder


def run(graph: str, model: str, seed: int, variant: str) -> dict:
    """Train, rank, write the result; returns it."""
    params = load_params()
    settings = settings_of(params, graph, model, seed, variant)
    tables_ = graph_folder(params, graph, variant)
    encoded, folder = Path("data") / graph / "encoded", run_folder(graph, model, seed, variant)
    schedule = training.Schedule(**params.train.model_dump())
    schedule = replace(schedule, train_on="train+dev" if variant == "retrained" else "train")
    inputs = training.inputs_of(model, settings, graph=tables_, encoded=encoded)
    mark = training.fingerprint(model, settings, schedule, seed=seed, inputs=inputs)
    about = runs.read_about(folder) if (folder / "run.json").exists() else {}
    if about.get("fingerprint") != mark:  # else it was interrupted after training
        about = training.train(
            model, settings, schedule, graph=tables_, encoded=encoded, run=folder, work=WORK / "unfinished", seed=seed
        )
    began = time.perf_counter()
    data = training.read(model, settings, graph=tables_, encoded=encoded)
    ranks = ranking.rank(
        runs.load_run(folder).score, data.test, training.filter_index(data), entities=data.entities,
        memory_bytes=params.evaluate.memory << 20,
    )  # fmt: skip
    ranking.write(folder / "ranks.parquet", {"test": ranks}, {"stage": "benchmark"})
    metrics = ranking.metrics(ranks)
    read = {**data.features, **data.tokens}
    found = {
        "graph": graph,
        "model": model,
        "variant": variant,
        "test": {name: metrics[name] for name in KEPT},
        **{name: about[name] for name in OF_RUN},
        "evaluate_seconds": time.perf_counter() - began,
        "coverage": {name: len(set(one.entity.tolist())) / data.entities for name, one in read.items()},
        "settings": asdict(settings),
        "command": f"python -m benchmarks.run --graph {graph} --model {model} --seed {seed} --variant {variant}",
    }
    if variant == "retrained":
        found["dev_mrr"] = None  # dev was learnt
    tables.write_json(result_path(graph, model, seed, variant), found)
    return found


def run_arguments(description: str | None) -> argparse.ArgumentParser:
    """A parser of what names a run: graph, model and seed."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graph", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--seed", type=int, default=0)
    return parser


@stage
def main() -> None:
    parser = run_arguments(__doc__)
    parser.add_argument("--variant", choices=VARIANTS, default="clean")
    options = parser.parse_args()
    found = run(options.graph, options.model, options.seed, options.variant)
    chosen = "" if found["dev_mrr"] is None else f"dev {100 * found['dev_mrr']:.2f}, "
    print(f"{found['model']} on {found['graph']}, {found['variant']}, seed {found['seed']}: {chosen}test "
          f"{100 * found['test']['mrr']:.2f}, {found['seconds']:.0f} s")  # fmt: skip


if __name__ == "__main__":
    main()
