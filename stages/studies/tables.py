"""What all studies write beside their figures: what made them, and their table."""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict

from stages.studies.protocols import Subject
from stages.studies.runs import Bench
from trainers.training import runs


def about(title: str, protocol: str, subject: Subject, bench: Bench) -> dict:
    """What every figure of a study carries."""
    return {
        "title": f"{title}: {subject.model} on {subject.graph}",
        "protocol": protocol,
        "graph": subject.graph,
        "model": subject.model,
        "settings": asdict(subject.settings),
        "schedule": asdict(bench.schedule),
        "seeds": list(bench.seeds),
        "runs": sorted(bench.marks),
        "code_version": runs.code_version(subject.model),
    }


def csv_of(rows_: Sequence[dict]) -> str:
    """The rows as CSV, numbers as they are read; None is an empty cell."""
    names = list(dict.fromkeys(name for row in rows_ for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    for row in rows_:
        writer.writerow({name: _readable(value) for name, value in row.items()})
    return text.getvalue()


def _readable(value: object) -> object:
    """Whole numbers as such, others with four digits that count."""
    if not isinstance(value, float):
        return value
    return int(value) if value.is_integer() else f"{value:.4g}"
