"""The pictures of the case studies (stages/studies/cases.py)."""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from stages import plots
from stages.studies.figures import STYLE


def shares(rows: Sequence[Mapping], parts: Sequence[str], label: str, title: str) -> Figure:
    """Stacked bars of means (fractions that add up to 1), one bar per group of entities."""
    bars = [(f"{row['coverage']} ({row['entities']:,})", [row[part] for part in parts]) for row in rows]
    return stacked(bars, parts, label, title, "entities by coverage")


def stacked(
    bars: Sequence[tuple[str, Sequence[float]]], parts: Sequence[str], label: str, title: str, of: str = "entity"
) -> Figure:
    """Horizontal stacked bars, one each of `bars`: its name and the size of each part as a fraction."""
    with matplotlib.rc_context(STYLE):
        figure = _figure(6.4, 1.5 + 0.32 * len(bars))
        axes = figure.subplots()
        left = np.zeros(len(bars))
        for place, part in enumerate(parts):
            width = 100 * np.array([values[place] for _, values in bars])
            axes.barh(range(len(bars)), width, 0.66, left, color=plots.part(plots.LIGHT, part), label=part)
            left += width
        axes.set_yticks(range(len(bars)), [_short(name) for name, _ in bars])
        axes.set_ylim(len(bars) - 0.5, -0.5)
        axes.set(xlim=(0, 100), xlabel=label, ylabel=of)
        axes.grid(False, axis="y")
        figure.legend(loc="outside upper right", ncols=len(parts))
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return figure


def distribution(values: np.ndarray, parts: Sequence[str], label: str) -> Figure:
    """How a fraction (E, P) is spread over the entities, one outline per part."""
    with matplotlib.rc_context(STYLE):
        figure = _figure(5.2, 3.4)
        axes = figure.subplots()
        for place, part in enumerate(parts):
            axes.hist(
                100 * values[:, place],
                40,
                range=(0, 100),
                histtype="step",
                lw=1.6,
                color=plots.part(plots.LIGHT, part),
                label=part,
            )
        axes.set(xlim=(0, 100), xlabel=label, ylabel="entities (number)")
        figure.legend(loc="outside upper right", ncols=len(parts))
        figure.suptitle("Over the entities", x=0.01, ha="left", fontsize=11)
    return figure


def gates(modalities: Mapping[str, np.ndarray], names: Sequence[str]) -> Figure:
    """One map per modality: the gates (relations, K), one row per relation, and the scale of all of them."""
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        figure = _figure(4.2 + 1.7 * len(modalities), 1.4 + 0.2 * len(names))
        every = figure.subplots(1, len(modalities), sharey=True, squeeze=False)[0]
        top = max(float(one.max()) for one in modalities.values())
        low = min(float(one.min()) for one in modalities.values())
        for axes, (name, cells) in zip(every, modalities.items(), strict=True):
            shown = axes.imshow(100 * cells, aspect="auto", cmap="viridis", vmin=100 * low, vmax=100 * top)
            axes.set_title(name, fontsize=10)
            axes.set_xticks(range(cells.shape[1]), range(1, cells.shape[1] + 1))
            axes.set_xlabel("expert (number)")
        every[0].set_yticks(range(len(names)), [_short(name) for name in names], fontsize=7)
        every[0].set_ylabel("relation, most frequent in train first")
        figure.colorbar(shown, ax=every, label="gate, mean over entities (%)", fraction=0.05)
        figure.suptitle("Gates of the experts", x=0.01, ha="left", fontsize=11)
    return figure


def tiles(entities: Sequence[tuple[str, Image.Image, np.ndarray]], picture_word: str) -> Figure:
    """Each entity's picture, and below it the same, as bright as its tiles (n, n) are attended to."""
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        figure = _figure(1.7 * len(entities) + 1.2, 4.1)
        every = figure.subplots(2, len(entities), squeeze=False)
        top = max(float(light.max()) for _, _, light in entities)
        for column, (name, picture, light) in zip(every.T, entities, strict=True):
            side = picture.resize((224, 224))
            column[0].imshow(side)
            column[0].set_title(_short(name, 18), fontsize=9)
            column[1].imshow(side.convert("L"), cmap="gray", vmin=0, vmax=510)
            shown = column[1].imshow(
                100 * light, cmap="inferno", alpha=0.75, extent=(0, 224, 224, 0), vmin=0, vmax=100 * top
            )
            for axes in column:
                axes.set_xticks([])
                axes.set_yticks([])
        every[0, 0].set_ylabel(picture_word)
        every[1, 0].set_ylabel("attention")
        figure.colorbar(shown, ax=every[1], label="of [ENT]'s attention,\na token (%)", fraction=0.05)
        figure.suptitle(f"{picture_word.capitalize()}s that are attended to most", x=0.01, ha="left", fontsize=11)
    return figure


def words(entities: Sequence[tuple[str, Sequence[tuple[str, float]]]]) -> Figure:
    """Each entity's text tokens with the fraction of attention that each has, one panel per entity."""
    columns = min(3, len(entities))
    lines = -(-len(entities) // columns)
    with matplotlib.rc_context(STYLE):
        figure = _figure(2.9 * columns, 0.9 + lines * (0.75 + 0.22 * max(len(tokens) for _, tokens in entities)))
        every = figure.subplots(lines, columns, sharex=True, squeeze=False).ravel()
        colour = plots.part(plots.LIGHT, "text")
        for axes, (name, tokens) in zip(every, entities, strict=False):
            axes.barh(range(len(tokens)), [100 * value for _, value in tokens], 0.66, color=colour)
            axes.set_yticks(range(len(tokens)), [token for token, _ in tokens], fontsize=9)
            axes.invert_yaxis()
            axes.grid(False, axis="y")
            axes.set_title(_short(name, 26), fontsize=9, loc="left")
        for axes in every[len(entities) :]:
            axes.set_visible(False)
        figure.supxlabel("of [ENT]'s attention, a token (%)", fontsize=10)
        figure.supylabel("text token", fontsize=10)
        figure.suptitle("Texts that are attended to most", x=0.01, ha="left", fontsize=11)
    return figure


def _figure(width: float, height: float) -> Figure:
    figure = Figure((width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _short(name: str, most: int = 34) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"
