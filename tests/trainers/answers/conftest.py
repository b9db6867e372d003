"""Runs of the tiny graph that are asked, explained and extended."""

import pytest

from tests.helpers.asked import write_encoded, write_names
from tests.helpers.tiny import settings_of, tiny
from trainers.about import module_of
from trainers.training.runs import load_run
from trainers.training.train import Schedule, train

ASKED = ("adamf_mat", "momok", "mygo", "rotate", "complex", "mosaic")


@pytest.fixture(scope="session")
def project(tmp_path_factory):
    """A folder with data/tiny and runs/tiny/<model>."""
    root = tmp_path_factory.mktemp("explained")
    data, graph = tiny(), root / "data/tiny/graph"
    encoded = graph.parent / "encoded"
    write_names(graph, data)
    write_encoded(encoded, data)
    schedule = Schedule(device="cpu", precision="float32", evaluate_every=2, patience=0, checkpoint_every=0)
    for model in ASKED:
        settings = settings_of(module_of(model), epochs=2, missing="mean")
        run, work = root / "runs/tiny" / model, root / "work"
        train(model, settings, schedule, graph=graph, encoded=encoded, run=run, work=work, seed=0)
    return root


@pytest.fixture(scope="session")
def runs(project):
    """The runs by model; none of them may be changed."""
    return {model: load_run(project / "runs/tiny" / model) for model in ASKED}
