"""Writes a model card of a trained run, in the form of the Hugging Face hub: `make card RUN=runs/mini/rotate`.

README.md in the run's folder: the front matter that the hub reads (licence, data set, metrics), then what the run is,
what it was trained on, how good it is with its interval, what it cost, how to load it, and what to be wary of. All of
it comes from run.json, dev.json and test.json; nothing is measured again.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.compat import StringIO

from pipeline import tables
from pipeline.tables import read_json
from stages.cli import stage
from trainers.about import about_model
from trainers.evaluation.metrics import METRICS, headline

# Of the facts that a model was trained on; docs/licences.md says more, and what follows for weights.
LICENCES = {"mini": "cc-by-sa-3.0", "DB15K": "cc-by-sa-3.0"}


def card(folder: Path) -> str:
    """The card of a run. Raises UserError if the run was not evaluated."""
    about, dev, test = (read_json(folder / name) for name in ("run.json", "dev.json", "test.json"))
    parts = [f"---\n{_yaml(front_matter(about, test))}---\n", _heading(about), _results(dev, test), _training(about)]
    return "\n".join([*parts, _use(about, folder), _limits(about)])


def front_matter(about: Mapping, test: Mapping) -> dict:
    """What the hub reads: its model-index has the headline metrics on test, as fractions."""
    licence = LICENCES.get(about["graph"])
    figures = [
        {"type": name, "name": f"{METRICS[name].label} (filtered, realistic)", "value": round(test[name], 6)}
        for name in headline()
    ]
    kind = {"type": "link-prediction", "name": "Link prediction"}
    data = {"name": about["graph"], "type": about["graph"], "split": "test"}
    return {
        "license": licence or "other",
        **({} if licence else {"license_name": "see-docs-licences"}),
        "library_name": "tessera-mmkgc",
        "tags": ["knowledge-graph-completion", "multi-modal-knowledge-graph", about["model"]],
        "datasets": [about["graph"]],
        "metrics": headline(),
        "model-index": [
            {"name": f"{about['model']}-{about['graph']}",
             "results": [{"task": kind, "dataset": data, "metrics": figures}]}
        ],
    }  # fmt: skip


def _yaml(tree: dict) -> str:
    text = StringIO()
    YAML(typ="safe", pure=True).dump(tree, text)
    return text.getvalue()


def _heading(about: Mapping) -> str:
    name = about_model(about["model"]).name
    shapes = about["shapes"]
    return (
        f"# {name} on {about['graph']}\n\n{name}, trained with Tessera on the graph {about['graph']} "
        f"({shapes['entities']:,} entities, {shapes['relations']:,} relations; split: {about['split']}). Given two "
        "parts of a fact, it ranks all entities as the third.\n"
    )


def _results(dev: Mapping, test: Mapping) -> str:
    rows = ["## How good it is\n", "| | test | 95 % interval | dev |", "|---|---:|---:|---:|"]
    for name in headline():
        metric, bounds = METRICS[name], test["intervals"][name]
        between = f"{metric.text(bounds[0])} to {metric.text(bounds[1])}"
        rows.append(f"| {metric.heading} | {metric.text(test[name])} | {between} | {metric.text(dev[name])} |")
    rows.append(
        f"\nFiltered ranking over all entities, both directions, ties count half; {test['queries']:,} queries. "
        "Dev chose the epoch; test was ranked once. The interval speaks of other queries, not of another training.\n"
    )
    return "\n".join(rows)


def _training(about: Mapping) -> str:
    named = ", ".join(f"{one}: {_name(made)}" for one, made in sorted((about.get("encoders") or {}).items())) or "none"
    told = {
        "encoders": named, "seed": about["seed"], "epochs (chosen)": f"{about['epochs']} ({about['chosen_epoch']})",
        "seconds": f"{about['seconds']:.0f}", "peak memory": f"{about['peak_memory_bytes'] / 2**30:.2f} GiB",
        "device": about["device"], "precision": about["precision"], "trained on": about.get("date", "unknown"),
        "code version": about["code_version"],
    }  # fmt: skip
    lines = [f"| {term} | {value} |" for term, value in told.items()]
    return "\n".join(["## How it was made\n", "| | |", "|---|---|", *lines, ""])


def _name(made: object) -> str:
    return str(made.get("encoder", "unnamed")) if isinstance(made, Mapping) else str(made)


def _use(about: Mapping, folder: Path) -> str:
    return (
        "## How to use it\n\n```python\nfrom trainers.training.runs import load_run\n\n"
        f'run = load_run("{folder.as_posix()}")\nrun.ask("<an entity>", "<a relation>", k=10)\n```\n\n'
        f"Names are looked up in the tables of {about['graph']} that it was trained on; others are refused.\n"
    )


def _limits(about: Mapping) -> str:
    wary = [
        "It knows the entities and relations of its graph, and no others.",
        "It repeats what its facts say, their errors and their gaps included; a high score is no evidence.",
        "Facts of people may be among the answers; do not decide about people by them.",
    ]
    if about["split"] == "released":
        wary.append("Dev and test may share facts with train in the released split.")
    lines = "\n".join(f"- {one}" for one in wary)
    licences = "## Licences\n\nOf facts, texts, pictures and encoders: docs/licences.md.\n"
    return f"## What to be wary of\n\n{lines}\n\n{licences}"


@stage
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the run's folder, such as runs/mini/rotate")
    folder = parser.parse_args().run
    text = card(folder)
    tables.write_text(folder / "README.md", text)
    print(f"{folder / 'README.md'}: {len(text.splitlines())} lines")


if __name__ == "__main__":
    main()
