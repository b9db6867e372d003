"""Training can be watched without a terminal: lines of the log, a history that grows, TensorBoard's files."""

import itertools
import logging
from importlib.util import find_spec

import pytest
import torch

from pipeline.tables import read_json
from tests.helpers.tiny import settings_of, tiny, write_tables
from trainers.models import transe
from trainers.training import runs
from trainers.training.train import Schedule, _watched, train
from trainers.training.watch import Watch, time_left


def test_a_line_a_minute_says_epoch_loss_dev_speed_and_time_left(caplog):
    caplog.set_level(logging.INFO)
    now = [0.0]
    watch = Watch(epochs=10, steps=4, triples=400, clock=lambda: now[0])
    for step in range(1, 9):  # 10 s each: at 60 s, 6 of 40 steps are done
        now[0] += 10
        dev = "dev MRR 0.2000 (epoch 1)" if step > 4 else ""
        watch.step((step - 1) // 4, (step - 1) % 4 + 1, {"link": torch.tensor(0.5), "other": torch.tensor(0.25)}, dev)
    (line,) = [record.getMessage() for record in caplog.records]
    assert line == ("epoch 2 of 10, step 2 of 4: loss 0.7500, dev MRR 0.2000 (epoch 1), 10 triples/s, 6 min left")


def test_times_are_said_in_fitting_units():
    assert [time_left(one) for one in (40, 720, 12_240)] == ["40 s", "12 min", "3.4 h"]


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """A run whose history.csv is counted each time it is written; gives (lines at each time, the folder)."""
    data = tiny()
    write_tables(tmp_path / "data/mini/graph", data, range(data.entities))
    seen = []
    write = runs.write_history

    def counted(path, history):
        write(path, history)
        seen.append((len((path / "history.csv").read_text().splitlines()) - 1, (path / "run.json").exists()))

    monkeypatch.setattr(runs, "write_history", counted)
    monkeypatch.setattr("trainers.training.train.time.monotonic", itertools.count(10.0, 10.0).__next__)
    schedule = Schedule(device="cpu", precision="float32", evaluate_every=1, checkpoint_every=0,
                        tensorboard=find_spec("tensorboard") is not None)  # fmt: skip
    train("transe", settings_of(transe, epochs=3), schedule, graph=tmp_path / "data/mini/graph",
          encoded=tmp_path / "data/mini/encoded", run=tmp_path / "runs/mini/transe", work=tmp_path / "work/runs",
          seed=0)  # fmt: skip
    return seen, tmp_path


def test_the_history_grows_with_each_epoch(trained):
    seen, folder = trained
    assert seen == [(1, False), (2, False), (3, False), (3, False)]
    assert read_json(folder / "runs/mini/transe/run.json")["date"].startswith("20")


def test_tensorboard_sees_it(trained):
    pytest.importorskip("tensorboard", reason="the extra `tensorboard` is not installed")
    _, folder = trained
    assert len(list((folder / "work/tensorboard/mini/transe").glob("events.*"))) == 1


def test_the_history_of_a_whole_run_stays_until_another_takes_its_place(tmp_path):
    each = _watched(tmp_path, None)
    (tmp_path / "run.json").write_text("{}")
    each([{"epoch": 1}])
    assert not (tmp_path / "history.csv").exists()
    (tmp_path / "run.json").unlink()
    each([{"epoch": 1}])
    assert (tmp_path / "history.csv").exists()
