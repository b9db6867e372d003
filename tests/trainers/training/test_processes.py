"""Two processes that train one model end where one process ends, having seen the same triples."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch

from tests.helpers import warm
from tests.helpers.clones import ROOT, environment
from trainers.training import processes
from trainers.training.checkpoint import load_tensors

CASES: list[tuple[str, dict]] = [
    ("adamf_mat", {}),
    ("adamf_mat", {"feature_table": "frozen", "optimizer": "lazy_adam", "negative_pool": 6}),
    ("transe", {}),
    ("momok", {}),
    ("momok", {"candidates": 9, "missing": "mask"}),
    ("mygo", {}),
    ("mygo", {"candidates": 9}),
    # Rows of one answer and batches of one lot, so that the walker is asked for the same facts.
    (
        "mosaic",
        {
            "modalities": ["structure"],
            "answers_per_row": 1,
            "batch_size": 12,
            "dropout": 0.0,
            "walker_dropout": 0.0,
            "walker_queries": 12,
        },
    ),
    ("walker", {"batch_size": 12}),
]


def train(folder: Path, launcher: list[str]) -> None:
    """All cases one after the other, each into a subfolder by its number."""
    folder.mkdir()
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [*launcher, "python", "-m", "tests.helpers.two_processes", str(folder), json.dumps(CASES)],
        env=warm.environment(environment(PYTHONPATH=path)),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def read(folder: Path) -> tuple[dict, dict]:
    return json.loads((folder / "told.json").read_text()), load_tensors(folder / "weights.safetensors")


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """The folders `one` and `two`: trained by so many processes. A launch costs more than what is trained in it."""
    folder = tmp_path_factory.mktemp("trained")
    train(folder / "one", [])
    train(
        folder / "two", ["python", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--no-python"]
    )
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(CASES)), ids=[" ".join((name, *changes)) for name, changes in CASES])
def test_two_processes_end_where_one_ends(number, trained):
    alone, weights = read(trained / "one" / str(number))
    both, shared = read(trained / "two" / str(number))
    assert (alone["processes"], both["processes"]) == (1, 2)
    assert both["slope"] == pytest.approx(alone["slope"], rel=1e-3)
    if CASES[number][0] == "momok":  # each process compares with its part of the candidates only
        assert 0 < both["candidates"] < 0.6 * alone["candidates"]
    if CASES[number][0] == "mygo":  # each process makes its part of the queries
        assert 0 < both["multiplied"] < 0.6 * alone["multiplied"]
    assert both["epoch"] == alone["epoch"]
    if CASES[number][0] in ("mosaic", "walker"):  # a batch holds this process's part alone
        assert 0.4 * alone["rows"] < both["rows"] < 0.6 * alone["rows"]
    else:
        assert both["rows"] == alone["rows"]
    assert both["mrr"] == pytest.approx(alone["mrr"], abs=2e-3)
    # Adam makes steps of one size of gradients near 0, so sums in another order show: a tenth of a step at most, and a
    # fifth where few candidates stand for all.
    most = 2e-3 if CASES[number] == ("mygo", {"candidates": 9}) else 1e-3
    for key, value in weights.items():
        if key.startswith("fusion."):  # fitted on some twenty lists, which magnify what differs in their columns
            most = 0.05
        torch.testing.assert_close(shared[key], value, rtol=1e-3, atol=most, msg=lambda text, key=key: f"{key}: {text}")


def test_each_block_of_own_draws_draws_other_numbers_and_leaves_the_shared_ones_alike(monkeypatch):
    monkeypatch.setattr(processes, "together", lambda: True)
    monkeypatch.setattr(processes, "count", lambda: 2)

    def drawn(rank: int) -> tuple[list[float], float]:
        monkeypatch.setattr(processes.distributed, "get_rank", lambda: rank)
        torch.manual_seed(0)
        own = []
        for _ in range(2):
            with processes.own_draws(torch.device("cpu")):
                own.append(float(torch.rand(())))
        return own, float(torch.rand(()))

    torch.manual_seed(0)
    alone = float(torch.rand(()))
    first, second = drawn(0), drawn(1)
    assert len({*first[0], *second[0]}) == 4
    assert first[1] == second[1] == alone
