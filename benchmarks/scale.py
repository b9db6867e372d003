"""What a graph's size costs: a step, an epoch, memory and ranking at ten and a hundred thousand and a million entities.

    python -m benchmarks.scale                                        # AdaMF-MAT at 10,000, 100,000 and 1,000,000
    python -m benchmarks.scale --entities 10000 100000 --models adamf_mat momok mygo --out tmp/scale

Each size is made once (benchmarks/synthetic.py: 10 triples an entity, features of width 768, planted structure) and
trained in a process of its own, so that the peak memory is its own. Settings are those meant for large graphs: frozen
features that stay on disk, lazy Adam and a pool of negatives for AdaMF-MAT; lazy Adam and a sampled set of candidates
for MoMoK and MyGO. A step's time is the median over the steps after a warm-up, beside that of processor time, which
other work on the machine disturbs less; `--gib` bounds each process. An epoch is measured where `--epochs` asks for
whole ones, else estimated as steps x time. Ranking is timed on `--queries` queries of test. The MRR on dev (as many
queries) before training and after the steps taken stands beside that of chance and what the planted structure allows.

Writes scale.csv, scale.md and scale.svg (log-log) to `--out`. Synthetic graphs lie in `--work` and are kept: a million
entities need 6 GB there as Parquet and 5 GB unpacked.
"""

import argparse
import csv
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks import synthetic
from benchmarks.conditions import add_bound, as_trained, bound
from trainers.about import module_of
from trainers.evaluation import ranking
from trainers.training.data import Data
from trainers.training.runs import peak_memory
from trainers.training.train import filter_index, read

# What suits a large graph, and rates at which a few hundred steps show learning.
SETTINGS = {
    "adamf_mat": {
        "feature_table": "frozen", "optimizer": "lazy_adam", "negative_pool": 4096, "learning_rate": 0.005,
    },
    "momok": {"candidates": 4096, "optimizer": "lazy_adam", "learning_rate": 0.001},
    "mygo": {"candidates": 4096, "optimizer": "lazy_adam", "learning_rate": 0.001},
}  # fmt: skip
COLUMNS = {
    "entities": "entities",
    "step_seconds": "s a step",
    "step_cpu_seconds": "of processor time",
    "epoch_seconds": "s an epoch",
    "prepare_seconds": "s to embed all",
    "evaluation_seconds": "s a thousand queries ranked",
    "load_seconds": "s to load",
    "index_seconds": "s to index facts",
    "peak_gigabytes": "peak GB",
    "mrr_before": "dev MRR before",
    "mrr_after": "dev MRR after",
    "steps_taken": "steps",
    "chance": "chance",
    "ceiling": "planted",
}


def main() -> None:
    arguments = parse()
    if arguments.worker:
        bound(arguments.gib)
        print(json.dumps(measure(arguments, arguments.models[0], arguments.entities[0])))
        return
    rows = []
    for entities in arguments.entities:
        make(arguments.work / str(entities), entities)
        for model in arguments.models:
            rows.append(worker(arguments, model, entities))
            print(line(rows[-1]), flush=True)
            publish(arguments.out, rows, shown(rows, arguments))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entities", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--models", nargs="+", choices=SETTINGS, default=["adamf_mat"])
    parser.add_argument("--warmup", type=int, default=5)
    parser.add_argument("--train-steps", type=int, default=300, help="steps taken, the first --warmup not timed")
    parser.add_argument("--epochs", type=int, default=0, help="whole epochs instead of --train-steps")
    parser.add_argument("--queries", type=int, default=400, help="queries ranked, at most")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=JSON", help="another setting of the models")
    add_bound(parser)
    parser.add_argument("--out", type=Path, default=Path("tmp/scale"))
    parser.add_argument("--work", type=Path, default=Path("data/.work/scale"))
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def make(folder: Path, entities: int) -> None:
    """The graph, unless it is there."""
    if not (folder / "whole").exists():
        print(f"making a graph of {entities:,} entities", file=sys.stderr, flush=True)
        synthetic.write(folder, entities)
        (folder / "whole").touch()


def worker(arguments: argparse.Namespace, model: str, entities: int) -> dict:
    """Run this file again for one measurement, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.scale", "--worker", "--entities", str(entities), "--models", model]
    for name in ("warmup", "train_steps", "epochs", "queries", "work"):
        command += [f"--{name.replace('_', '-')}", str(getattr(arguments, name))]
    command += [part for pair in arguments.set for part in ("--set", pair)]
    command += ["--gib", str(arguments.gib)] if arguments.gib else []
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{model} at {entities:,} entities failed")
    return json.loads(done.stdout.splitlines()[-1])


def measure(arguments: argparse.Namespace, model: str, entities: int) -> dict:
    """Everything that is asked of one model at one size."""
    module, folder = module_of(model), arguments.work / str(entities)
    changed = {key: json.loads(value) for key, value in (pair.split("=", 1) for pair in arguments.set)}
    settings = module.Settings(**{**SETTINGS[model], **changed})
    data, load_seconds = timed(
        lambda: read(
            model, settings, graph=folder / "graph", encoded=folder / "encoded", memmap=arguments.work / "tables"
        )
    )
    known, index_seconds = timed(lambda: filter_index(data))
    built, build_seconds = timed(lambda: module.build(data, settings, torch.Generator().manual_seed(0)))
    learner, learner_seconds = timed(
        lambda: module.Learner(built, data, settings, device=torch.device("cpu"), precision=torch.float32, seed=0)
    )
    before = mrr(built, data, data.dev, queries=arguments.queries, known=known)
    with as_trained(torch.device("cpu")):
        trained = train(learner, arguments)
    asked = 2 * min(arguments.queries // 2, len(data.test))
    scorer, prepare_seconds = timed(built.eval().scorer)
    after = mrr(built, data, data.dev, queries=arguments.queries, known=known, scorer=scorer)
    _, rank_seconds = timed(lambda: mrr(built, data, data.test, queries=asked, known=known, scorer=scorer))
    return {
        "model": model,
        "entities": entities,
        "triples": len(data.train),
        "load_seconds": load_seconds,
        "index_seconds": index_seconds,
        "build_seconds": build_seconds + learner_seconds,
        **trained,
        "prepare_seconds": prepare_seconds,
        "evaluation_seconds": rank_seconds / asked * 1000,
        "peak_gigabytes": peak_memory(torch.device("cpu")) / 1e9,
        "mrr_before": before,
        "mrr_after": after,
        "chance": synthetic.chance(entities),
        "ceiling": synthetic.ceiling(),
        "threads": torch.get_num_threads(),
    }


def train(learner, arguments: argparse.Namespace) -> dict:
    """Take steps, over epochs where they are short; the median of the timed ones, and an epoch's time."""
    torch.manual_seed(0)
    learner.model.train()
    seconds, busy, began, epoch = [], [], time.perf_counter(), 0
    wanted = arguments.epochs * learner.steps_per_epoch or max(arguments.train_steps, arguments.warmup + 1)
    while len(seconds) < wanted:
        batches = iter(learner.batches(epoch))
        for _ in range(min(learner.steps_per_epoch, wanted - len(seconds))):
            before = time.process_time()
            seconds.append(timed(lambda batches=batches: learner.step(next(batches)))[1])
            busy.append(time.process_time() - before)
        epoch += 1
    step = statistics.median(seconds[arguments.warmup :])
    whole = (time.perf_counter() - began) / arguments.epochs if arguments.epochs else step * learner.steps_per_epoch
    return {
        "step_seconds": step,
        "step_cpu_seconds": statistics.median(busy[arguments.warmup :]),
        "step_low_seconds": float(np.quantile(seconds[arguments.warmup :], 0.1)),
        "steps_an_epoch": learner.steps_per_epoch,
        "epoch_seconds": whole,
        "epoch_measured": bool(arguments.epochs),
        "steps_taken": len(seconds),
    }


def mrr(model: nn.Module, data: Data, triples: Tensor, *, queries: int, known=None, scorer=None) -> float:
    """The realistic filtered MRR of a seeded sample of `triples` (n, 3), in both directions: `queries` in all."""
    order = torch.randperm(len(triples), generator=torch.Generator().manual_seed(0))
    asked = triples[order[: max(1, queries // 2)]]
    training = model.training
    model.eval()
    ranks = ranking.rank(scorer or model.scorer(), asked, known or filter_index(data), entities=data.entities)
    model.train(training)
    return float(ranking.metrics(ranks)["mrr"])


def timed(work) -> tuple[object, float]:
    """What `work` returns, and its seconds."""
    began = time.perf_counter()
    found = work()
    return found, time.perf_counter() - began


# ------------------------------------------------------------------------------------------------------------- output


def line(row: dict) -> str:
    parts = [f"{label} {number(row[name])}" for name, label in COLUMNS.items() if name != "entities"]
    return f"{row['model']} at {row['entities']:,} entities: " + ", ".join(parts)


def number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"


def shown(rows: list[dict], arguments: argparse.Namespace) -> str:
    """The table as Markdown, and how a step's time grows."""
    out = ["| model | " + " | ".join(COLUMNS.values()) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    out += [f"| {row['model']} | " + " | ".join(number(row[name]) for name in COLUMNS) + " |" for row in rows]
    out.append("")
    for model in arguments.models:
        own = [row for row in rows if row["model"] == model]
        if len(own) > 1:
            ratio, busy = (own[-1][name] / own[0][name] for name in ("step_seconds", "step_cpu_seconds"))
            out.append(f"A step of {model} at {own[-1]['entities']:,} entities takes {ratio:.2f} times as long as at "
                       f"{own[0]['entities']:,} ({busy:.2f} times the processor time).")  # fmt: skip
    measured = "measured" if rows[-1]["epoch_measured"] else "estimated as steps x median time"
    out.append(f"{rows[-1]['threads']} threads; an epoch's time is {measured}.")
    return "\n".join(out) + "\n"


def publish(folder: Path, rows: list[dict], text: str) -> None:
    """Write the table and the plot anew."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "scale.md").write_text(text, encoding="utf-8")
    with open(folder / "scale.csv", "w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    plot(rows, folder / "scale.svg")


def plot(rows: list[dict], path: Path) -> None:
    """Seconds and memory over the number of entities, both axes logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    wanted = ("step_seconds", "epoch_seconds", "evaluation_seconds", "peak_gigabytes")
    figure, axes = pyplot.subplots(1, len(wanted), figsize=(4 * len(wanted), 3.4), layout="constrained")
    for axis, name in zip(axes, wanted, strict=True):
        for model in dict.fromkeys(row["model"] for row in rows):
            own = [row for row in rows if row["model"] == model]
            axis.loglog([row["entities"] for row in own], [row[name] for row in own], marker="o", label=model)
        axis.set(xlabel="entities", title=COLUMNS[name])
        axis.grid(visible=True, which="both", alpha=0.2)
    axes[0].legend()
    figure.savefig(path)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
