"""The page of speed: ratios of its own figures alone, and nothing of what is not here."""

from benchmarks import reference


def side(busy: float) -> dict:
    return {"busy": busy, "wall": 2 * busy, "least": busy, "most": busy, "steps": 2, "peak": 3e9}


def test_a_ratio_is_of_the_two_sides_that_ran():
    figures = {
        "machine": "a machine", "ceilings": {"flops": 5e10, "bytes": 1e10},
        "cases": {"mygo": {"against": "authors", "theirs": side(30.0), "ours": side(2.0)}},
    }  # fmt: skip
    page = reference.page(figures)
    assert "| mygo | authors | 30.000 (60.000) | 2.000 (4.000) | 15.0 | 3.0 / 3.0 |" in page
    assert "50 GFLOP/s" in page


def test_what_is_not_here_is_left_out(tmp_path):
    (tmp_path / "MoMoK").mkdir()
    assert reference.side_of("momok", tmp_path) == "authors"
    assert reference.side_of("mygo", tmp_path) is None
    assert reference.side_of("mygo", None) is None


def test_turns_are_summed_by_medians():
    turns = [{"busy": [1.0, 5.0], "wall": [2.0, 2.0], "peak": 1}, {"busy": [3.0], "wall": [4.0], "peak": 7}]
    assert reference.summed(turns) == {"busy": 3.0, "wall": 2.0, "least": 1.0, "most": 5.0, "steps": 3, "peak": 7}
