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
        assert quick.main() in (0, 1)
        assert "holds nothing" not in capsys.readouterr().out
    finally:
        torch.set_num_threads(threads)
    assert next(iter(json.loads((tmp_path / "kept.json").read_text()).values()))["ranking"]["seconds"] > 0


def test_each_piece_of_work_runs():
    threads = torch.get_num_threads()
    try:
        for work in quick.pieces().values():
            work()
    finally:
        torch.set_num_threads(threads)
