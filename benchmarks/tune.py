"""Search for a model's settings on a graph, on dev alone; test is not looked at.

    python -m benchmarks.tune --graph MKG-Y --model complex --minutes 30 [--trials 40]

Optuna's TPE sampler, seeded; trials that are behind the median of the others at the same epoch are stopped. The first
trial is what params.yaml says. Trials are kept in data/.work/tuning/<graph>-<model>.db, so the search goes on where it
stopped, and written to benchmarks/results/tuning/<graph>-<model>.csv after each. What was found is put into
configs/models by hand. Needs the extra `tune`.
"""

import argparse
import csv
import gc
import time
from dataclasses import asdict, replace
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from pipeline import tables
from pipeline.errors import UserError
from stages.cli import stage
from stages.params import load_params
from stages.params.models import model_settings
from trainers.about import module_of
from trainers.training import loop
from trainers.training import train as training

try:
    import optuna
    from optuna.trial import TrialState as State
except ImportError as error:
    raise SystemExit("Optuna is not installed: pip install 'tessera-mmkgc[tune]'") from error

WORK, RESULTS = Path("data/.work/tuning"), Path("benchmarks/results/tuning")
PRODUCT = {
    "regularizer": ["dura", "n3"],
    "regularization": (3e-3, 0.3),
    "dropout": [0.0, 0.1, 0.2, 0.4],
    "learning_rate": (0.03, 0.3),
    "init_scale": [1e-3, 1e-2],
}
DISTANCE = {
    "learning_rate": (3e-4, 1e-2),
    "margin": [2.0, 4.0, 6.0, 9.0, 12.0],
    "adversarial_temperature": [0.5, 1.0, 2.0],
}
# A softmax over distances: a constant added to all scores, as the margin is, changes nothing but the start.
DISTANCE_OF_ALL = {
    "learning_rate": (0.03, 1.0),
    "margin": [2.0, 4.0, 6.0, 9.0],
    "label_smoothing": [0.0, 0.1],
    "dropout": [0.0, 0.1, 0.2],
}
# What is searched, of each model under each objective that configs/models/ gives it: a list of values, or the bounds of
# a number whose logarithm is drawn evenly.
SPACES = {
    ("complex", "one_vs_all"): PRODUCT,
    ("cp", "one_vs_all"): PRODUCT,
    ("rescal", "one_vs_all"): {**PRODUCT, "init_scale": [None, 1e-2]},
    ("distmult", "one_vs_all"): PRODUCT,
    ("rotate", "negative_sampling"): DISTANCE,
    ("transe", "negative_sampling"): {**DISTANCE, "norm": [1, 2]},
    ("transe", "one_vs_all"): DISTANCE_OF_ALL,
    ("walker", "walks"): {
        "learning_rate": (1e-3, 2e-2),
        "layers": [3, 4, 5, 6],
        "width": [16, 32],
        "dropout": [0.0, 0.1, 0.2],
    },
    ("tucker", "k_vs_all"): {
        "learning_rate": (3e-4, 1e-2),
        "dropout": [(0.3, 0.4, 0.5), (0.2, 0.2, 0.3), (0.1, 0.1, 0.2)],
    },
}
ONLY = {"tucker": "k_vs_all", "walker": "walks"}  # the objective of models that have no key for it


def space_of(model: str, settings: object) -> dict:
    """What is searched for a model with these settings. Raises UserError if nothing is known to be."""
    objective = getattr(settings, "objective", ONLY.get(model))
    if (model, objective) not in SPACES:
        raise UserError(f"{model} with the objective {objective} has no space in benchmarks/tune.py; add one there.")
    return SPACES[model, objective]


def draw(trial: optuna.Trial, space: dict) -> dict:
    """One point of the space."""
    found = {}
    for name, values in space.items():
        if isinstance(values, tuple):
            found[name] = trial.suggest_float(name, *values, log=True)
        else:
            found[name] = values[trial.suggest_categorical(f"{name}#", list(range(len(values))))]
    return found


def drawn(params: dict, name: str, values: object) -> object:
    """What a trial drew for a setting; None if it drew nothing."""
    if isinstance(values, tuple):
        return params.get(name)
    return values[params[f"{name}#"]] if f"{name}#" in params else None


def start_of(settings: object, space: dict) -> dict:
    """The trial that stands for the settings as they are, as far as the space holds them."""
    found = {}
    for name, values in space.items():
        value = getattr(settings, name)
        if isinstance(values, tuple):
            found[name] = min(max(value, values[0]), values[1])
        elif value in values:
            found[f"{name}#"] = values.index(value)
    return found


class Search:
    """Trainings of one model on one graph, each measured on dev."""

    def __init__(self, graph: str, model: str, changes: dict):
        params = load_params()
        self.module = module_of(model)
        self.settings = replace(model_settings(params, model, graph), **changes)
        self.schedule, self.seed, self.space = params.train, params.seed, space_of(model, self.settings)
        folder = Path("data") / graph
        self.data = training.read(model, self.settings, graph=folder / "graph", encoded=folder / "encoded")
        self.measure = training.dev_measure(self.data, torch.device("cpu"), params.train.dev_sample, params.seed)

    def __call__(self, trial: optuna.Trial) -> float:
        """Train with what the trial draws; the best MRR on dev. Raises TrialPruned if others were better by then."""
        settings = replace(self.settings, **draw(trial, self.space))
        model = self.module.build(self.data, settings, torch.Generator().manual_seed(self.seed))
        device = torch.device("cpu")
        learner = self.module.Learner(
            model, self.data, settings, device=device, precision=torch.float32, seed=self.seed
        )
        every = getattr(settings, "evaluate_every", None) or self.schedule.evaluate_every
        epoch = 0

        def measured(model: torch.nn.Module) -> float:
            nonlocal epoch
            epoch = min(epoch + every, settings.epochs)
            found = self.measure(model)
            trial.report(found, epoch)
            if trial.should_prune():
                trial.set_user_attr("stopped_at", epoch)
                raise optuna.TrialPruned
            return found

        with TemporaryDirectory() as work:
            progress = loop.fit(
                learner, measured, triples=len(self.data.train), epochs=settings.epochs, evaluate_every=every,
                patience=2, checkpoint_every=0, seed=self.seed, work=Path(work),
            )  # fmt: skip
        trial.set_user_attr("chosen_epoch", progress.best_epoch)
        trial.set_user_attr("seconds", round(progress.seconds, 1))
        return progress.best_mrr


def write(study: optuna.Study, path: Path, space: dict) -> None:
    """All trials, the best first."""
    text = StringIO()
    names = ["trial", "state", "dev_mrr", "chosen_epoch", "stopped_at", "seconds", *space]
    table = csv.DictWriter(text, names, lineterminator="\n")
    table.writeheader()
    last = {trial.number: max(trial.intermediate_values.values(), default=0.0) for trial in study.trials}
    for trial in sorted(study.trials, key=lambda one: -last[one.number]):
        values = {name: drawn(trial.params, name, space[name]) for name in space}
        table.writerow(
            {"trial": trial.number, "state": trial.state.name.lower(), "dev_mrr": f"{last[trial.number]:.4f}",
             **{name: trial.user_attrs.get(name, "") for name in ("chosen_epoch", "stopped_at", "seconds")},
             **{name: f"{value:.4g}" if isinstance(value, float) else value for name, value in values.items()}}
        )  # fmt: skip
    tables.write_text(path, text.getvalue())


def open_study(search: Search, path: Path) -> optuna.Study:
    """The study kept at `path`, a new one if there is none; trials that a killed search left are tried again.

    Raises UserError if it was made with other settings than the search has now.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        storage=f"sqlite:///{path}", study_name="dev_mrr", direction="maximize", load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=3),
    )  # fmt: skip
    # A search that goes on must not draw again what it drew at first.
    study.sampler = optuna.samplers.TPESampler(seed=search.seed + len(study.trials), multivariate=True)
    settings = {name: str(value) for name, value in asdict(search.settings).items()}
    if study.user_attrs.get("settings", settings) != settings:
        raise UserError(f"The search in {path} was begun with other settings; delete that file to begin anew.")
    for trial in study.get_trials(states=(State.RUNNING,)):
        study.tell(trial.number, state=State.FAIL)
        study.enqueue_trial(trial.params)
    if not study.trials:
        study.set_user_attr("settings", settings)
        study.enqueue_trial(start_of(search.settings, search.space))
    return study


@stage
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graph", required=True)
    parser.add_argument("--model", required=True, choices=sorted({model for model, _ in SPACES}))
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--trials", type=int, default=40, help="of this search in all, those before included")
    parser.add_argument("--epochs", type=int, help="other than params.yaml's, for a quicker search")
    parser.add_argument("--dimension", type=int, help="the same")
    options = parser.parse_args()
    changes = {name: value for name in ("epochs", "dimension") if (value := getattr(options, name)) is not None}
    search = Search(options.graph, options.model, changes)
    study = open_study(search, WORK / f"{options.graph}-{options.model}.db")
    path = RESULTS / f"{options.graph}-{options.model}.csv"
    end = time.monotonic() + 60 * options.minutes
    while len(study.get_trials(states=(State.COMPLETE, State.PRUNED))) < options.trials and time.monotonic() < end:
        study.optimize(search, n_trials=1)
        write(study, path, search.space)
        gc.collect()
    if not any(trial.state == State.COMPLETE for trial in study.trials):
        raise UserError("No trial came to its end within the minutes; give more.")
    best = study.best_trial
    print(f"{options.model} on {options.graph}: dev {100 * best.value:.2f} in trial {best.number} of "
          f"{len(study.trials)}: {best.params}; all in {path}")  # fmt: skip


if __name__ == "__main__":
    main()
