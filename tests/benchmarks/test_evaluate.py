"""The line of a ranking benchmark: what was measured now, and no number from anywhere else."""

from benchmarks.evaluate import ALONE, row
from trainers.about import MODELS


def test_a_line_says_the_same_of_the_same_figures_whichever_model_they_are_of():
    found = {"seconds": [3.0, 1.0, 2.0], "busy": [2.5, 0.5], "before": 1e9, "peak": 2e9}
    lines = {model: row(found | {"model": model}).removeprefix(model).split() for model in (ALONE, *MODELS)}
    assert all(line == ["1.00", "s", "2.00", "s", "0.50", "s", "1.00", "GB", "2.00", "GB"] for line in lines.values())
