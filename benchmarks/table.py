"""docs/results.md out of benchmarks/results/: python -m benchmarks.table

A row for each graph and model: mean and deviation over seeds. The paired test compares the first seed's ranks with
those of the graph's best model; it needs the ranks, which lie where the runs were made, so what it found is kept in
benchmarks/results/<graph>/paired.json.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.run import RESULTS, VARIANTS, run_folder
from pipeline import tables
from stages.report.tables import display, find_published
from trainers.evaluation import ranking, significance

PAGE, README = Path("docs/results.md"), Path("README.md")
MARKS = ("<!-- results: written by `python -m benchmarks.table`, not by hand -->", "<!-- end of results -->")
METRICS = ("mrr", "hits_at_1", "hits_at_3", "hits_at_10")
HEAD = """# Results

Written by `make benchmark` out of `benchmarks/results/`, where each run has a file with its settings, code version, and
the command that repeats it. Test is ranked once, filtered, realistic ranks over all entities, both directions, in
percent: the mean over seeds ± their sample deviation. Weights are chosen on dev. Only runs that came to their end.

Published figures are on the released splits, and some leave out ties or choose on test; where each was printed stands
in `stages/report/published.csv`. *p*: paired permutation test of the first seed's MRR against the graph's best model.
"""


def results(variant: str) -> dict[str, dict[str, list[dict]]]:
    """All results of a variant: graph -> model -> runs by seed."""
    found: dict[str, dict[str, list[dict]]] = {}
    prefix = "" if variant == "clean" else f"{variant}-"
    for path in sorted(RESULTS.glob(f"*/*/{prefix}seed*.json")):
        one = json.loads(path.read_text(encoding="utf-8"))
        found.setdefault(one["graph"], {}).setdefault(one["model"], []).append(one)
    return found


def mean(runs: Sequence[dict], metric: str) -> float:
    """Mean of a metric on test over runs."""
    return float(np.mean([run["test"][metric] for run in runs]))


def best_first(models: dict[str, list[dict]]) -> list[tuple[str, list[dict]]]:
    """Models with their runs, the highest MRR first."""
    return sorted(models.items(), key=lambda item: -mean(item[1], "mrr"))


def paired(graph: str, models: dict[str, list[dict]]) -> dict[str, dict]:
    """model -> {best, p, difference} against the best model's first seed, as far as ranks are or were at hand."""
    path = RESULTS / graph / "paired.json"
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    (best, runs), *others = best_first(models)
    found = {}
    for model, theirs in others:
        folders = [run_folder(graph, name, one[0]["seed"], "clean") for name, one in ((best, runs), (model, theirs))]
        figures = [round(one[0]["test"]["mrr"], 6) for one in (runs, theirs)]
        if kept.get(model, {}).get("mrr") == figures and kept[model]["best"] == best:
            found[model] = kept[model]
        elif all((folder / "ranks.parquet").exists() for folder in folders):
            ranks = [ranking.read(folder / "ranks.parquet", "test") for folder in folders]
            compared = significance.compare(*ranks, ("mrr",))["mrr"]
            found[model] = {"best": best, "mrr": figures, "difference": compared["difference"], "p": compared["p"]}
    tables.write_json(path, found)
    return found


def spread(runs: Sequence[dict], metric: str) -> str:
    """Mean ± deviation in percent."""
    values = [100 * run["test"][metric] for run in runs]
    return f"{np.mean(values):.2f}" + (f" ± {np.std(values, ddof=1):.2f}" if len(values) > 1 else "")


def row(graph: str, model: str, runs: Sequence[dict], against: dict | None) -> str:
    """One line of a graph's table."""
    printed = find_published(graph, model)
    theirs = printed and printed.figures["mrr"]
    dev = np.mean([100 * run["dev_mrr"] for run in runs])
    cells = [
        display(model), spread(runs, "mrr"), *(f"{100 * mean(runs, metric):.1f}" for metric in METRICS[1:]),
        f"{dev:.2f}", str(len(runs)), "/".join(str(run["chosen_epoch"]) for run in runs),
        f"{np.median([run['seconds'] for run in runs]) / 60:.1f}",
        f"{max(run['peak_memory_bytes'] for run in runs) / 2**30:.1f}",
        "—" if theirs is None else f"{theirs:.2f}",
        "best" if against is None else f"{against['p']:.2g}" if against else "?",
    ]  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def page() -> str:
    """The whole page."""
    parts, all_ = [HEAD], {variant: results(variant) for variant in VARIANTS}
    for graph, models in sorted(all_["clean"].items()):
        against = paired(graph, models)
        parts += [f"\n## {graph}\n", "| model | MRR | H@1 | H@3 | H@10 | dev MRR | seeds | epoch | minutes | GiB | "
                  "published MRR | p |", "|---|---|---|---|---|---|---|---|---|---|---|---|"]  # fmt: skip
        for place, (model, runs) in enumerate(best_first(models)):
            parts.append(row(graph, model, runs, against.get(model, {}) if place else None))
        for variant, title in (("retrained", "Retrained on train + dev, everything chosen before kept"),
                               ("released", "On the released splits, as papers report")):  # fmt: skip
            if graph in all_[variant]:
                parts += [f"\n{title}:\n", "| model | MRR | H@1 | H@3 | H@10 | seeds |", "|---|---|---|---|---|---|"]
                for model, runs in best_first(all_[variant][graph]):
                    rest = " | ".join(f"{100 * mean(runs, metric):.1f}" for metric in METRICS[1:])
                    parts.append(f"| {display(model)} | {spread(runs, 'mrr')} | {rest} | {len(runs)} |")
    devices = sorted({run["device"] for models in all_["clean"].values() for runs in models.values() for run in runs})
    if devices:
        parts.append(
            "\nMinutes are of training and measuring on dev, the median over seeds, on "
            f"{', '.join(devices)}, which other work shared."
        )
    return "\n".join(parts) + "\n"


def summary() -> str:
    """The README's two tables: results on the clean splits, and what the data of each graph costs."""
    lines = [
        "| graph | model | test MRR | Hits@1 | Hits@10 | seeds | minutes of training | device |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for graph, models in sorted(results("clean").items()):
        for model, runs in best_first(models):
            minutes = np.median([run["seconds"] for run in runs]) / 60
            figures = (
                f"{spread(runs, 'mrr')} | {100 * mean(runs, 'hits_at_1'):.1f} | {100 * mean(runs, 'hits_at_10'):.1f}"
            )
            lines.append(
                f"| {graph} | {display(model)} | {figures} | {len(runs)} | {minutes:.0f} | {runs[0]['device']} |"
            )
    return "\n".join([*lines, *_costs()])


def _costs() -> list[str]:
    """A row for each graph whose data.json is there (benchmarks/cost.py)."""
    rows = []
    for path in sorted(RESULTS.glob("*/data.json")):
        one = tables.read_json(path)
        size = {name: f"{count / 2**20:.0f}" for name, count in one["bytes"].items()}
        seconds = [f"{taken:.0f}" for taken in one["encode_seconds"]]
        counts = [f"{one[name]:,}" for name in ("entities", "with_text", "with_picture")]
        rows.append([path.parent.name, *counts, *seconds, size["raw"], size["images"], size["encoded"]])
    head = ["graph", "entities", "with text", "with picture", "seconds to encode texts", "to encode pictures",
            "MiB of sources", "of pictures", "of features and tokens"]  # fmt: skip
    lines = [f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows]]
    return ["", *lines] if rows else []


def write() -> None:
    """Write docs/results.md, and the tables between the README's marks."""
    tables.write_text(PAGE, page())
    if not README.exists():
        return
    text = README.read_text(encoding="utf-8")
    before, _, rest = text.partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    tables.write_text(README, f"{before}{MARKS[0]}\n\n{summary()}\n\n{MARKS[1]}{after}")


if __name__ == "__main__":
    write()
