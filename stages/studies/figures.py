"""A study's figure, as SVG and PNG: lines over a numeric x, dots where x is a name; one panel beside the other."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pipeline import tables
from stages import plots

STYLE = {**plots.style(plots.LIGHT), "svg.hashsalt": "tessera"}
PANEL = (3.9, 3.6)  # inches


def draw(rows: Sequence[Mapping], plot: Mapping) -> Figure:
    """The figure of a table's rows. `plot` is what study.json says of it: columns by name, labels and scale."""
    panels = grouped(rows, plot.get("panel"))
    numeric = all(isinstance(row[plot["x"]], int | float) for row in rows)
    names = list(dict.fromkeys(str(row[plot["x"]]) for row in rows))
    height = PANEL[1] if numeric else 1.5 + 0.42 * len(names)
    with matplotlib.rc_context(STYLE):
        figure = Figure((PANEL[0] * len(panels) + (0 if numeric else 1.4), height), layout="constrained")
        FigureCanvasAgg(figure)
        every = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axes, (title, part) in zip(every, panels.items(), strict=True):
            groups = grouped(part, plot.get("series"))
            (_lines if numeric else _dots)(axes, groups, plot, names)
            axes.set_title(title, loc="left", fontsize=10, fontweight="bold")
        if numeric:
            every[0].set_ylim(bottom=0)  # of all panels, once all of them are drawn
        if plot.get("series"):
            handles, labels = every[0].get_legend_handles_labels()
            columns = max(1, int(figure.get_figwidth() * 9 / (max(map(len, labels)) + 8)))  # about 9 letters an inch
            name = plot["series"].replace("_", " ")
            figure.legend(handles, labels, loc="outside lower left", ncols=columns, title=name, alignment="left")
        figure.suptitle(f"{plot['title']}\nbars: {_meaning(rows, plot)}", x=0.01, ha="left", fontsize=10)
    return figure


def grouped(rows: Sequence[Mapping], column: str | None) -> dict[str, list[Mapping]]:
    """The rows by what a column says, in the order of its first appearance; all under "" without a column."""
    found: dict[str, list[Mapping]] = {}
    for row in rows:
        found.setdefault(str(row[column]) if column else "", []).append(row)
    return found


def _lines(axes: Axes, groups: Mapping[str, Sequence[Mapping]], plot: Mapping, names: Sequence[str]) -> None:
    for place, (label, rows) in enumerate(groups.items()):
        rows = sorted(rows, key=lambda row: row[plot["x"]])
        x = [row[plot["x"]] for row in rows]
        y, spread = _values(rows, plot)
        look = plots.series(plots.LIGHT, place)
        axes.errorbar(x, y, spread, label=label or None, capsize=2.5, markersize=5, **look)
    axes.set(xlabel=plot["x_label"], ylabel=plot["y_label"])
    axes.label_outer(remove_inner_ticks=True)
    if all(isinstance(row[plot["x"]], int) for rows in groups.values() for row in rows):
        axes.set_xticks(sorted({row[plot["x"]] for rows in groups.values() for row in rows}))


def _dots(axes: Axes, groups: Mapping[str, Sequence[Mapping]], plot: Mapping, names: Sequence[str]) -> None:
    most = 0.0
    for place, (label, rows) in enumerate(groups.items()):
        shift = 0.5 * ((place + 0.5) / len(groups) - 0.5)
        at = [names.index(str(row[plot["x"]])) + shift for row in rows]
        x, spread = _values(rows, plot)
        look = {**plots.series(plots.LIGHT, place), "linestyle": "none"}
        axes.errorbar(x, at, xerr=spread, label=label or None, capsize=2.5, **look)
        most = max(most, float((x + spread[1]).max()))
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(0, 1.06 * most or 1)
    axes.grid(False, axis="y")
    axes.set_xlabel(plot["y_label"])
    axes.set_ylabel(plot["x_label"])


def _values(rows: Sequence[Mapping], plot: Mapping) -> tuple[np.ndarray, np.ndarray]:
    """The rows' values (n,), and how far their bars reach below and above (2, n)."""
    scale = plot.get("scale", 1)
    value = np.array([row[plot["y"]] for row in rows])
    if any(row[plot["deviation"]] is None for row in rows):
        low, high = (np.array([row[f"{plot['y']}_{end}"] for row in rows]) for end in ("low", "high"))
        return scale * value, scale * np.maximum(0, np.stack([value - low, high - value]))
    spread = np.array([row[plot["deviation"]] for row in rows])
    return scale * value, scale * np.stack([spread, spread])


def _meaning(rows: Sequence[Mapping], plot: Mapping) -> str:
    """What the bars are: with one seed there is no deviation, and the interval over queries stands for it."""
    if any(row[plot["deviation"]] is None for row in rows):
        return "95 % interval over queries, 1 seed"
    return f"± deviation over {rows[0]['runs']} seeds"


def save(figure: Figure, path: Path) -> None:
    """Write `<path>.svg` and `<path>.png`, whole or not at all."""
    for kind, more in (("svg", {"metadata": {"Date": None}}), ("png", {"dpi": 150})):
        out = io.BytesIO()
        with matplotlib.rc_context(STYLE):
            figure.savefig(out, format=kind, facecolor="white", **more)
        tables.write_bytes(path.with_suffix(f".{kind}"), out.getvalue())
