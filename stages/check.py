"""Stage check: all of params.yaml, the models' blocks too, before any other stage runs."""

from pathlib import Path

from pipeline import tables
from stages.cli import stage
from stages.params import load_params, model_settings
from trainers.training import runs

OUT = Path("data/params.checked")


@stage
def main() -> None:
    params = load_params()
    for model in params.models:
        module = runs.module_of(model)
        for graph in params.graphs:
            model_settings(params, model, graph, module.Settings)
    for graph in params.graphs:
        # What the download stage watches. Published graphs keep nothing there, and an empty folder says so.
        (Path("data") / graph / "source").mkdir(parents=True, exist_ok=True)
    Path("runs").mkdir(exist_ok=True)  # what the report watches; with `models: []` nothing is trained into it
    # Always the same bytes: what follows must not run again because some other key changed.
    tables.write_text(OUT, "params.yaml has been checked.\n")


if __name__ == "__main__":
    main()
