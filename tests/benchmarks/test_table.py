"""The table of results: what came to its end, the best first, with what the paired test says of the others."""

import dataclasses
import shutil

import numpy as np
import pytest

from benchmarks import run, table
from benchmarks.run import done, result_path, run_folder
from pipeline import tables
from pipeline.errors import UserError
from stages.params import load_params
from tests.helpers.tiny import plain
from trainers.evaluation import ranking
from trainers.models import complex

QUERIES = 400


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """Results of two models on MKG-Y, in an empty folder: ComplEx with two seeds ranks far better than TransE."""
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(0)
    for model, seed, most in (("complex", 0, 4), ("complex", 1, 5), ("transe", 0, 40)):
        rank = draw.integers(1, most, QUERIES).astype(np.float64)
        ids = np.arange(QUERIES, dtype=np.int32)
        ranks = {
            "head": ids, "relation": ids * 0, "tail": ids, "direction": np.full(QUERIES, "tail"),
            "optimistic": rank.astype(np.int32), "pessimistic": rank.astype(np.int32), "realistic": rank,
            "candidates": np.full(QUERIES, 50, np.int32), "score": np.zeros(QUERIES, np.float32),
        }  # fmt: skip
        ranking.write(run_folder("MKG-Y", model, seed, "clean") / "ranks.parquet", {"test": ranks}, {})
        metrics = ranking.metrics(ranks)
        tables.write_json(
            result_path("MKG-Y", model, seed, "clean"),
            {"graph": "MKG-Y", "model": model, "seed": seed, "test": {name: metrics[name] for name in run.KEPT},
             "coverage": {"text": 0.5} if model == "transe" else {},
             "encoders": {"text": {"encoder": "minilm"}} if model == "transe" else {}, "dev_mrr": 0.35,
             "chosen_epoch": 9, "seconds": 120.0, "peak_memory_bytes": 2**30, "device": "a CPU",
             "settings": {"epochs": 12}},
        )  # fmt: skip


def cells(model: str) -> list[str]:
    line = next(line for line in table.PAGE.read_text(encoding="utf-8").splitlines() if line.startswith(f"| {model}"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_page_has_a_row_for_each_model_the_best_first(kept):
    table.write()
    page = table.PAGE.read_text(encoding="utf-8")
    assert page.index("| ComplEx") < page.index("| TransE")
    assert "±" in cells("ComplEx")[1]
    assert "±" not in cells("TransE")[1]
    assert cells("ComplEx")[6:] == ["2", "9/9", "2.0", "1.0", "structure alone", cells("ComplEx")[11], "best"]
    assert cells("TransE")[10:12] == ["text 50% (minilm)", "30.73"]
    assert float(cells("TransE")[-1]) < 0.001
    assert "Retrained" not in page


def test_what_the_paired_test_said_is_kept_where_the_ranks_are_not(kept):
    table.write()
    before = table.PAGE.read_text(encoding="utf-8")
    shutil.rmtree(run.WORK)
    table.write()
    assert table.PAGE.read_text(encoding="utf-8") == before
    (run.RESULTS / "MKG-Y/paired.json").unlink()
    table.write()
    assert cells("TransE")[-1] == "?"


def test_a_run_is_done_when_its_figures_are_there_with_the_settings_of_now(tmp_path):
    settings = plain(complex, dimension=7)
    path = tmp_path / "seed0.json"
    assert not done(path, settings)
    tables.write_json(path, {"settings": dataclasses.asdict(settings)})
    assert done(path, settings)
    assert not done(path, plain(complex, dimension=8))


def test_runs_by_a_shorter_schedule_stand_in_a_table_of_their_own(kept):
    found = tables.read_json(result_path("MKG-Y", "transe", 0, "clean"))
    tables.write_json(result_path("MKG-Y", "adamf_mat", 0, "fast"), found | {"model": "adamf_mat", "chosen_epoch": 40})
    table.write()
    clean, fast = table.PAGE.read_text(encoding="utf-8").split("By the shorter schedules")
    assert "AdaMF-MAT" not in clean
    assert fast.splitlines()[4].startswith("| AdaMF-MAT |")
    assert fast.splitlines()[4].endswith("| 1 | 40 | 2 | text 50% (minilm) | 38.57 |")
    (minutes,) = (line for line in table.summary().splitlines() if line.startswith("| AdaMF-MAT, fast schedule"))
    assert minutes.split(" | ")[1::2] == ["– not measured", "2 (a CPU)"]


def test_a_shorter_schedule_changes_its_keys_and_no_other():
    params = load_params()
    papers, fast = (run.settings_of(params, "MKG-Y", "adamf_mat", 0, variant) for variant in ("clean", "fast"))
    assert (fast.epochs, fast.learning_rate) == (60, 0.001)
    assert dataclasses.replace(fast, epochs=papers.epochs, learning_rate=papers.learning_rate) == papers
    with pytest.raises(UserError, match=r"fast\.yaml has no schedule of rotate on mini"):
        run.settings_of(params, "mini", "rotate", 0, "fast")


def test_the_readme_says_what_was_measured_and_of_the_rest_that_it_was_not(kept):
    found = tables.read_json(result_path("MKG-Y", "complex", 0, "clean"))
    for graph in ("MKG-Y", "DB15K"):
        found |= {"graph": graph, "seconds": 180.0, "device": "x86_64 CPU, 1 threads"}
        tables.write_json(result_path(graph, "complex", 0, "clean"), found)
    data = {"entities": 12842, "with_text": 12652, "with_picture": 0, "encode_seconds": [126.0, 0.0],
            "encoded_rows": [9282, 0],
            "bytes": {"raw": 7 << 20, "images": 1, "encoded": 33 << 20}}  # fmt: skip
    tables.write_json(run.RESULTS / "DB15K/data.json", data)
    said = table.summary()
    assert "**DB15K in short**: 7.0 MiB of sources to download, 2 minutes to encode 9,282 texts, which" in said
    assert "| DB15K | 12,842 | 12,652 | 9,282 in 126 |" in said
    assert "after 3 minutes of training (x86_64 CPU, 1 thread)" in said
    assert "| ComplEx | 3 (1 thread) | – not measured |" in said
    (others,) = (line for line in said.splitlines() if line.startswith("| AdaMF, AdaMF-MAT, CP"))
    assert set(others.split(" | ")[1:]) == {"– not measured", "– not measured |"}
    assert "| DB15K | 257 (1 min) | 13,356 (45 min) |" in said
    assert "1 threads" not in said
