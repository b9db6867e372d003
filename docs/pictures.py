"""The documentation's pictures, made anew; run in the project's folder, with a Chromium on the PATH.

    npm pack mermaid@11 && tar xzf mermaid-*.tgz package/dist/mermaid.min.js
    python -m docs.pictures diagrams package/dist/mermaid.min.js
    python -m docs.pictures views
    python -m docs.pictures pages

diagrams draws each Mermaid block of the README and of docs/ as docs/images/diagram-<digest of the block>.svg, which the
site shows instead of a script of another host. views draws what DVC shows of this project, after `make repro` and a
commit, a change, `make repro` and a second commit; `dvc metrics diff` shows what that change did. pages shows the
report and the page of questions as a browser does, light and dark.
"""

import argparse
import base64
import contextlib
import hashlib
import html
import io
import json
import os
import re
import shlex
import subprocess
import tempfile
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from tests.helpers import browser

ROOT = Path(__file__).parent.parent
IMAGES = ROOT / "docs/images"
BLOCK = re.compile(r"^```mermaid\n(.*?)^```", re.M | re.S)
# Mermaid's own colours are for light pages; those of a dark page are added to each drawing.
THEME = {
    "theme": "base",
    "htmlLabels": False,
    "flowchart": {
        "htmlLabels": False, "useMaxWidth": False, "nodeSpacing": 18, "rankSpacing": 34, "padding": 9,
        "wrappingWidth": 220,
        "subGraphTitleMargin": {"top": 6, "bottom": 10},
    },
    "fontFamily": "system-ui, sans-serif",
    "themeVariables": {
        "fontSize": "15px", "primaryColor": "#eef2fb", "primaryTextColor": "#1b1f27", "primaryBorderColor": "#5a78b8",
        "lineColor": "#5b6270", "clusterBkg": "#f7f7f4", "clusterBorder": "#b9bcc4", "edgeLabelBackground": "#ffffff",
    },
}  # fmt: skip
DARK = """@media (prefers-color-scheme: dark) {
#ID .node :is(rect,polygon,circle,path,.label-container) { fill: #26314a !important; stroke: #7f9bd6 !important }
#ID :is(text,tspan) { fill: #e6e8ee !important }
#ID .cluster rect { fill: #1f2129 !important; stroke: #4a4e5a !important }
#ID :is(.flowchart-link,.edgePath path) { stroke: #a7adba !important }
#ID :is(.marker,.arrowMarkerPath) { fill: #a7adba !important; stroke: #a7adba !important }
#ID :is(.edgeLabel,.edgeLabel rect,.background) { fill: #16171d !important; background: #16171d !important }
}"""

TERMINAL = """rect { fill: #f5f5f2 } text { font: 13px ui-monospace, Menlo, Consolas, monospace; fill: #1b1f27 }
@media (prefers-color-scheme: dark) { rect { fill: #1f2129 } text { fill: #e6e8ee } }"""
# Picture -> what draws it.
VIEWS = {
    "dvc-metrics-show": "dvc metrics show",
    "dvc-metrics-diff": "dvc metrics diff HEAD~1",
    "dvc-exp-show": "dvc exp show --no-pager --drop '.*' "
    "--keep 'Experiment|Created|runs/mini/rotate/metrics.json:mrr|params.yaml:seed'",
}

LOWEST = "Math.max(...[...document.querySelectorAll('body *')].map(one => one.getBoundingClientRect().bottom)) + 9"
QUESTION = {"entity": "Red Hot Chili Peppers", "relation": "band member", "k": 3}


def diagram(source: str) -> Path:
    """Where the drawing of a Mermaid block lies."""
    return IMAGES / f"diagram-{hashlib.sha256(source.encode()).hexdigest()[:10]}.svg"


def sources() -> list[str]:
    """All Mermaid blocks."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    return [block for page in pages for block in BLOCK.findall(page.read_text(encoding="utf-8"))]


def title(source: str) -> str:
    """What a block calls itself, `accTitle: …`: the drawing's alternative text."""
    found = re.search(r"^\s*accTitle: *(.+)$", source, re.M)
    return found[1] if found else "Diagram"


def diagrams(script: Path) -> None:
    """Draw all blocks with Mermaid's `script`; drawings of blocks that are gone are deleted."""
    wanted = {diagram(source): source for source in sources()}
    for old in set(IMAGES.glob("diagram-*.svg")) - wanted.keys():
        old.unlink()
    page = f"<meta charset=utf-8><body><script>{script.read_text(encoding='utf-8')}</script>"
    with tempfile.TemporaryDirectory() as folder, _browser(Path(folder)) as tab:
        (Path(folder) / "page.html").write_text(page, encoding="utf-8")
        tab.open((Path(folder) / "page.html").as_uri(), 1400, "light")
        tab.evaluate(f"mermaid.initialize({json.dumps({'startOnLoad': False, **THEME})})")
        for place, source in wanted.items():
            name = place.stem
            svg = str(tab.evaluate(f"mermaid.render({name!r}, {json.dumps(source)}).then(one => one.svg)"))
            svg = svg.replace("</style>", f"{DARK.replace('ID', name)}</style>", 1)
            place.write_text(re.sub(r"\d+\.\d{3,}", lambda one: f"{float(one[0]):.2f}", svg), encoding="utf-8")
            print(place)


def views() -> None:
    """Draw DVC's views of the project in this folder: lines of a terminal, and the page of curves as it looks."""
    wide = {**os.environ, "COLUMNS": "120"}
    for name, command in VIEWS.items():
        said = subprocess.run(shlex.split(command), check=True, capture_output=True, text=True, env=wide).stdout
        (IMAGES / f"{name}.svg").write_text(terminal(said), encoding="utf-8")
        print(IMAGES / f"{name}.svg")
    subprocess.run(["dvc", "plots", "show", "-q"], check=True)
    with tempfile.TemporaryDirectory() as folder, _browser(Path(folder)) as tab:
        tab.open(Path("dvc_plots/index.html").absolute().as_uri(), 900, "light")
        _shoot(tab, "dvc-plots-show", 900, LOWEST)


def pages() -> None:
    """Show the top of the report, and a question with its answers, in both schemes."""
    report = Path("reports/index.html").absolute().as_uri()
    with tempfile.TemporaryDirectory() as folder, _browser(Path(folder)) as tab, _asking() as address:
        for scheme in ("light", "dark"):
            tab.open(report, 1000, scheme)
            _shoot(
                tab, f"report-{scheme}", 1000, "document.querySelector('section').getBoundingClientRect().bottom + 8"
            )
            tab.open(f"{address}?{urllib.parse.urlencode(QUESTION)}", 680, scheme)
            tab.evaluate("document.querySelectorAll('img').forEach(one => one.loading = 'eager')")
            tab.evaluate("Promise.all([...document.images].map(one => one.decode()))")
            _shoot(tab, f"ask-{scheme}", 680, "document.querySelector('main').getBoundingClientRect().bottom + 8")


@contextlib.contextmanager
def _asking() -> Iterator[str]:
    """The page of questions about mini, as `make ask` serves it; its address."""
    command = ["python", "-u", "-m", "stages.ask", "--graph", "mini", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield re.search(r"http\S+", process.stdout.readline())[0]
        finally:
            process.terminate()


def _shoot(tab: browser.Browser, name: str, width: int, height: str) -> None:
    """Keep the top of the page in a tab, as high as an expression says, as an image of docs/images."""
    clip = {"x": 0, "y": 0, "width": width, "height": tab.evaluate(height), "scale": 1.2}
    png = tab.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)["data"]
    image = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    image.save(IMAGES / f"{name}.webp", quality=72, method=6)
    print(IMAGES / f"{name}.webp", image.size)


def terminal(text: str) -> str:
    """Lines of a terminal as an SVG, light or dark as its reader's device is."""
    lines = [line.rstrip() for line in text.rstrip().splitlines()]
    width, height = round(7.83 * max(map(len, lines))) + 24, 18 * len(lines) + 20
    rows = "".join(
        f'<text x="12" y="{18 * place + 22}" xml:space="preserve">{html.escape(line)}</text>'
        for place, line in enumerate(lines)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
        f'<style>{TERMINAL}</style><rect width="{width}" height="{height}" rx="6"/>{rows}</svg>\n'
    )


def _browser(folder: Path) -> browser.Browser:
    program = browser.find()
    if program is None:
        raise SystemExit("no chromium on the PATH (Debian: apt install chromium)")
    return browser.Browser(program, folder / "profile")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="kind", required=True)
    kinds.add_parser("diagrams").add_argument("script", type=Path)
    kinds.add_parser("views")
    kinds.add_parser("pages")
    options = parser.parse_args()
    if options.kind == "diagrams":
        diagrams(options.script)
    else:
        {"views": views, "pages": pages}[options.kind]()


if __name__ == "__main__":
    main()
