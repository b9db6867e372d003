"""Which runs the table still lacks: those of the house model too, and none that is there."""

import dataclasses
from types import SimpleNamespace

import pytest

from benchmarks import benchmark, run
from pipeline import tables
from stages.params import load_params
from trainers.about import module_of


def test_a_run_of_the_house_model_is_asked_for_until_it_is_there(tmp_path, monkeypatch):
    params = load_params()
    monkeypatch.chdir(tmp_path)
    options = SimpleNamespace(seeds=1, variants=["clean"], graphs=["MKG-W"], models=benchmark.MODELS)
    assert ("MKG-W", "mosaic", 0, "clean") in benchmark.missing(params, options)
    settings = run.settings_of(params, "MKG-W", "mosaic", 0, "clean")
    tables.write_json(run.result_path("MKG-W", "mosaic", 0, "clean"), {"settings": dataclasses.asdict(settings)})
    assert "mosaic" not in [model for _, model, _, _ in benchmark.missing(params, options)]


COMMITTED = sorted(run.RESULTS.glob("*/*/*seed*.json"))


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: "-".join(path.with_suffix("").parts[2:]))
def test_what_is_kept_of_a_run_names_every_key_that_its_model_has_now(path):
    """A key that came later is added with the value that means what the run did without it; else it counts as stale."""
    found = tables.read_json(path)
    if "settings" in found:
        assert set(found["settings"]) == {
            field.name for field in dataclasses.fields(module_of(found["model"]).Settings)
        }
