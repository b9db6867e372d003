"""The GPU's figures in their small form, on the CPU: every row is there, where there is little more than torch."""

import importlib.metadata
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import gpu, gpu_golden
from tests.helpers.clones import ROOT
from trainers.models import adamf_mat

HAS = ("torch", "numpy", "pyarrow", "timm", "transformers")  # a borrowed machine, with what these need
# Runs the command in a Python that finds nothing else of what is installed here.
BORROWED = """
import importlib.machinery, runpy, sys
absent = set(sys.argv.pop(1).split(","))
class Few(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.split(".")[0] in absent else super().find_spec(name, path, target)
sys.meta_path[sys.meta_path.index(importlib.machinery.PathFinder)] = Few
runpy.run_module("benchmarks.gpu", run_name="__main__", alter_sys=True)
"""


def absent() -> set[str]:
    """The top-level modules installed here that a borrowed machine has not."""
    there, waiting = set(), list(HAS)
    while waiting:
        name = normal(waiting.pop())
        if name not in there and name in INSTALLED:
            there.add(name)
            asked = importlib.metadata.requires(name) or []
            waiting += [re.match(r"[\w.-]+", one)[0] for one in asked if "extra ==" not in one]
    ours = {"pipeline", "trainers", "stages", "benchmarks", "tests"}
    modules = importlib.metadata.packages_distributions()
    return {module for module, by in modules.items() if not any(normal(one) in there for one in by)} - ours


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


INSTALLED = {normal(one.metadata["Name"]) for one in importlib.metadata.distributions()}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(page, figures) of the reduced form."""
    folder = tmp_path_factory.mktemp("gpu")
    command = [sys.executable, "-c", BORROWED, ",".join(absent()), *options(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return (folder / "gpu.md").read_text(), json.loads((folder / "gpu.json").read_text())


def options(folder: Path) -> list[str]:
    return ["--device", "cpu", "--reduced", "--out", str(folder / "gpu.md"), "--json", str(folder / "gpu.json")]


@pytest.mark.slow
def test_the_reduced_form_measures_all_models_and_encoders(made):
    page, figures = made
    assert [(row["model"], row["compiled"], row["failed"]) for row in figures["rows"]] == [
        *((model, False, "") for model in gpu.EPOCHS),
        ("adamf_mat", True, ""),
    ]
    assert all(row["step"] > 0 and row["epoch"] > 0 and row["peak"] > 0 for row in figures["rows"])
    assert all(row["ranked"] > 0 for row in figures["rows"] if not row["compiled"])
    for model in gpu.EPOCHS:
        assert page.count(f"| {model} | float32 | no | ") == 1
    assert "Reduced sizes" in page
    assert "BERT of 2 layers, texts of 64 tokens" in page, "what was measured is no BERT base"
    assert figures["ceilings"]["float32"]["bytes"] > 0
    assert "pictures of 224" in page
    assert page == gpu.page(figures)


@pytest.mark.slow
def test_what_the_device_computes_is_compared_with_the_cpu(made):
    page, figures = made
    for model in gpu.EPOCHS:
        found = figures["golden"][model]
        assert found["apart"] == found["apart_later"] == found["apart_mrr"] == 0, "the device is the CPU"
        assert len(found["device"]["losses"]) == 2
        assert re.search(rf"\| {model} \| \w+ [\d.]+.* \| yes \|", page)


def test_a_device_that_computes_something_else_is_said_to(monkeypatch):
    data, settings, _ = gpu.problem("adamf_mat", reduced=True)
    step, calls = adamf_mat.Learner.step, []

    def wrong(self, batch):
        calls.append(1)
        terms = step(self, batch)
        return {name: term * 1.01 for name, term in terms.items()} if len(calls) > gpu_golden.STEPS else terms

    monkeypatch.setattr(adamf_mat.Learner, "step", wrong)
    found = gpu_golden.compared(adamf_mat, data, settings, torch.device("cpu"))
    assert found["apart"] == pytest.approx(0.01, rel=1e-3)
    assert gpu.golden_line("adamf_mat", found).endswith("| NO |")


def test_draws_for_any_device_are_the_cpus():
    like = torch.empty(3, 2, device="meta")
    torch.manual_seed(0)
    expected = torch.randn(3, 2), torch.rand(4), torch.randint(9, (5,))
    torch.manual_seed(0)
    with gpu_golden.DrawnOnTheCPU():
        assert torch.randn_like(like).is_meta
        drawn = torch.rand(4), torch.randint(9, (5,), device="cpu")
    assert all(torch.equal(one, other) for one, other in zip(drawn, expected[1:], strict=True))


def test_no_dropout_is_left_in_what_is_compared():
    settings = gpu.problem("mygo", reduced=True)[1]
    off = gpu_golden.without_dropout(settings)
    assert off["scorer_dropout"] == (0.0, 0.0, 0.0)
    assert {name for name in vars(settings) if "dropout" in name} == off.keys()


def test_an_epoch_is_a_whole_one_with_its_batches_as_the_loop_runs_it():
    data, settings, _ = gpu.problem("adamf_mat", reduced=True)
    learner = adamf_mat.Learner(
        adamf_mat.build(data, settings, torch.Generator()), data, settings, device=torch.device("cpu"),
        precision=torch.float32, seed=0,
    )  # fmt: skip
    taken, step = [], learner.step
    learner.step = lambda batch: taken.append(batch.whole) or step(batch)
    gpu.one_epoch(learner)
    assert len(taken) == learner.steps_per_epoch
    assert sum(taken) == len(data.train)


def test_a_row_without_memory_says_so_and_the_others_are_kept(tmp_path, monkeypatch):
    def measure(model, way, compiled, *_):
        if model == "momok":
            raise torch.OutOfMemoryError("CUDA out of memory")
        if compiled:
            raise RuntimeError("no compiler\nat all")
        return gpu.Row(model, way, compiled, step=0.1, epoch=1.0, share=0.5, peak=1, ranked=10.0)

    def encode(*_):
        raise torch.OutOfMemoryError

    def golden(found, model, *_):
        losses = {"losses": [{"link": 2.0, "adversarial": 1.0}]}  # not in the order of the alphabet, as JSON has them
        found[model] = {"cpu": losses, "apart": 0.0, "apart_later": 0.0, "apart_mrr": 0.0}

    monkeypatch.setattr(gpu, "measure", measure)
    monkeypatch.setattr(gpu, "encode", encode)
    monkeypatch.setattr(gpu, "golden", golden)
    monkeypatch.setattr(sys, "argv", ["gpu", *options(tmp_path)])
    gpu.main()
    page = (tmp_path / "gpu.md").read_text()
    assert "| momok | float32 | no | out of memory |" in page
    assert "| mygo | float32 | no | 100.0 | 1.00 | 0.50 | 0.0 | 10 | 1,500 | 25.0 | 20 |" in page
    assert "| adamf_mat | float32 | yes | RuntimeError: no compiler |" in page
    assert "Left out: encoders (out of memory)." in page
    assert page == gpu.page(json.loads((tmp_path / "gpu.json").read_text()))


def test_what_was_measured_is_kept_when_the_next_row_kills_the_command(tmp_path, monkeypatch):
    def measure(model, way, compiled, *_):
        if model == "momok":
            raise KeyboardInterrupt
        return gpu.Row(model, way, compiled, step=0.1, epoch=None, share=0.5, peak=1)

    monkeypatch.setattr(gpu, "measure", measure)
    monkeypatch.setattr(gpu, "golden", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["gpu", *options(tmp_path)])
    with pytest.raises(KeyboardInterrupt):
        gpu.main()
    assert (
        "| adamf_mat | float32 | no | 100.0 | – | 0.50 | 0.0 | – | 1,000 | – | 20 |"
        in (tmp_path / "gpu.md").read_text()
    )
    assert json.loads((tmp_path / "gpu.json").read_text())["rows"][0]["step"] == 0.1


def test_what_no_longer_fits_in_its_time_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["gpu", *options(tmp_path), "--minutes", "-1"])
    gpu.main()
    page = (tmp_path / "gpu.md").read_text()
    assert "adamf_mat in float32 (no time); momok in float32 (no time)" in page
    assert "encoders (no time); adamf_mat in float32, compiled (no time)" in page


def test_an_epoch_that_no_longer_fits_is_not_begun(monkeypatch):
    limits = {"flops": 1e9, "bytes": 1e9}
    monkeypatch.setattr(gpu, "one_epoch", lambda learner: pytest.fail("an epoch was begun"))
    row = gpu.measure("adamf_mat", "float32", False, torch.device("cpu"), limits, True, 0.0)
    assert row.epoch is None
    assert row.step > 0
