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


def test_a_batch_is_handed_over_from_the_stream_in_which_a_thread_makes_it(monkeypatch):
    """Its event is waited for by the GPU, its memory held until the step is done, its thread ends with the epoch."""
    said = []

    class Stream:
        def __init__(self, device):
            self.device = device

        def wait_stream(self, other):
            said.append("made after the model")

        def record_event(self):
            said.append("made" if threading.current_thread().name == "batches" else "made by the steps' thread")
            return "event"

        def wait_event(self, event):
            said.append(event)

    class OnGPU(torch.Tensor):
        is_cuda = True

        def record_stream(self, stream):
            said.append("held")

    one = torch.ones(2).as_subclass(OnGPU)
    steps = Stream(None)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: steps)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "set_stream", lambda stream: said.append(threading.current_thread().name))
    found = prefetch.ahead(iter([(one, torch.ones(1))]), torch.device("cuda"))
    assert next(found)[0] is one
    assert next(found, None) is None
    assert said == ["made after the model", "batches", "made", "event", "held"]
    assert not names()


def test_batches_for_a_gpu_draw_from_a_generator_of_their_own_and_those_for_the_cpu_in_turn_with_the_steps():
    assert prefetch.draws((0, 1), torch.device("cpu")) is None
    first, again, other = (
        torch.rand(3, generator=prefetch.draws(seed, torch.device("cuda"))) for seed in ((0, 1), (0, 1), (0, 2))
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("name", "changes"),
    [("adamf_mat", {"negative_pool": 5}), ("complex", {"objective": "one_vs_all", "candidates": 4}), ("transe", {})],
)
def test_a_thread_makes_the_same_negatives_and_candidates_whatever_the_step_draws(name, changes, monkeypatch):
    module = module_of(name)
    learner = learner_of(module, tiny(), settings_of(module, **changes))
    draws = prefetch.draws
    monkeypatch.setattr(prefetch, "draws", lambda seed, device, on=None: draws(seed, torch.device("cuda"), on))
    plain = [list(prefetch.tensors_of(one)) for one in learner.batches(3)]
    monkeypatch.setattr(prefetch, "ahead", lambda batches, device: prefetch.threaded(batches))
    for one, other in zip(plain, learner.batches(3), strict=True):
        torch.rand(7)
        assert all(torch.equal(*pair) for pair in zip(one, prefetch.tensors_of(other), strict=True))


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
