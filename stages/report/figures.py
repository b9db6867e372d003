"""The report's pictures: Matplotlib draws them as SVG that takes its colours from the page.

Each colour of a figure is a stand-in that is replaced by a CSS variable (`var(--ink)`), so that the same picture is
right in light and in dark; text stays text. Figures are as wide as a phone, and a page sets them side by side. Letters
are `--letters` times as large as drawn: a page that shows figures wider than a phone makes them smaller by it.
"""

import io
import re
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from markupsafe import escape
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, PercentFormatter

from stages import plots
from stages.plots import DASHES, STAND_INS, style
from stages.report.content import Result
from trainers.evaluation.metrics import MRR

WIDTH = 4.7  # inches; 451 CSS pixels
CURVES = 3.4  # inches of height of the figures of training
LETTERS = 11.5  # points; on a phone of 390 pixels, where a figure is 336 wide, 11.4 of them
_STYLE = {**style(STAND_INS), "font.size": LETTERS, "legend.fontsize": LETTERS}


def series(place: int) -> dict:
    """How the model at this place in params.yaml is drawn."""
    return plots.series(STAND_INS, place)


def intervals(rows: Sequence[Result], name: str) -> str:
    """Test MRR of each run with its interval, the published figure as a hollow diamond; the axis is the data's."""
    figure, axes = _figure(0.8 + 0.34 * len(rows))
    published = [row.published.figures[MRR.name] if row.published else None for row in rows]
    marks: dict[str, tuple[str, str]] = {}
    for y, (row, printed) in enumerate(zip(rows, published, strict=True)):
        title = f"{row.label}: {100 * row.mrr:.2f} % [{100 * row.low:.1f}, {100 * row.high:.1f}]"
        marks |= _interval(axes, y, row, (row.low, row.mrr, row.high), title)
        if printed is not None:
            axes.plot(printed, y, "d", markeredgecolor=STAND_INS.muted, markerfacecolor="none", gid=f"printed{y}")
            marks[f"printed{y}"] = (row.run.model, f"{row.label}, published: {printed:.2f} %")
    _rows(axes, [row.label for row in rows])
    axes.set_xlabel(f"test {MRR.label} (%)")
    return _svg(figure, name, marks)


def differences(rows: Sequence[Result], name: str) -> str:
    """MRR of each run less that of the best, on the same queries, with the paired interval; 0 is the best run."""
    figure, axes = _figure(0.8 + 0.34 * len(rows))
    marks: dict[str, tuple[str, str]] = {}
    axes.axvline(0, color=STAND_INS.muted, linewidth=1)
    for y, row in enumerate(rows):
        told = row.against
        bounds = (told.low, told.difference, told.high) if told else (0.0, 0.0, 0.0)
        said = f"{100 * told.difference:+.2f} [{100 * told.low:+.1f}, {100 * told.high:+.1f}]" if told else "the best"
        marks |= _interval(axes, y, row, bounds, f"{row.label}: {said}")
    _rows(axes, [row.label for row in rows])
    axes.set_xlabel(f"points of {MRR.label} to the best (%)")
    return _svg(figure, name, marks)


def _interval(
    axes: Axes, y: int, row: Result, bounds: tuple[float, float, float], title: str
) -> dict[str, tuple[str, str]]:
    """Draw (low, middle, high) fractions as line and mark; what `_svg` is told of the two."""
    low, middle, high = (100 * one for one in bounds)
    look = series(row.place)
    axes.plot([low, high], [y, y], color=look["color"], solid_capstyle="round", gid=f"line{y}")
    axes.plot(middle, y, look["marker"], color=look["color"], markersize=6.5, gid=f"mark{y}")
    return {f"{part}{y}": (row.run.model, title) for part in ("line", "mark")}


def _rows(axes: Axes, labels: Sequence[str]) -> None:
    """A row a label, from the top."""
    axes.set_yticks(range(len(labels)), labels)
    axes.tick_params(axis="y", labelcolor=STAND_INS.ink)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.margins(x=0.06)
    axes.grid(False, axis="y")


def dev_curves(runs: Sequence[Mapping], name: str) -> str:
    """Dev MRR over epochs, one line per model; the chosen epoch is the large marker. As wide as a page.

    A row has `label`, `model`, `place`, `epoch` (n,), `dev_mrr` (n,) fractions, `chosen` (epoch or None).
    """
    figure, axes = _figure(CURVES)
    marks: dict[str, tuple[str, str]] = {}
    for run in runs:
        look = series(run["place"])
        measured = np.isfinite(run["dev_mrr"])
        epoch, mrr = run["epoch"][measured], 100 * run["dev_mrr"][measured]
        at = np.flatnonzero(epoch == run["chosen"])
        gid = f"curve{run['place']}"
        axes.plot(epoch, mrr, color=look["color"], linestyle=look["linestyle"], gid=gid)
        axes.plot(epoch[at], mrr[at], look["marker"], color=look["color"], markersize=7, gid=f"{gid}chosen")
        said = "".join(f", {mrr[one]:.2f} % in epoch {run['chosen']}, which dev chose" for one in at)
        marks |= {gid: (run["model"], run["label"] + said), f"{gid}chosen": (run["model"], run["label"] + said)}
        axes.plot([], [], color=look["color"], linestyle=look["linestyle"], marker=look["marker"], label=run["label"])
    axes.set(xlabel="epoch", ylabel="dev MRR (%)")
    _title(axes, "Dev MRR")
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    _legend(figure, axes, least=1, grow=False)
    return _svg(figure, name, marks)


def reliability(runs: Sequence[Mapping], name: str) -> str:
    """How often the best answer was right where it was held for so probable; a mark as large as its bin has queries.

    A row has `label`, `place`, and `bins`, each with `probability`, `share_right` and `queries`.
    """
    figure, axes = _figure(CURVES)
    axes.plot([0, 100], [0, 100], color=STAND_INS.muted, linestyle=DASHES[1], linewidth=1)
    for run in runs:
        look = series(run["place"])
        x, y = ([100 * one[key] for one in run["bins"]] for key in ("probability", "share_right"))
        size = [8 + min(110, one["queries"] / 2) for one in run["bins"]]
        axes.scatter(x, y, size, color=look["color"], marker=look["marker"], alpha=0.7, label=run["label"])
    axes.set(xlabel="probability (%)", ylabel="share right on dev (%)", xlim=(0, 100), ylim=(0, 100))
    _legend(figure, axes, least=1, grow=False)
    return _svg(figure, name)


def loss_curves(title: str, place: int, epoch: np.ndarray, terms: Mapping[str, np.ndarray], name: str) -> str:
    """One model's loss and its terms over epochs, each the mean of an epoch's steps; as high as `dev_curves`."""
    figure, axes = _figure(CURVES)
    for row, (term, values) in enumerate(terms.items()):
        dashes = DASHES[min(row, 1)]
        axes.plot(epoch, values, color=series(place + row)["color"], linestyle=dashes, label=term.replace("_", " "))
    positive = np.concatenate(list(terms.values())) if terms else np.zeros(0)
    positive = positive[np.isfinite(positive)]
    if len(positive) and positive.min() > 0 and positive.max() / positive.min() > 50:
        axes.set_yscale("log")
    axes.set(xlabel="epoch", ylabel="loss (nats)")
    _title(axes, title)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    _legend(figure, axes, grow=False)
    return _svg(figure, name)


def coverage(bars: Sequence[tuple[str, Mapping[str, float]]], name: str) -> str:
    """Stacked bars of shares (fractions of all entities): each bar a row, the parts in the same order in each."""
    figure, axes = _figure(0.95 + 0.4 * len(bars))
    parts = list(bars[0][1])
    left = np.zeros(len(bars))
    for place, part in enumerate(parts):
        width = np.array([shares[part] for _, shares in bars])
        axes.barh(range(len(bars)), width, 0.62, left, color=STAND_INS.parts[place], label=part, linewidth=0)
        left += width
    axes.set_yticks(range(len(bars)), [label for label, _ in bars])
    axes.tick_params(axis="y", labelcolor=STAND_INS.ink)
    axes.set_ylim(len(bars) - 0.45, -0.55)
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(PercentFormatter(1, symbol=""))
    axes.set_xlabel("entities (%)")
    axes.grid(False, axis="y")
    _legend(figure, axes)
    return _svg(figure, name)


def heat_map(
    title: str,
    rows: Sequence[str],
    parts: Sequence[tuple[str, int]],
    cells: np.ndarray,
    top: float,
    short: Sequence[str],
    letters: str,
    name: str,
) -> str:
    """MRR (fractions, NaN where there are few queries) by relation category and coverage, coloured from 0 to `top`.

    `parts` are the headings above the columns and how many columns each spans; a part as long as `short` is a
    coverage, named by these initials, which `letters` explains.
    """
    figure, axes = _figure(1.15 + 0.34 * len(rows))
    colours = matplotlib.colormaps["viridis"]
    ends = np.cumsum([span for _, span in parts])
    left = np.arange(cells.shape[1]) + 0.25 * np.searchsorted(ends, np.arange(cells.shape[1]), side="right")
    for y, x in np.ndindex(cells.shape):
        value, middle = cells[y, x], float(left[x]) + 0.48
        if np.isfinite(value):
            level = value / top if top else 0.0
            axes.add_patch(Rectangle((float(left[x]), float(y)), 0.96, 0.94, facecolor=colours(level), linewidth=0))
            ink = "#ffffff" if level < 0.6 else "#111111"
            axes.text(middle, y + 0.49, f"{100 * value:.0f}", ha="center", va="center", color=ink, fontsize=LETTERS)
        else:
            axes.text(middle, y + 0.49, "·", ha="center", va="center", color=STAND_INS.muted, fontsize=LETTERS)
    ticks = [label for _, span in parts for label in (short if span == len(short) else ("all",))]
    axes.set_xlim(0, left[-1] + 1)
    axes.set_ylim(len(rows), -0.75)
    axes.set_xticks(left + 0.48, ticks)
    axes.set_yticks(np.arange(len(rows)) + 0.48, rows)
    for (heading, span), end in zip(parts, ends, strict=True):
        axes.text(float(left[end - span]), -0.2, heading, color=STAND_INS.muted, fontsize=LETTERS)
    axes.set(xlabel=f"coverage ({letters})", ylabel="relation category")
    _title(axes, title)
    axes.spines[:].set_visible(False)
    axes.grid(False)
    return _svg(figure, name)


def _title(axes: Axes, text: str) -> None:
    axes.set_title(text, loc="left", fontweight="bold", fontsize=LETTERS + 0.5, color=STAND_INS.ink)


def lines(plot: Mapping, groups: Mapping[str, Sequence[tuple[float, float, float]]], name: str) -> str:
    """A study's figure: for each group its points (x, y, deviation or 0), sorted by x, with error bars."""
    figure, axes = _figure(2.9)
    for place, (label, points) in enumerate(groups.items()):
        look = series(place)
        x, y, error = np.array(sorted(points)).T
        axes.errorbar(x, y, error if error.any() else None, capsize=2.5, markersize=5, label=label, **look)
    axes.set(xlabel=plot["x_label"], ylabel=plot["y_label"])
    if plot.get("title"):
        _title(axes, plot["title"])
    _legend(figure, axes)
    return _svg(figure, name)


def dots(plot: Mapping, groups: Mapping[str, Sequence[tuple[str, float, float]]], name: str) -> str:
    """A study's figure whose x are names: a row a name, in each group one dot (x, y, deviation or 0) at most."""
    names = list(dict.fromkeys(x for points in groups.values() for x, _, _ in points))
    figure, axes = _figure(0.75 + 0.42 * len(names))
    for place, (label, points) in enumerate(groups.items()):
        look = {**series(place), "linestyle": "none"}
        x, y, error = zip(*points, strict=True)
        at = np.array([names.index(one) for one in x]) + 0.5 * ((place + 0.5) / len(groups) - 0.5)
        axes.errorbar(y, at, xerr=error if any(error) else None, capsize=2.5, markersize=6, label=label, **look)
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", labelcolor=STAND_INS.ink)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(0, 1.06 * max(y + error for points in groups.values() for _, y, error in points) or 1)
    axes.set_xlabel(plot["y_label"])
    axes.grid(False, axis="y")
    if plot.get("title"):
        _title(axes, plot["title"])
    _legend(figure, axes)
    return _svg(figure, name)


def scale(top: float, name: str) -> str:
    """The heat maps' colour scale as a strip of its own: 0 to `top` MRR."""
    figure, axes = _figure(0.62)
    steps = 48
    for step in range(steps):
        colour = matplotlib.colormaps["viridis"](step / (steps - 1))
        axes.axvspan(100 * top * step / steps, 100 * top * (step + 1.05) / steps, color=colour, linewidth=0)
    axes.set(xlim=(0, 100 * top), ylim=(0, 1), yticks=[], xlabel="test MRR of the cell's queries (%)")
    axes.spines[:].set_visible(False)
    axes.grid(False)
    return _svg(figure, name)


def _figure(height: float) -> tuple[Figure, Axes]:
    with matplotlib.rc_context(_STYLE):
        figure = Figure((WIDTH, height), layout="constrained")
        FigureCanvasSVG(figure)
        return figure, figure.add_subplot()


def _legend(figure: Figure, axes: Axes, least: int = 2, grow: bool = True) -> None:
    """Above the axes, where no curve can run beneath it; none for fewer than `least` things to tell apart.

    `grow` makes room for it; else the axes give way, so that figures side by side stay as high as one another.
    """
    handles, labels = axes.get_legend_handles_labels()
    if len(handles) >= least:
        longest = max(map(len, labels))
        columns = 1 if longest > 20 else 2 if longest > 10 or len(labels) == 4 else 3
        if grow:
            figure.set_figheight(figure.get_figheight() + 0.23 * -(-len(handles) // columns))
        figure.legend(
            handles, labels, loc="outside upper left", ncols=columns, fontsize=LETTERS, frameon=False,
            labelcolor=STAND_INS.ink, handlelength=2.2, columnspacing=1.2, borderpad=0,
        )  # fmt: skip


def _svg(figure: Figure, name: str, marks: Mapping[str, tuple[str, str]] | None = None) -> str:
    """The figure as an <svg> element for a page that holds others: its own ids, the page's colours, no date.

    `name` is what who cannot see it is told: what the figure shows. `marks`: for artists by their gid, the model that
    they are of, by which the page hides them, and what a pointer that rests on them is shown.
    """
    text = io.StringIO()
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
    for gid, (model, title) in (marks or {}).items():
        svg = svg.replace(f'<g id="{gid}">', f'<g data-model="{model}"><title>{escape(title)}</title>')
    svg = re.sub(r"font-size: ([\d.]+)px", r"font-size: calc(\1px * var(--letters, 1))", svg)
    used = set(re.findall(r"""(?:url\(#|href="#)([^")]+)""", svg))
    svg = re.sub(r' id="([^"]+)"', lambda found: found[0] if found[1] in used else "", svg)
    svg = svg.replace("xlink:href", "href")
    svg = re.sub(r" font-family: [^;]*;| transform=\"rotate\(-?0 [^)]*\)\"", "", svg)
    svg = re.sub(
        r'<svg [^>]*viewBox="([^"]*)"[^>]*>',
        rf'<svg viewBox="\1" role="img" aria-label="{escape(name)}">',
        svg,
        count=1,
    )
    for variable, colour in re.findall(r"--(\w+): ([^;]+);", plots.variables(STAND_INS)):
        svg = svg.replace(colour, f"var(--{variable})")
    return re.sub(r"\s*\n\s*", "\n", svg).strip()


def standalone(svg: str) -> str:
    """A figure of the page as a file of its own, in the light colours."""
    for variable, colour in re.findall(r"--(\w+): ([^;]+);", plots.variables(plots.LIGHT)):
        svg = svg.replace(f"var(--{variable})", colour)
    svg = re.sub(r"calc\(([\d.]+px) \* var\(--letters, 1\)\)", r"\1", svg)
    _, _, width, height = svg.partition('viewBox="')[2].partition('"')[0].split()
    size = f'xmlns="http://www.w3.org/2000/svg" width="{width}pt" height="{height}pt" font-family="sans-serif" '
    return svg.replace("<svg ", f"<svg {size}", 1).replace(
        ">", f'><rect width="100%" height="100%" fill="{plots.LIGHT.panel}"/>', 1
    )
