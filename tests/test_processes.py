"""Two processes that train one model end where one process ends, having seen the same triples."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from trainers import MODELS
from trainers.checkpoint import load_tensors

HERE = Path(__file__).parent


def train(name: str, folder: Path, launcher: list[str]) -> tuple[dict, dict]:
    folder.mkdir()
    path = os.pathsep.join([str(HERE.parent), str(HERE), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, *launcher, str(HERE / "two_processes.py"), name, str(folder)],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / "told.json").read_text()), load_tensors(folder / "weights.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in MODELS if name in ("adamf_mat", "transe", "momok", "mygo")])
def test_two_processes_end_where_one_ends(name, tmp_path):
    alone, weights = train(name, tmp_path / "one", [])
    both, shared = train(name, tmp_path / "two", ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"])
    assert (alone["processes"], both["processes"]) == (1, 2)
    assert (both["epoch"], both["rows"]) == (alone["epoch"], alone["rows"])
    assert both["mrr"] == pytest.approx(alone["mrr"], abs=2e-3)
    for key, value in weights.items():
        torch.testing.assert_close(shared[key], value, rtol=1e-3, atol=1e-4, msg=lambda text, key=key: f"{key}: {text}")
