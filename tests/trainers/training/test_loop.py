"""The training loop: choice on dev, early stopping, what it says when a run cannot go on, checkpoints."""

import os
import re
import threading
import time

import pytest
import torch
from torch import nn

from pipeline import tables
from pipeline.errors import UserError
from trainers.training import checkpoint, loop
from trainers.training.checkpoint import Checkpoints, file_lock, load_tensors
from trainers.training.runs import save_run


class Counter:
    """The smallest learner there is: one weight that grows by one a step."""

    def __init__(self, *, steps: int = 2, terms=None):
        self.model = nn.Module()
        self.model.weight = nn.Parameter(torch.zeros(()))
        self.optimizers = {"model": torch.optim.Adam(self.model.parameters(), lr=0.1)}
        self.schedulers = {}
        self.steps_per_epoch = steps
        self.terms = terms or (lambda step: {"link": torch.tensor(1.0)})
        self.steps = 0

    def batches(self, epoch):
        yield from range(self.steps_per_epoch)

    def step(self, batch):
        self.steps += 1
        with torch.no_grad():
            self.model.weight += 1
        return self.terms(self.steps)

    def finish(self):
        return {}


def fit(learner, work, measure=lambda model: model.weight.item(), **changes):
    plan = {"epochs": 8, "evaluate_every": 1, "patience": 0, "checkpoint_every": 1, "seed": 0, "triples": 10, **changes}
    return loop.fit(learner, measure, work=work, show=False, **plan)


def test_the_weights_that_were_best_on_dev_come_back(tmp_path):
    learner = Counter()
    progress = fit(learner, tmp_path, lambda model: -abs(model.weight.item() - 6))
    assert progress.best_epoch == 3
    assert learner.model.weight.item() == 6
    assert [row["dev_mrr"] for row in progress.history] == [-4, -2, 0, -2, -4, -6, -8, -10]


def test_training_stops_after_measurements_without_gain(tmp_path):
    learner = Counter()
    progress = fit(learner, tmp_path, lambda model: -abs(model.weight.item() - 6), patience=2)
    assert progress.epoch == 5
    assert learner.model.weight.item() == 6


def test_a_term_that_is_not_finite_stops_the_run_names_term_and_step_and_keeps_the_checkpoint(tmp_path):
    def terms(step):
        return {"link": torch.tensor(1.0), "contrast": torch.tensor(float("nan") if step == 6 else 1.0)}

    with pytest.raises(UserError, match=re.escape("'contrast' is not a finite number at step 6 (epoch 3)")):
        fit(Counter(terms=terms), tmp_path)
    assert Checkpoints(tmp_path).epochs() == [1, 2]


def test_out_of_memory_says_what_to_lower_and_by_how_much(tmp_path):
    class Settings:
        batch_size = 512

    def terms(step):
        raise torch.OutOfMemoryError("CUDA out of memory")

    learner = Counter(terms=terms)
    learner.settings = Settings
    with pytest.raises(UserError, match="batch_size from 512 to 256"):
        fit(learner, tmp_path)


def test_out_of_memory_in_a_kernel_says_what_the_kernel_says(tmp_path):
    def terms(step):
        raise MemoryError("no memory for the walks: set fewer walker_layers")

    with pytest.raises(UserError, match="ran out of memory: no memory for the walks: set fewer walker_layers"):
        fit(Counter(terms=terms), tmp_path)


def test_a_torn_checkpoint_is_set_aside_and_the_one_before_it_used(tmp_path, caplog):
    fit(Counter(), tmp_path, epochs=4)
    torn = tmp_path / "epoch-4" / "tensors.safetensors"
    torn.write_bytes(torn.read_bytes()[:-2])
    learner = Counter()
    progress = fit(learner, tmp_path, epochs=5)
    assert "dropped" in caplog.text
    assert learner.steps == 2 * (5 - 3)
    assert progress.epoch == 5
    assert learner.model.weight.item() == 10


def test_checkpoints_that_a_thread_writes_are_those_of_their_epoch(tmp_path, monkeypatch):
    written, save = [], checkpoint.save_tensors

    def slowly(path, tensors):
        time.sleep(0.05)
        assert threading.current_thread() is not threading.main_thread()
        name = path.stem if path.name.startswith("best") else path.parent.name
        written.append((name.strip("."), *map(float, tensors.values()))[:2])
        save(path, tensors)

    monkeypatch.setattr(checkpoint, "save_tensors", slowly)
    monkeypatch.setattr(loop, "Checkpoints", lambda folder, background: Checkpoints(folder, background=True))
    fit(Counter(), tmp_path, lambda model: -abs(model.weight.item() - 4), epochs=3)
    # Not what the weight was when the disk was done; and the best weights before the checkpoint that names them.
    assert written == [("best-1", 2), ("epoch-1.part", 2), ("best-2", 4), ("epoch-2.part", 4), ("epoch-3.part", 6)]
    assert fit(Counter(), tmp_path, lambda model: 0, epochs=5).epoch == 5
    assert written[5:] == [("epoch-4.part", 8), ("epoch-5.part", 10)]


@pytest.mark.parametrize("killed", range(1, 7))
def test_a_kill_between_best_weights_and_checkpoint_leaves_a_pair_to_go_on_from(killed, tmp_path, monkeypatch):
    """The thread is stopped at the n-th file of B1 E1 B2 E2 B3 E3; what was asked of it after that is not written."""
    left, save = [killed], checkpoint.save_tensors

    def until(path, tensors):
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        save(path, tensors)

    monkeypatch.setattr(loop, "Checkpoints", lambda folder, background: Checkpoints(folder, background=True))
    monkeypatch.setattr(checkpoint, "save_tensors", until)
    with pytest.raises(KeyboardInterrupt):
        fit(Counter(), tmp_path, epochs=3)
    monkeypatch.setattr(checkpoint, "save_tensors", save)
    checkpoints = (killed - 1) // 2
    assert Checkpoints(tmp_path).epochs() == list(range(1, checkpoints + 1))[-2:]
    for one in Checkpoints(tmp_path).progresses():
        assert loop.best_weights(tmp_path, one["best_epoch"]).exists()
    learner = Counter()
    assert fit(learner, tmp_path, epochs=3).best_epoch == 3
    assert learner.steps == 2 * (3 - checkpoints)
    assert learner.model.weight.item() == 6


def test_the_loop_does_not_wait_for_the_disk(tmp_path, monkeypatch):
    """While the best weights and a checkpoint are written, the next epoch is trained."""
    free, save = threading.Event(), checkpoint.save_tensors

    def blocked(path, tensors):
        assert free.wait(10)
        save(path, tensors)

    def terms(step):
        if step == 3:  # of the second epoch
            free.set()
        return {"link": torch.tensor(1.0)}

    monkeypatch.setattr(checkpoint, "save_tensors", blocked)
    monkeypatch.setattr(loop, "Checkpoints", lambda folder, background: Checkpoints(folder, background=True))
    assert fit(Counter(terms=terms), tmp_path, epochs=2).best_epoch == 2


def test_what_a_writing_thread_meets_stops_the_run(tmp_path, monkeypatch):
    def full(path, tensors):
        raise UserError("the disk is full")

    monkeypatch.setattr(checkpoint, "save_tensors", full)
    monkeypatch.setattr(loop, "Checkpoints", lambda folder, background: Checkpoints(folder, background=True))
    with pytest.raises(UserError, match="disk is full"):
        fit(Counter(), tmp_path, epochs=2)


def test_only_the_newest_two_checkpoints_and_the_best_weights_they_need_are_kept(tmp_path):
    fit(Counter(), tmp_path)
    assert Checkpoints(tmp_path).epochs() == [7, 8]
    assert sorted(path.name for path in tmp_path.glob("best-*")) == ["best-7.safetensors", "best-8.safetensors"]
    assert float(load_tensors(tmp_path / "best-8.safetensors")["weight"]) == 16


def test_what_is_random_in_an_epoch_depends_on_seed_and_epoch_alone():
    def drawn(seed, epoch):
        loop.reseed(seed, epoch)
        return torch.rand(3)

    assert torch.equal(drawn(1, 2), drawn(1, 2))
    assert not torch.equal(drawn(1, 2), drawn(1, 3))
    assert not torch.equal(drawn(1, 2), drawn(2, 2))


def test_a_checkpoint_whose_best_weights_are_gone_is_not_gone_on_from(tmp_path, caplog):
    fit(Counter(), tmp_path, epochs=4)
    (tmp_path / "best-4.safetensors").unlink()
    learner = Counter()
    assert fit(learner, tmp_path, epochs=4).epoch == 4
    assert "best weights" in caplog.text
    assert learner.steps == 2 * (4 - 3)


def test_a_run_that_another_is_training_is_refused_until_that_one_ends(tmp_path):
    folder = tmp_path / "runs" / "abc"
    with file_lock(folder):
        with pytest.raises(UserError, match=f"Process {os.getpid()} is training this run already"), file_lock(folder):
            pass
        with file_lock(folder, writes=False):
            pass
    with file_lock(folder):
        pass


def test_gradients_of_a_row_taken_often_do_not_depend_on_threads():
    row = torch.randint(8, (4096,), generator=torch.Generator().manual_seed(0))
    factor = torch.randn(4096, 64, generator=torch.Generator().manual_seed(1))

    def gradient() -> torch.Tensor:
        table = torch.zeros(8, 64, requires_grad=True)
        (table[row] * factor).sum().backward()
        return table.grad

    threads, before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    try:
        torch.set_num_threads(4)
        with loop.reproducible(on_gpu=False):
            found = [gradient() for _ in range(20)]
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(one, found[0]) for one in found)
    assert torch.are_deterministic_algorithms_enabled() == before


def test_weights_are_on_the_disk_before_run_json_says_that_the_run_is_whole(tmp_path, monkeypatch):
    """A computer that loses its power must not leave a whole run without weights."""
    flushed, real = [], tables.flush_to_disk

    def flush(path):
        flushed.append((path.name.strip("."), sorted(one.name for one in tmp_path.iterdir() if one.name[0] != ".")))
        real(path)

    monkeypatch.setattr(tables, "flush_to_disk", flush)
    save_run(tmp_path, Counter().model, {"model": "counter"}, [{"epoch": 1, "step": 1, "loss": 0.5}])
    names, there = zip(*flushed, strict=True)
    assert names[0] == "weights.safetensors.part"
    assert there[0] == [], "flushed before it has its name"
    assert names[-1].startswith("run.json")
    assert there[-1] == ["history.csv", "weights.safetensors"]
