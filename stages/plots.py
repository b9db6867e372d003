"""The one style of all plots, of the report and of the studies: colours, marks, dashes and fonts."""

from dataclasses import dataclass

from pipeline.modalities import MODALITIES


@dataclass(frozen=True)
class Palette:
    """The colours of one scheme: `series` of models and groups, `parts` of a whole (eight: the sets of three)."""

    ink: str
    muted: str
    line: str
    panel: str
    series: tuple[str, ...]
    parts: tuple[str, ...]


LIGHT = Palette(
    ink="#1b2027", muted="#5b6572", line="#dde2e8", panel="#ffffff",
    series=("#0b6bcb", "#c2410c", "#15803d", "#7c3aed", "#be123c", "#0e7490", "#a16207", "#475569", "#db2777",
            "#4d7c0f"),
    parts=("#1d6fb8", "#84b7e2", "#e0a458", "#c3c9d1", "#6aa84f", "#b4d7a8", "#a64d79", "#d5a6bd"),
)  # fmt: skip
DARK = Palette(
    ink="#e6eaef", muted="#9aa5b2", line="#313a45", panel="#1a1f26",
    series=("#6cb6ff", "#ff9e64", "#5ddb8a", "#b79bff", "#ff7a90", "#4fd3e6", "#e3b341", "#a9b4c2", "#ff8ccf",
            "#a8d65c"),
    parts=("#4c9fe6", "#2f5f8d", "#b98136", "#4b535e", "#5f9a46", "#3c5e30", "#a0527c", "#6b4459"),
)  # fmt: skip
# The report's figures are drawn in stand-ins, which become CSS variables, so that one picture serves both schemes.
STAND_INS = Palette(
    ink="#0a0b01", muted="#0a0b02", line="#0a0b03", panel="#0a0b04",
    series=tuple(f"#0a0c{place:02x}" for place in range(len(LIGHT.series))),
    parts=tuple(f"#0a0d{place:02x}" for place in range(len(LIGHT.parts))),
)  # fmt: skip
DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)))
MARKERS = "osD^vPX<>*"


def style(palette: Palette) -> dict:
    """Matplotlib's settings."""
    return {
        "svg.fonttype": "none",
        "font.size": 10,
        "text.color": palette.ink,
        "axes.labelcolor": palette.ink,
        "axes.edgecolor": palette.line,
        "axes.facecolor": "none",
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "grid.color": palette.line,
        "grid.linewidth": 0.6,
        "xtick.color": palette.muted,
        "ytick.color": palette.muted,
        "xtick.major.size": 0,
        "ytick.major.size": 0,
        "figure.facecolor": "none",
        "legend.frameon": False,
        "legend.fontsize": 9,
        "lines.linewidth": 1.8,
    }


def series(palette: Palette, place: int) -> dict:
    """Colour, dashes and marker of the model or group at this place: told apart without colour as well."""
    return {
        "color": palette.series[place % len(palette.series)],
        "linestyle": DASHES[place // len(palette.series) % len(DASHES)],
        "marker": MARKERS[place % len(MARKERS)],
    }


def part(palette: Palette, name: str) -> str:
    """The colour of what an entity is made of: structure, a modality, or [ENT], which gathers them."""
    if name == "[ENT]":
        return palette.muted
    return palette.series[["structure", *MODALITIES].index(name) % len(palette.series)]


def variables(palette: Palette) -> str:
    """The palette as CSS variables: --ink, --muted, --line, --panel, --s0 …, --c0 …"""
    named = {name: getattr(palette, name) for name in ("ink", "muted", "line", "panel")}
    named |= {f"s{place}": colour for place, colour in enumerate(palette.series)}
    named |= {f"c{place}": colour for place, colour in enumerate(palette.parts)}
    return " ".join(f"--{name}: {colour};" for name, colour in named.items())
