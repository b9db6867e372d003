"""The one style of all plots, of the report and of the studies: colours, marks, dashes and fonts."""

from dataclasses import dataclass

from pipeline.modalities import MODALITIES


@dataclass(frozen=True)
class Palette:
    """The colours of one scheme: `series` of models and groups, `parts` of a whole (eight: the sets of three).

    Any two of `series`, and any two of `parts`, can be told apart with normal sight, deuteranopia and protanopia
    (tests/stages/test_plots.py measures it).
    """

    ink: str
    muted: str
    line: str
    panel: str
    series: tuple[str, ...]
    parts: tuple[str, ...]


LIGHT = Palette(
    ink="#1b2027", muted="#5b6572", line="#dde2e8", panel="#ffffff",
    series=("#2d69a5", "#a52d00", "#1e693c", "#783cf0", "#c31e4b", "#0f87a5", "#a5690f", "#4b5a69", "#c30078",
            "#4ba54b"),
    parts=("#0f69c3", "#87b4e1", "#f0c35a", "#d2d2e1", "#69a54b", "#b4d2a5", "#a54b78", "#c396a5"),
)  # fmt: skip
DARK = Palette(
    ink="#e6eaef", muted="#9aa5b2", line="#313a45", panel="#1a1f26",
    series=("#69b4ff", "#d2874b", "#5ae187", "#a578ff", "#f07887", "#69d2f0", "#e1b43c", "#a5b4c3", "#d269b4",
            "#c3f05a"),
    parts=("#4ba5f0", "#1e5a96", "#b4873c", "#4b5a69", "#5a8769", "#3c5a2d", "#b46996", "#4b2d3c"),
)  # fmt: skip
# The report's figures are drawn in stand-ins, which become CSS variables, so that one picture serves both schemes.
STAND_INS = Palette(
    ink="#0a0b01", muted="#0a0b02", line="#0a0b03", panel="#0a0b04",
    series=tuple(f"#0a0c{place:02x}" for place in range(len(LIGHT.series))),
    parts=tuple(f"#0a0d{place:02x}" for place in range(len(LIGHT.parts))),
)  # fmt: skip
DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)))
MARKERS = "osD^vPX<>*"
GLYPHS = "●■◆▲▼✚✖◀▶★"  # the same shapes in words and tables


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


def glyph(place: int) -> str:
    """The mark of `series` as a letter."""
    return GLYPHS[place % len(GLYPHS)]


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
