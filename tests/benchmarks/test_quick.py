"""The quick benchmark: what it says of figures, and that each piece of work runs."""

import json

import pytest
import torch

from benchmarks import quick


def figures(ratio: float, noise: float) -> dict[str, float]:
    return {"ratio": ratio, "noise": noise, "seconds": ratio / 10, "rounds": 30}


@pytest.mark.parametrize(
    ("now", "before", "said"),
    [
        (figures(1.5, 0.01), figures(1.0, 0.01), "50% slower"),
        (figures(0.5, 0.01), figures(1.0, 0.01), "50% faster"),
        (figures(1.5, 0.2), figures(1.0, 0.2), "too noisy to judge, now and in what was kept"),
        (figures(1.1, 0.02), figures(1.0, 0.2), "too noisy to judge, in what was kept"),
        (figures(3.0, 0.3), figures(1.0, 0.1), "200% slower"),  # noisy, and beyond the noise all the same
        (figures(1.05, 0.001), figures(1.0, 0.001), ""),  # little
    ],
)
def test_only_what_is_beyond_the_noise_is_said(now, before, said):
    (line,) = quick.lines({"step of mygo": now}, {"step of mygo": before})
    assert line.endswith(said) if said else "er" not in line.split("±")[1]
    assert (quick.change(now, before) > 0) == ("slower" in said)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A function that runs the command on one piece of work with further options; gives its exit code."""
    threads = torch.get_num_threads()

    def go(*options: str) -> int:
        monkeypatch.setattr("sys.argv", ["quick", "--kept", str(tmp_path / "kept.json"), "--seconds", "0", *options])
        return quick.main()

    yield go
    torch.set_num_threads(threads)


def test_a_machine_without_figures_is_told_so_and_keeps_them(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(quick, "pieces", lambda: {"ranking": lambda: sum(range(50_000))})
    monkeypatch.setattr(quick, "MOST_NOISE", 100.0)
    assert run("--write") == 0
    assert "holds nothing of this machine" in capsys.readouterr().out
    run()
    assert "holds nothing" not in capsys.readouterr().out
    (kept,) = json.loads((tmp_path / "kept.json").read_text()).values()
    assert kept["ranking"]["seconds"] > 0
    assert kept["ranking"]["rounds"] == 2 * quick.PARTS


def test_figures_that_would_hide_a_slowdown_are_not_kept(run, tmp_path, monkeypatch, capsys):
    now = {"ranking": figures(1.0, 0.04), "step of mygo": figures(2.0, 0.11)}
    monkeypatch.setattr(quick, "measured", lambda seconds: now)
    assert run("--write") == 2
    found = capsys.readouterr()
    assert "Not kept, since a slowdown would be lost in such noise: step of mygo (±6%) with at most ±5%" in found.err
    assert "new, and too noisy to keep" in found.out
    assert not (tmp_path / "kept.json").exists()


def test_medians_that_were_kept_once_are_compared_with_nothing(run, tmp_path, monkeypatch, capsys):
    old = {name: value for name, value in figures(0.1, 0.0).items() if name != "rounds"}
    (tmp_path / "kept.json").write_text(json.dumps({quick.machine(1): {"ranking": old}}))
    monkeypatch.setattr(quick, "measured", lambda seconds: {"ranking": figures(1.0, 0.01)})
    assert run() == 0
    assert "holds nothing of this machine" in capsys.readouterr().out


def test_rounds_that_others_disturbed_do_not_count():
    disturbed = quick.summed([9.0, 2.0, 2.0, 2.0, 7.0, 8.0], [1.0, 1.0, 5.0, 6.0, 1.0, 1.0])
    assert (disturbed["ratio"], disturbed["noise"], disturbed["seconds"]) == (2.0, 0.0, 2.0)
    apart = quick.summed([2.0, 3.0, 2.0, 2.0, 3.0, 2.0], [1.0] * 6)
    assert (apart["ratio"], apart["noise"]) == (2.0, 0.5)


def test_work_runs_as_the_train_stage_runs_it(monkeypatch):
    chosen, modes = [], []
    monkeypatch.setattr("trainers.matmul.use", lambda choice, device: chosen.append(choice))
    monkeypatch.setattr(
        quick, "pieces", lambda: {"a step": lambda: modes.append(torch.are_deterministic_algorithms_enabled())}
    )
    quick.measured(0)
    assert (chosen, set(modes)) == (["auto"], {True})


@pytest.mark.parametrize(("before", "code"), [(0.5, 1), (1.0, 0), (2.0, 0)])
def test_it_ends_with_1_only_if_something_is_slower(before, code, tmp_path, monkeypatch):
    monkeypatch.setattr(quick, "measured", lambda seconds: {"ranking": figures(1.0, 0.01)})
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
