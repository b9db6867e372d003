"""Prints what `make repro` built: one line per run, and where the report lies."""

import sys
from collections.abc import Sequence
from pathlib import Path

from pipeline.tables import read_json
from stages.cli import arguments, stage
from stages.params import load_params
from trainers.evaluation.metrics import METRICS, headline

REPORT = Path("reports/index.html")


def table(root: Path, graphs: Sequence[str], models: Sequence[str]) -> str:
    """The test figures of all runs in percent and their seconds of training, as lines of aligned text.

    Raises UserError if a run has not been evaluated.
    """
    shown = [METRICS[name] for name in headline()]
    rows = [("graph", "model", *(metric.label for metric in shown), "seconds")]
    for graph in graphs:
        for model in models:
            test, about = (read_json(root / "runs" / graph / model / name) for name in ("test.json", "run.json"))
            figures = [metric.text(test[metric.name]) for metric in shown]
            rows.append((graph, model, *figures, f"{about['seconds']:.1f}"))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(_line(row, widths) for row in rows)


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    names = [cell.ljust(width) for cell, width in zip(row[:2], widths[:2], strict=True)]
    figures = [cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=True)]
    return "  ".join(names + figures)


@stage
def main() -> None:
    arguments(__doc__).parse_args()
    params = load_params()
    sys.stdout.write(f"\n{table(Path('.'), params.graphs, params.models)}\n")
    sys.stdout.write(
        "\nTest, in percent: filtered, both directions, realistic ranks. More, and what made each figure:\n"
    )
    sys.stdout.write(f"{REPORT.resolve()}\n")


if __name__ == "__main__":
    main()
