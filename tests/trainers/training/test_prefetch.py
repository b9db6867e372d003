"""Batches that a thread makes: the same ones in order, its errors, and its end."""

import threading

import pytest
import torch

from tests.helpers.tiny import learner_of, settings_of, tiny
from trainers.about import module_of
from trainers.training import prefetch


def names() -> list[str]:
    return [one.name for one in threading.enumerate() if one.name == "batches"]


@pytest.mark.parametrize(("name", "changes"), [("mygo", {}), ("momok", {}), ("complex", {"objective": "one_vs_all"})])
def test_a_thread_makes_the_same_batches_whatever_the_step_draws(name, changes, monkeypatch):
    module = module_of(name)
    learner = learner_of(module, tiny(), settings_of(module, **changes))
    plain = list(learner.batches(3))
    used, made = [], []
    monkeypatch.setattr(prefetch, "ahead", lambda batches, device: used.append(1) or prefetch.threaded(batches))
    for batch in learner.batches(3):
        torch.rand(7)
        made.append(batch)
    assert used == [1]
    assert len(plain) == len(made) > 1
    for one, other in zip(plain, made, strict=True):
        for key, value in vars(one).items():
            same = vars(other)[key]
            assert torch.equal(value, same) if isinstance(value, torch.Tensor) else value == same
    assert not names()


def test_what_the_thread_meets_is_raised_and_it_ends_when_nobody_takes_more():
    def broken():
        yield 1
        raise ValueError("no more")

    found = prefetch.threaded(broken())
    assert next(found) == 1
    with pytest.raises(ValueError, match="no more"):
        next(found)
    endless = prefetch.threaded(iter(int, 1))
    assert next(endless) == 0
    assert names()
    endless.close()
    assert not names()


def test_on_the_cpu_no_thread_is_started():
    batches = iter([1, 2])
    assert prefetch.ahead(batches, torch.device("cpu")) is batches
    assert prefetch.moved(torch.ones(2), torch.device("cpu")).tolist() == [1, 1]
