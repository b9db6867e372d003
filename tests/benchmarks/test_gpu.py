"""The GPU's table in its small form, on the CPU: every line is there."""

import sys

from benchmarks import gpu


def test_the_reduced_form_measures_all_models_and_encoders(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gpu", "--device", "cpu", "--reduced", "--out", str(tmp_path / "gpu.md")])
    gpu.main()
    page = (tmp_path / "gpu.md").read_text()
    for model in gpu.EPOCHS:
        assert page.count(f"| {model} | ") == 1
    assert "Reduced sizes" in page
    assert "BERT of 2 layers, texts of 64 tokens" in page, "what was measured is no BERT base"
    assert "| 10 |\n" not in page[: page.index("| model |")], "bytes a second are measured, too"
    assert "pictures of 224" in page


def test_what_no_longer_fits_in_its_time_is_said(tmp_path, monkeypatch, capsys):
    command = ["gpu", "--device", "cpu", "--reduced", "--minutes", "-1", "--out", str(tmp_path / "gpu.md")]
    monkeypatch.setattr(sys, "argv", command)
    gpu.main()
    assert "Left out, since the time was over: adamf_mat in float32" in (tmp_path / "gpu.md").read_text()
