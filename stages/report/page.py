"""The report's page: gathers what the sections show and fills the template."""

import base64
import csv
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from pipeline.errors import UserError
from pipeline.graph.audit import fused_table
from pipeline.graph.vocabulary import SPLITS
from stages import plots
from stages.report import figures, words
from stages.report import predictions as answers
from stages.report import tables as report
from stages.report.content import Curve, Entity, Result, Section, Study, Trained, Wins
from stages.report.inputs import Graph, Run, read_graph, read_json, read_runs
from stages.report.predictions import Scoring
from trainers.evaluation.metrics import METRICS, MRR
from trainers.training.runs import load_run

TEMPLATES = Path(__file__).parent / "templates"
SHOWN = 100  # entities that are two things, on the page; its table has all


def page(root: Path, graphs: Sequence[str], models: Sequence[str], load: Callable[[Path], Scoring] = load_run) -> str:
    """The whole page as HTML: a function of the files below `root` alone, so that DVC sees no change where none is.

    `load` turns a run's folder into what answers `score(known, relation, side)`.
    Raises UserError if a run or a table is missing or damaged.
    """
    runs = read_runs(root, graphs, models)
    sections = []
    for name in graphs:
        graph = read_graph(root, name)
        sections.append(_section(graph, [run for run in runs if run.graph == name], load))
    environment = _environment()
    script = environment.get_template("report.js").render()
    return environment.get_template("report.html").render(
        sections=sections,
        names=list(models),
        models=[report.display(model) for model in models],
        studies=_studies(root),
        citations=report.citations(graphs, runs),
        few=report.FEW,
        light=plots.variables(plots.LIGHT),
        dark=plots.variables(plots.DARK),
        script=Markup(script),
        script_hash="sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _environment() -> "Environment":
    """Templates with the functions that they call."""
    environment = Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    environment.filters |= {"percent": _percent, "duration": _duration, "size": _size, "slug": report.plain}
    environment.filters["values"] = lambda one: one.values()
    environment.globals |= {"display": report.display, "short": words.short, "splits": SPLITS, "mrr": MRR}
    environment.globals["glyph"] = plots.glyph
    return environment


class Environment(jinja2.Environment):
    """Templates that may ask a dict for its keys, `about["seed"]`, but never for attributes.

    `best.clear` on a dict would be the dict's method `clear`, which is true whatever the dict holds.
    """

    def getattr(self, obj: object, attribute: str) -> object:
        if isinstance(obj, Mapping):
            raise TypeError(f"a template asks a dict for the attribute {attribute!r}; pass it a dataclass")
        return super().getattr(obj, attribute)


def _section(graph: Graph, runs: list[Run], load: Callable[[Path], Scoring]) -> Section:
    """All that the page shows of one graph."""
    bars = report.coverage(graph)
    return Section(
        graph=graph,
        runs=runs,
        counts=words.counts(graph.audit),
        findings=words.findings(graph.audit),
        coverage=Markup(figures.coverage(bars, _covered(bars, graph.name))),
        missing=report.reasons_of_missing(graph),
        fused=_fused(graph),
        fused_table=_fused_table(graph),
        trained=_trained(graph, runs, load) if runs else None,
    )


def _covered(bars: Sequence[tuple[str, Mapping[str, float]]], graph: str) -> str:
    """What the figure of coverage shows, in words: its first bar."""
    parts = ", ".join(f"{name} {100 * share:.0f} %" for name, share in bars[0][1].items())
    return f"Of the entities of {graph}: {parts}."


def _fused(graph: Graph) -> list[tuple[Entity, str, str]]:
    """The entities that the audit holds for two things, the first SHOWN, with the relations that tell."""
    ids = {key: entity for entity, key in enumerate(graph.keys)}
    found = [one for one in graph.audit.get("fused", {}).get("entities", ()) if one["entity"] in ids]
    return [
        (answers.entity_of(graph, ids[one["entity"]]), _relations(one["one"]), _relations(one["other"]))
        for one in found[:SHOWN]
    ]


def _relations(keys: Sequence[str]) -> str:
    return ", ".join(map(words.short, keys))


def _fused_table(graph: Graph) -> str:
    found = graph.audit.get("fused") or {"entities": []}
    return "data:text/csv;base64," + base64.b64encode(fused_table(found).encode()).decode("ascii")


def _trained(graph: Graph, runs: Sequence[Run], load: Callable[[Path], Scoring]) -> Trained:
    """What the page shows of the models that were trained on a graph."""
    results = report.results(graph, runs, words.released_dev(graph.audit))
    queries, kinds = answers.predictions(graph, runs, load=load)
    thumbnails = answers.Thumbnails()
    thumbnails.read(graph, answers.entities(queries))
    wins = report.wins(graph, runs)
    return Trained(
        results=results,
        figure=Markup(figures.intervals(results.rows, _told(results.rows, graph.name))),
        differences=Markup(figures.differences(results.rows, results.sentence)),
        curves=_curves(graph.name, runs),
        wins=wins,
        heat=_heat_maps(graph, runs, wins),
        by_group=report.by_group(graph, runs),
        completed=report.completed(runs),
        reliability=Markup(_reliability(graph.name, runs)),
        queries=queries,
        kinds=kinds,
        thumbnails=thumbnails.uris,
    )


def _told(rows: Sequence[Result], graph: str) -> str:
    """What the figure of results shows, in words."""
    figures_ = ", ".join(f"{row.label} {MRR.text(row.mrr)}" for row in rows)
    return f"Test {MRR.label} on {graph} in percent, the best first: {figures_}."


def curves(root: Path, graphs: Sequence[str], models: Sequence[str]) -> dict[str, str]:
    """For each graph the dev MRR of all its runs over epochs, as an SVG file of its own.

    Raises UserError if a run is missing or damaged.
    """
    found = {}
    for graph in graphs:
        drawn = _dev_curves(graph, read_runs(root, [graph], models))
        if drawn:
            found[graph] = figures.standalone(drawn)
    return found


def _dev_curves(graph: str, runs: Sequence[Run]) -> str:
    """Dev MRR of all models in one figure; empty if no run has a history."""
    dev: list[dict[str, Any]] = [
        {"label": report.display(run.model), "model": run.model, "place": place, "epoch": run.history["epoch"],
         "dev_mrr": run.history["dev_mrr"], "chosen": run.about.get("chosen_epoch")}
        for place, run in enumerate(runs) if len(run.history.get("epoch", ()))
    ]  # fmt: skip
    measured = [one for one in dev if np.isfinite(one["dev_mrr"]).any()]
    best = ", ".join(f"{one['label']} {100 * np.nanmax(one['dev_mrr']):.1f} % at best" for one in measured)
    return figures.dev_curves(dev, f"Dev MRR on {graph} by epoch: {best}.") if dev else ""


def _curves(graph: str, runs: Sequence[Run]) -> list[Curve]:
    """Dev MRR of all models in one figure, then each model's loss."""
    with_history = [(place, run) for place, run in enumerate(runs) if len(run.history.get("epoch", ()))]
    if not with_history:
        return []
    drawn = [Curve(Markup(_dev_curves(graph, runs)), "", [])]
    other = ("epoch", "step", "dev_mrr", "triples_per_second", "seconds")
    for place, run in with_history:
        terms = {name: values for name, values in run.history.items() if name not in other and not _looked(name)}
        values = list(terms.values())
        if len(values) == 2 and np.array_equal(values[0], values[1], equal_nan=True):
            terms = {"loss": terms["loss"]}  # its only term is the whole
        label = report.display(run.model)
        first, last = (float(terms["loss"][at]) for at in (0, -1))
        told = f"Loss of {label} on {graph}: from {first:.3g} in the first epoch to {last:.3g} in the last"
        parts = [f"{one} {all_[0]:.3g} to {all_[-1]:.3g}" for one, all_ in terms.items() if one != "loss"]
        told += f"; of its terms {', '.join(parts).replace('_', ' ')}." if parts else "."
        svg = figures.loss_curves(f"Loss of {label}", place, run.history["epoch"], terms, told)
        explained = [(one.replace("_", " "), words.LOSSES[one]) for one in terms if one in words.LOSSES]
        drawn.append(Curve(Markup(svg), run.model, explained if len(terms) > 1 else []))
    return drawn


def _reliability(graph: str, runs: Sequence[Run]) -> str:
    """The reliability of all models' probabilities in one figure, if there are such."""
    drawn: list[dict[str, Any]] = [
        {"label": report.display(run.model), "model": run.model, "place": place,
         "bins": [one for side in run.completed["calibrated_on_dev"].values() for one in side["reliability"]]}
        for place, run in enumerate(runs) if run.completed
    ]  # fmt: skip
    drawn = [one for one in drawn if one["bins"]]
    told = f"How sure the models were of their answers on {graph}, and how often right: "
    told += "; ".join(f"{one['label']} {_off(one['bins'])}" for one in drawn)
    return figures.reliability(drawn, f"{told}.") if drawn else ""


def _off(bins: Sequence[Mapping]) -> str:
    """How sure a model was, and how often right, over the queries of all bins."""
    number = sum(one["queries"] for one in bins)
    sure, right = (sum(one[key] * one["queries"] for one in bins) / number for key in ("probability", "share_right"))
    return f"{100 * sure:.0f} % sure on the average and {100 * right:.0f} % right"


def _looked(column: str) -> bool:
    """Whether a column of history.csv is a reference protocol's look at test, rather than a term of the loss."""
    return any(column.endswith(f"_{metric}") for metric in METRICS)


def _heat_maps(graph: Graph, runs: Sequence[Run], wins: Sequence[Wins]) -> list[Curve]:
    """A map for each model, known entity's and answer's coverage side by side, and the colour scale of all."""
    if not wins:
        return []
    cells = np.concatenate([one.cells if place else one.cells[..., :-1] for place, one in enumerate(wins)], axis=-1)
    finite = cells[np.isfinite(cells)]
    top = float(finite.max()) if len(finite) else 1.0
    headings = {"known": "known entity has", "answer": "answer has"}
    parts = [(headings[one.end], len(one.columns) - 1) for one in wins]
    short, maps = [column.short for column in wins[0].columns[:-1]], []
    for place, run in enumerate(runs):
        label, rows = report.display(run.model), wins[0].rows
        by_category = {
            name: mrr for name, mrr in zip(rows[:-1], cells[place, :-1, -1], strict=True) if np.isfinite(mrr)
        }
        told = ", ".join(f"{name} {100 * mrr:.0f}" for name, mrr in by_category.items()) or "too few queries to say"
        name = f"MRR of {label} on {graph.name} in percent by relation category: {told}; and by coverage."
        svg = figures.heat_map(label, rows, [*parts, ("", 1)], cells[place], top, short, graph.letters, name)
        maps.append(Curve(Markup(svg), run.model, []))
    scale = f"The maps' colours, from 0 to {100 * top:.0f} % MRR, dark to light."
    return [*maps, Curve(Markup(figures.scale(top, scale)), "", [])]


def _studies(root: Path) -> list[Study]:
    """The studies that were run: each folder of studies/ that holds a study.json, with its table and its figure.

    study.json: `title`, `protocol` (in words), and optionally `plot`: the columns `x`, `y`, `series`, `panel` and
    `deviation` of table.csv with `x_label` and `y_label`, units included, and the `scale` by which y is multiplied. An
    x that is no number makes dots. `pictures`: PNG files beside it that are shown as they are.
    """
    found = []
    for path in sorted((root / "studies").glob("**/study.json")):
        about = read_json(path)
        table = path.with_name("table.csv")
        rows = _rows(table) if table.exists() else []
        drawn = _study_figures(about["plot"], rows, str(about["title"]), path) if about.get("plot") and rows else []
        pictures = [_inline(path.with_name(name)) for name in about.get("pictures", ())]
        shown = _columns_in_words(rows)
        found.append(
            Study(
                title=about["title"],
                protocol=about.get("protocol", ""),
                header=list(shown),
                rows=[list(row) for row in zip(*shown.values(), strict=True)],
                figures=[Markup(svg) for svg in drawn],
                pictures=pictures,
            )
        )
    return found


def _rows(path: Path) -> list[dict]:
    with open(path, encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def _columns_in_words(rows: Sequence[Mapping[str, str]]) -> dict[str, list[str]]:
    """A study's table as people read it: names in words, metrics in percent, no column that is empty."""
    shown = {}
    for name in rows[0] if rows else ():
        cells = [row[name] or "" for row in rows]
        metric = METRICS.get(name.removesuffix("_deviation"))
        if metric and metric.percent:
            cells = [metric.text(float(cell)) if _is_number(cell) else cell for cell in cells]
        if any(cells):
            label = metric.heading if metric else name.replace("_", " ")
            shown[f"± {label}" if metric and name.endswith("_deviation") else label] = cells
    return shown


def _inline(path: Path) -> str:
    """A PNG file as a data URI. Raises UserError if it is missing."""
    try:
        return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
    except FileNotFoundError as error:
        raise UserError(f"{path} is not there, but study.json names it; run the study again.") from error


def _study_figures(plot: dict, rows: Sequence[dict], title: str, path: Path) -> list[str]:
    """One figure per panel: lines over numbers, dots over names."""
    panels: dict[str, dict[str, list[tuple]]] = {}
    scale = plot.get("scale", 1)
    try:
        numeric = all(_is_number(row[plot["x"]]) for row in rows)
        for row in rows:
            deviation = scale * float(row[plot["deviation"]] or 0) if plot.get("deviation") else 0.0
            groups = panels.setdefault(row[plot["panel"]] if plot.get("panel") else "", {})
            label = row[plot["series"]] if plot.get("series") else plot["y_label"]
            x = float(row[plot["x"]]) if numeric else row[plot["x"]]
            groups.setdefault(label, []).append((x, scale * float(row[plot["y"]]), deviation))
    except (KeyError, ValueError) as error:
        raise UserError(
            f"{path} names a plot that its table.csv cannot fill ({error}); run the study again."
        ) from error
    draw = figures.lines if numeric else figures.dots
    return [draw({**plot, "title": panel}, groups, f"study: {title} {panel}") for panel, groups in panels.items()]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _percent(value: float | None, digits: int = 2) -> str:
    return "–" if value is None or not np.isfinite(value) else f"{100 * value:.{digits}f}"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _size(count: float | None) -> str:
    return "–" if count is None else f"{count / 2**30:.2f} GiB" if count >= 2**29 else f"{count / 2**20:.0f} MiB"
