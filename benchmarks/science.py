"""The picture of docs/science.md: what others have printed for a graph, and what was measured here.

    python -m benchmarks.science

Reads stages/report/published.csv and benchmarks/results/, writes docs/images/printed-and-measured.svg. A hollow diamond
is a printed figure, on the released splits and as its authors rank; a filled dot one of ours, on the clean splits,
the mean over seeds with the least and the greatest of them as a line.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.run import GRAPHS
from benchmarks.table import results
from stages import plots
from stages.cli import stage
from stages.report.tables import display, published

PICTURE = Path("docs/images/printed-and-measured.svg")
ROW = 0.2  # inches a model


@dataclass(frozen=True)
class Entry:
    """One model on one graph, in percent of MRR; `measured` has a figure a seed."""

    label: str
    printed: float | None
    measured: tuple[float, ...]

    @property
    def best(self) -> float:
        return max([*self.measured[:1], *([self.printed] if self.printed else [])])


def entries(graph: str) -> list[Entry]:
    """All models of which a figure is printed or measured, the lowest first."""
    printed = {one.model: one.figures["mrr"] for one in published() if one.graph == graph and one.figures["mrr"]}
    clean = results("clean").get(graph, {})
    ours = {display(model): tuple(100 * run["test"]["mrr"] for run in runs) for model, runs in clean.items()}
    found = [Entry(name, printed.get(name), ours.get(name, ())) for name in {*printed, *ours}]
    return sorted(found, key=lambda one: (one.best, one.label))


def draw(axes: Axes, graph: str) -> None:
    """One graph's models, a row each; ours in ink and the printed ones muted."""
    found = entries(graph)
    for y, one in enumerate(found):
        if one.printed:
            axes.plot(one.printed, y, "d", markeredgecolor=plots.LIGHT.muted, markerfacecolor="none")
        if one.measured:
            axes.plot([min(one.measured), max(one.measured)], [y, y], color=plots.LIGHT.series[0])
            axes.plot(np.mean(one.measured), y, "o", color=plots.LIGHT.series[0])
    axes.set_yticks(range(len(found)), [one.label for one in found])
    for text, one in zip(axes.get_yticklabels(), found, strict=True):
        text.set_color(plots.LIGHT.ink if one.measured else plots.LIGHT.muted)
    axes.set_ylim(-0.7, len(found) - 0.3)
    axes.set_title(graph, loc="left")


@stage
def main() -> None:
    heights = [len(entries(graph)) for graph in GRAPHS]
    style = {**plots.style(plots.LIGHT), "figure.facecolor": plots.LIGHT.panel, "svg.hashsalt": "tessera"}
    with rc_context(style):
        figure = Figure(figsize=(6.4, ROW * sum(heights) + 0.6 * len(GRAPHS)), layout="constrained")
        every = figure.subplots(len(GRAPHS), 1, sharex=True, height_ratios=heights)
        for axes, graph in zip(every, GRAPHS, strict=True):
            draw(axes, graph)
        every[-1].set_xlabel("test MRR (%): hollow as printed, filled as measured here")
        figure.savefig(PICTURE, metadata={"Date": None})
    print(f"{PICTURE} is written.")


if __name__ == "__main__":
    main()
