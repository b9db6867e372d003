"""One study of one model on one graph: `make study NAME=missing GRAPH=mini MODEL=adamf_mat` (docs/studies.md).

Writes studies/<name>/<graph>/<model>/: table.csv, figure.svg, figure.png and, last, study.json. Single runs lie in
data/.work/studies and are used again by every study that needs them.
"""

import argparse
import difflib
import logging
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from pipeline import tables
from pipeline.errors import UserError
from stages.cli import arguments, stage
from stages.params import Params, load_params
from stages.params.models import model_settings
from stages.studies import cases, encoders, figures, unseen
from stages.studies.protocols import STUDIES, Study, Subject
from stages.studies.runs import Bench, rows
from stages.studies.tables import about, csv_of
from trainers.about import MODELS, about_model, module_of
from trainers.evaluation.metrics import MRR
from trainers.training.train import Schedule

log = logging.getLogger(__name__)

NAMES = [*STUDIES, "case", "unseen"]


@stage
def main() -> None:
    options = _options()
    params = load_params()
    check(params, options.name, options.graph, options.model)
    subject, bench = prepare(params, options.graph, options.model, seeds=options.seeds, epochs=options.epochs)
    folder = Path("studies") / options.name / options.graph / options.model
    if options.name in ("case", "unseen"):
        (cases if options.name == "case" else unseen).run(subject, bench, folder)
    else:
        run(STUDIES[options.name], subject, bench, folder)
    print(f"{folder}: {bench.trained} runs trained, {bench.kept} found; `python -m stages.report` shows it on the page")


def _options() -> argparse.Namespace:
    parser = arguments(__doc__, "name", "graph", "model")
    parser.add_argument("--seeds", type=int, help="how many seeds; else as `studies.seeds` says")
    parser.add_argument("--epochs", type=int, help="epochs of each run; else as the model's block says")
    return parser.parse_args()


def check(params: Params, name: str, graph: str, model: str) -> None:
    """Raise UserError if there is no such study, graph or model, or the study is not for the model."""
    _require(name, NAMES, "study")
    _require(graph, params.graph, "graph")
    _require(model, params.model_blocks, "model")
    module_of(model)
    if not fits(name, model):
        able = [one for one in MODELS if fits(name, one)]
        others = [one for one in NAMES if fits(one, model)]
        raise UserError(
            f"The study {name} is for {', '.join(able)}, not for {model}; for {model}: {', '.join(others)}."
        )


def fits(name: str, model: str) -> bool:
    """Whether a study can be done with a model."""
    if name == "case":
        return about_model(model).explains is not None
    return bool(about_model(model).reads) if name == "unseen" else STUDIES[name].fits(model)


def _require(name: str, known: Iterable[str], what: str) -> None:
    known = list(known)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UserError(f"There is no {what} {name!r}; {hint}known: {', '.join(known)}.")


def prepare(
    params: Params, graph: str, model: str, *, seeds: int | None = None, epochs: int | None = None
) -> tuple[Subject, Bench]:
    """What is studied, and the bench that trains and asks it. Raises UserError if a number is too small."""
    for what, number in (("seeds", seeds), ("epochs", epochs)):
        if number is not None and number < 1:
            raise UserError(f"--{what} {number} is too few; take at least 1.")
    settings = model_settings(params, model, graph)
    if epochs is not None:
        settings = replace(settings, epochs=epochs)
    count = seeds or params.studies.seeds
    bench = Bench(
        graph,
        model,
        Schedule(**params.train.model_dump()),
        params.evaluate.memory << 20,
        range(params.seed, params.seed + count),
    )
    subject = Subject(
        graph,
        model,
        settings,
        params.studies,
        data=lambda: bench.data(settings),
        encode=lambda chosen: encoders.encoded(params, graph, chosen),
    )
    return subject, bench


def run(study: Study, subject: Subject, bench: Bench, folder: Path) -> None:
    """Make all rows, then write the table, the figure and what they mean."""
    shown = rows(bench, study.points(subject), log.info)
    plot = {
        "title": f"{study.title}: {subject.model} on {subject.graph}",
        "x": study.x,
        "y": MRR.name,
        "deviation": f"{MRR.name}_deviation",
        "series": study.series,
        "panel": study.panel,
        "x_label": study.x_label,
        "y_label": f"test {MRR.label} (%)",
        "scale": 100,
    }
    tables.write_text(folder / "table.csv", csv_of(shown))
    figures.save(figures.draw(shown, plot), folder / "figure")
    tables.write_json(folder / "study.json", about(study.title, study.protocol, subject, bench) | {"plot": plot})


if __name__ == "__main__":
    main()
