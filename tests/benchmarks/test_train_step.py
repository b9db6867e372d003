"""A step beside its floor: compared by the clock of the ceilings, and run as the product runs it."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from benchmarks import gpu, train_step
from benchmarks.step_cost import adamf_mat as cost

CEILINGS = {"flops": 1e9, "bytes": 1e9}


@pytest.mark.parametrize(("clock", "share"), [("processor", 0.5), ("wall", 0.1)])
def test_the_floor_is_compared_by_the_clock_of_the_ceilings(clock, share, capsys):
    work = [{"name": "all", "flops": 1e9, "bytes": 1.0}]
    found = {"seconds": 10.0, "processor_seconds": 2.0, "clock": clock, "peak": 1, "work": work}
    assert train_step.report("mygo", found, CEILINGS)["share"] == share
    assert f"floor/measured {share:.2f} by the {clock} clock" in capsys.readouterr().out


def test_steps_are_timed_by_both_clocks_as_the_product_takes_them(monkeypatch):
    chosen, modes, threads = [], [], torch.get_num_threads()
    small = replace(cost.settings(), **gpu.SMALL["adamf_mat"])
    monkeypatch.setattr(cost, "data", gpu.small)
    monkeypatch.setattr(cost, "settings", lambda: small)
    monkeypatch.setattr("trainers.matmul.use", lambda choice, device: chosen.append(choice) or "plain")
    timed = train_step.timed
    monkeypatch.setattr(
        train_step, "timed", lambda *given: modes.append(torch.are_deterministic_algorithms_enabled()) or timed(*given)
    )
    arguments = SimpleNamespace(worker="adamf_mat", device="cpu", precision="float32", set=[], warmup=1, steps=2)
    torch.set_num_threads(1)
    try:
        found = train_step.measure_model(arguments)
    finally:
        torch.set_num_threads(threads)
    assert len(found["each"]) == 3
    assert found["processor_seconds"] > 0
    assert found["clock"] == "processor"
    assert (chosen, modes) == (["auto"], [True] * 3)
