"""What a measuring process sets before it measures: the product's own conditions, and a bound on memory."""

import multiprocessing
import sys

import pytest
import torch

from benchmarks.conditions import as_trained, bound, out_of_memory


def asks_for_much(gib: float | None) -> None:
    bound(gib)
    try:
        bytearray(2**30)
    except MemoryError:
        sys.exit(7)


@pytest.mark.parametrize(("gib", "code"), [(0.5, 7), (None, 0)])
def test_what_asks_for_more_than_its_bound_fails(gib, code):
    process = multiprocessing.get_context("fork").Process(target=asks_for_much, args=(gib,))
    process.start()
    process.join()
    assert process.exitcode == code


def test_steps_run_as_the_train_stage_runs_them_and_nothing_of_it_stays(monkeypatch):
    chosen = []
    monkeypatch.setattr("trainers.matmul.use", lambda choice, device: chosen.append((choice, device.type)) or "onednn")
    with as_trained(torch.device("cpu")) as multiplied:
        assert torch.are_deterministic_algorithms_enabled()
    assert (multiplied, chosen) == ("onednn", [("auto", "cpu")])
    assert not torch.are_deterministic_algorithms_enabled()


def test_memory_that_ran_out_is_told_from_other_faults():
    assert out_of_memory("RuntimeError: [enforce fail] DefaultCPUAllocator: can't allocate memory: you tried")
    assert out_of_memory("MemoryError")
    assert not out_of_memory("ModuleNotFoundError: No module named 'mmkgc'")
