"""What a run depends on, and what not: a stopped run goes on from its checkpoint elsewhere."""

import dataclasses
import logging

import pytest
import torch

from benchmarks import synthetic
from tests.helpers.tiny import settings_of
from trainers.models import transe
from trainers.training.checkpoint import load_tensors
from trainers.training.train import Schedule, fingerprint, train

SCHEDULE = Schedule(device="cpu", precision="float32", evaluate_every=1, patience=0, checkpoint_every=1)
# What says where and how safely a run is trained, each changed.
ELSEWHERE = {"device": "auto", "processes": 2, "checkpoint_every": 3, "keep_memory": 5, "tensorboard": True}
OTHER_NUMBERS = {"precision": "bfloat16", "evaluate_every": 2, "patience": 7, "dev_sample": 5,
                 "train_on": "train+dev", "matmul": "plain"}  # fmt: skip


def mark(schedule: Schedule) -> str:
    return fingerprint("transe", settings_of(transe), schedule, seed=0, inputs={})


def test_each_key_of_a_schedule_either_decides_numbers_or_does_not():
    assert {field.name for field in dataclasses.fields(Schedule)} == {*ELSEWHERE, *OTHER_NUMBERS}


@pytest.mark.parametrize(("key", "value"), ELSEWHERE.items())
def test_where_and_how_safely_it_is_trained_is_the_same_run(key, value):
    assert mark(dataclasses.replace(SCHEDULE, **{key: value})) == mark(SCHEDULE)


@pytest.mark.parametrize(("key", "value"), OTHER_NUMBERS.items())
def test_what_decides_numbers_is_another_run(key, value):
    assert mark(dataclasses.replace(SCHEDULE, **{key: value})) != mark(SCHEDULE)


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    folder = tmp_path_factory.mktemp("graph") / "synthetic"
    synthetic.write(folder, 40, width=4)
    return folder


def trained(graph, project, schedule):
    settings = settings_of(transe, epochs=4)
    about = train(
        "transe", settings, schedule, graph=graph / "graph", encoded=graph / "encoded", run=project / "run",
        work=project / "work", seed=0,
    )  # fmt: skip
    return about, load_tensors(project / "run" / "weights.safetensors")


@pytest.mark.parametrize(("key", "value"), ELSEWHERE.items())
def test_a_stopped_run_goes_on_from_its_checkpoint_elsewhere(graph, tmp_path, monkeypatch, caplog, key, value):
    _, whole = trained(graph, tmp_path / "whole", SCHEDULE)
    batches = transe.Learner.batches

    def stopped(learner, epoch):
        if epoch == 2:
            raise KeyboardInterrupt
        return batches(learner, epoch)

    with monkeypatch.context() as patch:
        patch.setattr(transe.Learner, "batches", stopped)
        with pytest.raises(KeyboardInterrupt):
            trained(graph, tmp_path, SCHEDULE)
    with caplog.at_level(logging.INFO):
        about, weights = trained(graph, tmp_path, dataclasses.replace(SCHEDULE, **{key: value}))
    assert "Going on after epoch 2." in caplog.text
    assert about["epochs"] == 4
    assert all(torch.equal(weights[name], whole[name]) for name in whole)
