"""Stage report: everything that was built and measured, on one page that needs no network."""

from pathlib import Path

from pipeline import tables
from stages.cli import arguments, stage
from stages.params import load_params
from stages.report.page import curves, page

OUT = Path("reports/index.html")
CURVES = Path("reports/curves")  # one figure a graph, which `dvc plots show` shows without a network


@stage
def main() -> None:
    arguments(__doc__).parse_args()
    params = load_params()
    text = page(Path("."), params.graphs, params.models)
    tables.write_text(OUT, text)
    CURVES.mkdir(exist_ok=True)
    for graph, svg in curves(Path("."), params.graphs, params.models).items():
        tables.write_text(CURVES / f"{graph}.svg", svg)
    print(f"{OUT}: {len(text.encode()) / 2**20:.1f} MiB, graphs: {len(params.graphs)}, models: {len(params.models)}")


if __name__ == "__main__":
    main()
