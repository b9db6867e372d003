"""The search for settings: what it draws can be trained, and it begins with what params.yaml says."""

import random
from dataclasses import replace

import pytest

pytest.importorskip("optuna")

from benchmarks.tune import SPACES, draw, drawn, space_of, start_of
from pipeline.errors import UserError
from stages.params import load_params
from stages.params.models import model_settings

MODELS = sorted({model for model, _ in SPACES})


class Trial:
    """Draws as Optuna's trials do, evenly."""

    def __init__(self, seed: int):
        self.random, self.params = random.Random(seed), {}

    def suggest_float(self, name: str, low: float, high: float, *, log: bool) -> float:
        assert log
        self.params[name] = low * (high / low) ** self.random.random()
        return self.params[name]

    def suggest_categorical(self, name: str, choices: list) -> int:
        self.params[name] = self.random.choice(choices)
        return self.params[name]


@pytest.mark.parametrize("graph", ["mini", "DB15K", "MKG-W", "MKG-Y"])
@pytest.mark.parametrize("model", MODELS)
def test_it_begins_with_what_the_configuration_says(model, graph):
    settings = model_settings(load_params(), model, graph)
    space = space_of(model, settings)
    start = start_of(settings, space)
    assert {name: drawn(start, name, values) for name, values in space.items()} == {
        name: getattr(settings, name) for name in space
    }


@pytest.mark.parametrize("graph", ["mini", "DB15K", "MKG-W", "MKG-Y"])
@pytest.mark.parametrize("model", MODELS)
def test_whatever_it_draws_are_settings_that_the_model_takes(model, graph):
    settings = model_settings(load_params(), model, graph)
    for seed in range(20):
        trial = Trial(seed)
        found = draw(trial, space_of(model, settings))
        replace(settings, **found)  # raises for what the model does not know, such as a softmax over a norm of 1
        assert {name: drawn(trial.params, name, space_of(model, settings)[name]) for name in found} == found


def test_an_objective_without_a_space_is_refused_in_a_sentence():
    settings = replace(model_settings(load_params(), "complex", "mini"), objective="k_vs_all")
    with pytest.raises(UserError, match="complex with the objective k_vs_all has no space"):
        space_of("complex", settings)
