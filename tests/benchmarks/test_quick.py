"""The quick benchmark: what it says of figures, and that each piece of work runs."""

import json

import pytest
import torch

from benchmarks import quick


def figures(ratio: float, noise: float) -> dict[str, float]:
    return {"ratio": ratio, "noise": noise, "seconds": ratio / 10}


@pytest.mark.parametrize(
    ("now", "before", "said"),
    [
        (figures(1.5, 0.01), figures(1.0, 0.01), "50% slower"),
        (figures(0.5, 0.01), figures(1.0, 0.01), "50% faster"),
        (figures(1.5, 0.2), figures(1.0, 0.1), ""),  # noise
        (figures(1.05, 0.001), figures(1.0, 0.001), ""),  # little
    ],
)
def test_only_what_is_beyond_the_noise_is_said(now, before, said):
    (line,) = quick.lines({"step of mygo": now}, {"step of mygo": before})
    assert line.endswith(said) if said else "er" not in line.split("±")[1]
    assert (quick.change(now, before) > 0) == ("slower" in said)


def test_a_machine_without_figures_is_told_so_and_keeps_them(tmp_path, monkeypatch, capsys):
    threads = torch.get_num_threads()
    monkeypatch.setattr(quick, "pieces", lambda: {"ranking": lambda: sum(range(50_000))})
    monkeypatch.setattr("sys.argv", ["quick", "--kept", str(tmp_path / "kept.json"), "--write", "--rounds", "3"])
    try:
        assert quick.main() == 0
        assert "holds nothing of this machine" in capsys.readouterr().out
        quick.main()
        assert "holds nothing" not in capsys.readouterr().out
    finally:
        torch.set_num_threads(threads)
    assert next(iter(json.loads((tmp_path / "kept.json").read_text()).values()))["ranking"]["seconds"] > 0


@pytest.mark.parametrize(("before", "code"), [(0.5, 1), (1.0, 0), (2.0, 0)])
def test_it_ends_with_1_only_if_something_is_slower(before, code, tmp_path, monkeypatch):
    monkeypatch.setattr(quick, "measured", lambda rounds: {"ranking": figures(1.0, 0.01)})
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)
    (tmp_path / "kept.json").write_text(json.dumps({quick.machine(1): {"ranking": figures(before, 0.01)}}))
    monkeypatch.setattr("sys.argv", ["quick", "--kept", str(tmp_path / "kept.json")])
    assert quick.main() == code


def test_each_piece_of_work_runs_and_each_step_moves_its_model(monkeypatch):
    threads, steps, moved = torch.get_num_threads(), quick.steps, []

    def watched(learner):
        before = [one.detach().clone() for one in learner.model.parameters()]
        steps(learner)
        moved.append(any(not torch.equal(a, b) for a, b in zip(before, learner.model.parameters(), strict=True)))

    monkeypatch.setattr(quick, "steps", watched)
    pieces = quick.pieces()
    assert {"step of adamf_mat", "step of momok", "step of mygo", "ranking", "splits and audit"} <= pieces.keys()
    try:
        for work in pieces.values():
            work()
    finally:
        torch.set_num_threads(threads)
    assert moved == [True] * sum(name.startswith("step of") for name in pieces)
