"""docs/results.md out of benchmarks/results/: python -m benchmarks.table

A row for each graph and model: mean and deviation over seeds. The paired test compares the first seed's ranks with
those of the graph's best model; it needs the ranks, which lie where the runs were made, so what it found is kept in
benchmarks/results/<graph>/paired.json.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.run import GRAPHS, RESULTS, VARIANTS, run_folder
from pipeline import tables
from pipeline.wikimedia.fetching import BATCH
from stages.report.tables import display, find_published
from trainers.about import MODELS
from trainers.evaluation import ranking, significance

PAGE, README = Path("docs/results.md"), Path("README.md")
MARKS = ("<!-- results: written by `python -m benchmarks.table`, not by hand -->", "<!-- end of results -->")
UNKNOWN = "– not measured"
RATE = 5  # requests a second: `web.rate` of params.yaml
METRICS = ("mrr", "hits_at_1", "hits_at_3", "hits_at_10")
HEAD = """# Results

Written by `make benchmark` out of `benchmarks/results/`, where each run has a file with its settings, code version, and
the command that repeats it. Test is ranked once, filtered, realistic ranks over all entities, both directions, in
percent: the mean over seeds ± their sample deviation. Weights are chosen on dev. Only runs that came to their end.

Published figures are on the released splits, and of each paper's own code, which treats ties in its own way and may
choose on test ([science](science.md#what-cannot-be-compared)); where each was printed stands in
`stages/report/published.csv`. *reads*: the encoder of each modality beside the structure, and how many of the entities
have it. *p*: paired permutation test of the first seed's MRR against the graph's best model; 0.0001 is the least that
10,000 permutations can show.
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


def reads(run: dict) -> str:
    """The encoder of each modality that a run has read, and the share of entities that have it."""
    found = [
        f"{name} {run['coverage'][name]:.0%} ({about['encoder']})" for name, about in sorted(run["encoders"].items())
    ]
    return ", ".join(found) or "structure alone"


def published(graph: str, model: str) -> str:
    """The MRR that is printed for a model, in percent."""
    printed = find_published(graph, model)
    return f"{printed.figures['mrr']:.2f}" if printed else "—"


def row(graph: str, model: str, runs: Sequence[dict], against: dict | None) -> str:
    """One line of a graph's table."""
    dev = np.mean([100 * run["dev_mrr"] for run in runs])
    cells = [
        display(model), spread(runs, "mrr"), *(f"{100 * mean(runs, metric):.1f}" for metric in METRICS[1:]),
        f"{dev:.2f}", str(len(runs)), "/".join(str(run["chosen_epoch"]) for run in runs),
        f"{np.median([run['seconds'] for run in runs]) / 60:.1f}",
        f"{max(run['peak_memory_bytes'] for run in runs) / 2**30:.1f}",
        reads(runs[0]), published(graph, model),
        "best" if against is None else f"{against['p']:.2g}" if against else "?",
    ]  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def other(graph: str, model: str, runs: Sequence[dict]) -> str:
    """One line of the table of a variant that is not the headline."""
    rest = (f"{100 * mean(runs, metric):.1f}" for metric in METRICS[1:])
    epochs = "/".join(str(run["chosen_epoch"]) for run in runs)
    minutes = np.median([run["seconds"] for run in runs]) / 60
    cells = [display(model), spread(runs, "mrr"), *rest, str(len(runs)), epochs, f"{minutes:.0f}", reads(runs[0]),
             published(graph, model)]  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def page() -> str:
    """The whole page."""
    parts, all_ = [HEAD], {variant: results(variant) for variant in VARIANTS}
    for graph, models in sorted(all_["clean"].items()):
        against = paired(graph, models)
        parts += [f"\n## {graph}\n", "| model | MRR | H@1 | H@3 | H@10 | dev MRR | seeds | epoch | minutes | GiB | "
                  "reads | published MRR | p |", "|---|---|---|---|---|---|---|---|---|---|---|---|---|"]  # fmt: skip
        for place, (model, runs) in enumerate(best_first(models)):
            parts.append(row(graph, model, runs, against.get(model, {}) if place else None))
        for variant, title in (("retrained", "Retrained on train + dev, everything chosen before kept"),
                               ("released", "On the released splits, as papers report"),
                               ("fast", "By the shorter schedules of `benchmarks/fast.yaml`")):  # fmt: skip
            if graph in all_[variant]:
                parts += [f"\n{title}:\n", "| model | MRR | H@1 | H@3 | H@10 | seeds | epoch | minutes | "
                          "reads | published MRR |", "|---|---|---|---|---|---|---|---|---|---|"]  # fmt: skip
                parts += [other(graph, model, runs) for model, runs in best_first(all_[variant][graph])]
    devices = sorted({_device(run) for models in all_["clean"].values() for runs in models.values() for run in runs})
    if devices:
        parts.append(
            "\nMinutes are of training and measuring on dev, the median over seeds, on "
            f"{', '.join(devices)}, which other work shared."
        )
    return "\n".join(parts) + "\n"


def summary() -> str:
    """The README's three tables: results on the clean splits, what training costs, what the data of a graph costs."""
    found = sorted(results("clean").items())
    rows = [
        [graph, display(model), spread(runs, "mrr"), *(f"{100 * mean(runs, one):.1f}" for one in METRICS[1::2]),
         str(len(runs))]
        for graph, models in found
        for model, runs in best_first(models)
    ]  # fmt: skip
    scores = _table(["graph", "model", "test MRR", "Hits@1", "Hits@10", "seeds"], rows)
    return "\n\n".join((*_in_short(dict(found)), scores, _training(dict(found)), *_data()))


def _in_short(found: dict[str, dict[str, list[dict]]]) -> list[str]:
    """What DB15K costs and how good it gets, in a sentence, if both were measured."""
    path = RESULTS / "DB15K" / "data.json"
    if "DB15K" not in found or not path.exists():
        return []
    one, (model, runs) = tables.read_json(path), best_first(found["DB15K"])[0]
    raw, features = (_mebibytes(one["bytes"][name]) for name in ("raw", "encoded"))
    minutes = np.median([run["seconds"] for run in runs]) / 60
    return [
        f"**DB15K in short**: {raw} MiB of sources to download, {one['encode_seconds'][0] / 60:.0f} minutes to encode "
        f"{one['encoded_rows'][0]:,} texts, which with those that other graphs share are {features} MiB; then "
        f"{display(model)}, the best measured on it, reaches an MRR of {spread(runs, 'mrr')} % on test after "
        f"{minutes:.0f} minutes of training ({_device(runs[0])})."
    ]


def _training(found: dict[str, dict[str, list[dict]]]) -> str:
    """A row for each model with the minutes of its training on each graph; one row for all that are not measured."""
    graphs, rows, others, fast = sorted({*found, *GRAPHS}), [], [], results("fast")
    for model in MODELS:
        runs, named = {graph: found.get(graph, {}).get(model, []) for graph in graphs}, display(model)
        if not any(runs.values()):
            runs, named = {graph: fast.get(graph, {}).get(model, []) for graph in graphs}, f"{named}, fast schedule"
        if not any(runs.values()):
            others.append(display(model))
            continue
        on_gpu = [f"{graph} {_minutes(some, cpu=False)}" for graph, some in runs.items() if _minutes(some, cpu=False)]
        on_cpu = [_minutes(some, cpu=True) or UNKNOWN for some in runs.values()]
        rows.append([named, *on_cpu, ", ".join(on_gpu) or UNKNOWN])
    if others:
        rows.append([", ".join(others), *[UNKNOWN] * (len(graphs) + 1)])
    return _table(["minutes of training", *(f"{graph}, CPU" for graph in graphs), "GPU"], rows)


def _minutes(runs: Sequence[dict], *, cpu: bool) -> str:
    """The median over seeds of the runs on a CPU, or on what is none, and what they had of it; "" without one."""
    here = [run for run in runs if ("CPU" in run["device"]) == cpu]
    if not here:
        return ""
    return f"{np.median([run['seconds'] for run in here]) / 60:.0f} ({_device(here[0]).removeprefix('x86_64 CPU, ')})"


def _device(run: dict) -> str:
    return re.sub(r"\b1 threads$", "1 thread", run["device"])  # as runs said before


def _data() -> list[str]:
    """A row for each graph whose data.json is there (benchmarks/cost.py), and what Wikimedia would be asked for it."""
    rows, asked = [], []
    for path in sorted(RESULTS.glob("*/data.json")):
        one, graph = tables.read_json(path), path.parent.name
        size = {name: _mebibytes(count) for name, count in one["bytes"].items()}
        encoded = zip(one["encoded_rows"], one["encode_seconds"], strict=True)
        text, image = (f"{number:,} in {taken:.0f}" for number, taken in encoded)
        pictures = [f"{one['with_picture']:,}", image, size["images"]] if one["with_picture"] else ["– none", "–", "–"]
        rows.append(
            [graph, f"{one['entities']:,}", f"{one['with_text']:,}", text, *pictures, size["encoded"], size["raw"]]
        )
        if graph in GRAPHS:
            asked.append([graph, *_asked(one["entities"])])
    head = ["graph", "entities", "with text", "encoded, in seconds", "with picture", "encoded, in seconds",
            "MiB of pictures", "of features and tokens", "of sources"]  # fmt: skip
    requests = ["requests to Wikimedia, computed", "for texts", "for texts and a picture an entity"]
    return [_table(head, rows), _table(requests, asked)] if rows else []


def _mebibytes(count: int) -> str:
    return f"{count / 2**20:.{0 if count >= 10 * 2**20 else 1}f}"


def _asked(entities: int) -> list[str]:
    """Requests for the texts; for texts, a picture of each entity and its licence; and the minutes that they take."""
    batches = -(-entities // BATCH)
    return [f"{number:,} ({number / RATE / 60:.0f} min)" for number in (batches, entities + 2 * batches)]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])


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
