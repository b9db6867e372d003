"""`python -m stages.ops.compare A B` as a user runs it."""

import json
import subprocess
import sys

import numpy as np
import pytest

from pipeline.errors import UserError
from stages.ops.compare import compare as run
from trainers.evaluation import ranking


def write_run(folder, ranks, tails=None):
    count = len(ranks)
    half = count // 2
    columns = {
        "head": np.arange(count),
        "relation": np.zeros(count, dtype=int),
        "tail": np.arange(count) if tails is None else tails,
        "direction": np.array(["tail"] * half + ["head"] * (count - half)),
        "optimistic": ranks,
        "pessimistic": ranks,
        "realistic": ranks.astype(float),
        "candidates": np.full(count, 100),
        "score": np.zeros(count),
    }
    ranking.write(folder / "ranks.parquet", {"test": columns}, {"model": folder.name})


def compare(*arguments):
    command = [sys.executable, "-m", "stages.ops.compare", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def runs(tmp_path):
    ranks = np.random.default_rng(0).integers(1, 40, 300)
    write_run(tmp_path / "a", ranks)
    write_run(tmp_path / "b", ranks + 2)
    return tmp_path / "a", tmp_path / "b"


def test_the_better_run_is_named_with_its_interval(runs, tmp_path):
    done = compare(*runs, "--samples", 500, "--json", tmp_path / "figures.json")
    assert done.returncode == 0, done.stderr
    assert "both directions: 300 queries of test" in done.stdout
    assert "A ranks the truth higher 300 times, B 0 times" in done.stdout
    assert "direction head: 150 queries" in done.stdout
    figures = json.loads((tmp_path / "figures.json").read_text())
    a = ranking.read(runs[0] / "ranks.parquet")
    assert figures["both"]["mrr"]["a"] == pytest.approx(np.mean(1 / a["realistic"]))
    low, high = figures["both"]["mrr"]["interval"]
    assert 0 < low < figures["both"]["mrr"]["difference"] < high
    assert f"{low:+.4f} to {high:+.4f}" in done.stdout


def test_runs_on_other_queries_are_refused_in_one_sentence(runs, tmp_path):
    write_run(tmp_path / "c", np.arange(1, 301), tails=np.arange(300)[::-1])
    done = compare(runs[0], tmp_path / "c", "--json", tmp_path / "figures.json")
    assert done.returncode == 1
    assert "different queries" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "figures.json").exists()


def test_a_folder_that_is_no_run_or_was_not_evaluated_is_named(runs, tmp_path):
    (tmp_path / "empty").mkdir()
    for folder, split in (("nowhere", "test"), ("empty", "test"), ("b", "dev")):
        with pytest.raises(UserError, match=f"{folder}.*{'dev' if split == 'dev' else ''}"):
            run(runs[0] if split == "test" else runs[1], tmp_path / folder, split=split, samples=5, level=0.9, seed=0)


def test_a_level_that_is_no_share_is_refused(runs):
    done = compare(*runs, "--level", 95)
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
