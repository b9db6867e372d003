"""The page of speed: ratios of its own figures alone, what they were measured at, and nothing of what is not here."""

import json
import sys
from types import SimpleNamespace

import pytest
import torch

from benchmarks import reference
from benchmarks import reference_steps as theirs
from pipeline import tables


def side(busy: float) -> dict:
    return {"busy": busy, "wall": 2 * busy, "least": busy, "most": busy, "steps": 2, "peak": 3e9}


def figures(*names: str, run_of: tuple[str, ...] = (), **more) -> dict:
    cases = {name: {"against": "authors", "batch": 2048, "theirs": side(30.0), "ours": side(2.0)} for name in names}
    ceilings = {"flops": 5e10, "bytes": 1e10, "run_of": list(run_of)}
    return {"machine": "a machine", "ceilings": ceilings, "cases": cases, "not_measured": {}, **more}


def test_a_ratio_is_of_the_two_sides_that_ran():
    page = reference.page(figures("mygo", run_of=("mygo",)))
    assert "| mygo | authors | 2,048 | 2 | 30.000 (60.000) | 2.000 (4.000) | 15.0 | 3.0 / 3.0 |" in page
    assert "50 GFLOP/s in matrix products by the best route, 10.0 GB/s." in page
    assert "Not measured" not in page


def test_the_committed_page_is_that_of_the_committed_figures():
    figures = json.loads(reference.FIGURES.read_text(encoding="utf-8"))
    assert reference.page(figures) == reference.PAGE.read_text(encoding="utf-8")


def test_ceilings_of_another_run_are_said_to_be():
    assert "a run after those of the table" in reference.page(figures("mygo"))
    assert "both measured in the run of rotate" in reference.page(figures("mygo", "rotate", run_of=("rotate",)))


def test_only_what_ran_at_a_papers_settings_is_said_to():
    page = reference.page(figures("momok", "rotate", "transe"))
    assert "At the paper's settings, but for a batch that is not the paper's: `momok`." in page
    assert "At settings of no paper" in page
    assert "128 negatives and 250 numbers an entity (complex ones in `rotate`): `rotate`, `transe`." in page


def test_a_smaller_batch_has_a_row_of_its_own_that_names_it():
    assert [reference.called("mygo", batch) for batch in (None, 2048, 256)] == ["mygo", "mygo", "mygo, batch 256"]
    found = figures("mygo", "mygo, batch 256")
    found["cases"]["mygo, batch 256"]["batch"] = 256
    page = reference.page(found)
    assert "| mygo | authors | 2,048 |" in page
    assert "| mygo | authors | 256 |" in page


def test_what_is_not_here_is_left_out(tmp_path):
    (tmp_path / "MoMoK").mkdir()
    assert reference.side_of("momok", tmp_path) == "authors"
    assert reference.side_of("mygo", tmp_path) is None
    assert reference.side_of("mygo", None) is None


def test_turns_are_summed_by_medians():
    turns = [{"busy": [1.0, 5.0], "wall": [2.0, 2.0], "peak": 1}, {"busy": [3.0], "wall": [4.0], "peak": 7}]
    assert reference.summed(turns) == {"busy": 3.0, "wall": 2.0, "least": 1.0, "most": 5.0, "steps": 3, "peak": 7}


def test_a_side_that_asks_for_too_much_is_noted_and_the_rest_goes_on(tmp_path, monkeypatch):
    def run(command, **_):
        large = "mygo:theirs" in command
        turn = json.dumps({"busy": [1.0], "wall": [1.0], "peak": 1})
        return SimpleNamespace(returncode=int(large), stdout=turn, stderr="DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(reference.subprocess, "run", run)
    monkeypatch.setattr(reference, "ceilings", lambda threads: {"flops": 1e9, "bytes": 1e9})
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
    for name in ("FIGURES", "PAGE"):
        monkeypatch.setattr(reference, name, tmp_path / name)
    (tmp_path / "MyGO").mkdir()
    (tmp_path / "MoMoK").mkdir()
    command = ["reference", "--reference", str(tmp_path), "--cases", "mygo", "momok", "--gib", "3", "--batch", "64"]
    monkeypatch.setattr(sys, "argv", command)
    reference.main()
    assert list(tables.read_json(reference.FIGURES)["cases"]) == ["momok, batch 64"]
    assert "- mygo: the other side needs more than 3 GiB of memory at a batch of 64" in reference.PAGE.read_text()


@pytest.mark.parametrize("case", ["rotate", "tucker"])
def test_our_side_takes_the_batch_that_is_asked_for_and_trains_as_the_product_does(case, monkeypatch):
    chosen, modes = [], []
    monkeypatch.setattr(reference, "DB15K", {"entities": 60, "relations": 3})
    monkeypatch.setattr("trainers.matmul.use", lambda choice, device: chosen.append((choice, device.type)))
    made = reference.ours

    def ours(case: str, batch: int):
        learner = made(case, batch)
        step = learner.step
        learner.step = lambda given: (modes.append(torch.are_deterministic_algorithms_enabled()), step(given))
        assert learner.settings.batch_size == batch
        return learner

    monkeypatch.setattr(reference, "ours", ours)
    found = reference.measured(case, "ours", SimpleNamespace(batch=16, steps=2, reference=None))
    assert len(found["busy"]) == 2
    assert chosen == [("auto", "cpu")]
    assert modes == [True] * 3


def test_the_papers_batch_is_that_of_our_settings():
    for model in theirs.AUTHORS:
        cost = reference.importlib.import_module(f"benchmarks.step_cost.{model}")
        assert theirs.batch_of(model) == cost.settings().batch_size
