"""What adding a modality or a metric costs: its row, and everything that reads the table follows."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline import tables
from pipeline.modalities import used
from stages import encode
from stages.ops import summary
from stages.params import load_params
from stages.report.inputs import read_graph
from stages.report.page import page
from stages.report.tables import coverage
from stages.studies.runs import counted
from tests.helpers import numbers_modality
from tests.helpers import report_world as world
from trainers.evaluation import breakdown, ranking
from trainers.evaluation.metrics import METRICS, Metric, hits_at
from trainers.training import data

ROOT = Path(__file__).parents[2]
MODELS = ("adamf_mat", "rotate")


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_modality_is_a_row_a_reader_and_an_encoder(project, monkeypatch):
    row = numbers_modality.register(monkeypatch)
    scorers = world.build(project, "DB15K", models=MODELS)
    folder = project / "data/DB15K"
    values = [f"{one / 7:.3f}" if one % 3 else None for one in range(world.ENTITIES)]
    tables.write(folder / row.source, row.kind, {"entity_id": list(range(world.ENTITIES)), "value": values}, {})

    params = load_params(ROOT / "params.yaml")
    with_signs = params.model_copy(
        update={"store": None, "encoders": {**params.encoders, "signs": {"family": "signs"}}}
    )
    monkeypatch.setattr(encode, "load_params", lambda: with_signs)
    monkeypatch.setattr(sys, "argv", ["encode", "--graph", "DB15K", "--modality", "number"])
    encode.main()
    has = np.array([value is not None for value in values])
    assert json.loads((folder / "encode_numbers.json").read_text())["missing"] == (~has).sum()

    read = data.load(folder / "graph", folder / "encoded", name="DB15K", features=used(("structure", "number", "text")))
    assert list(read.features) == ["text", "number"]
    assert read.features["number"].entity.tolist() == np.flatnonzero(has).tolist()

    facts = breakdown.read_facts(folder / "graph", folder / "encoded")
    assert (facts.covered["number"] == has).all()
    ranks = ranking.read(project / "runs/DB15K/rotate/ranks.parquet", "test")
    groups = {one.name: one for one in breakdown.groups(ranks, facts)}
    assert len(groups["answer_coverage"].values) == 8
    assert {"no number", "number"} == set(groups["known_number"].values)
    assert {"with_number", "asked_with_number"} <= set(counted())

    _, shares = coverage(read_graph(project, "DB15K"))[0]
    assert next(iter(shares)) == "text, drawing and number"
    assert sum(shares.values()) == pytest.approx(1)
    assert sum(share for name, share in shares.items() if "number" in name) == pytest.approx(has.mean())
    html = page(project, ["DB15K"], MODELS, load=scorers.__getitem__)
    for said in (
        "answer&#39;s number: no number",
        f"{has.sum()} have a number",
        '<abbr title="text, drawing and number">TDN',
    ):
        assert said in html


def test_a_metric_is_a_row(project, monkeypatch):
    monkeypatch.setitem(METRICS, "hits_at_2", Metric("hits_at_2", "Hits@2", hits_at(2)))
    scorers = world.build(project, "DB15K", models=MODELS)
    test = json.loads((project / "runs/DB15K/rotate/test.json").read_text())
    assert test["hits_at_1"] < test["hits_at_2"] < test["hits_at_3"]
    assert test["tail"]["hits_at_2"] != test["hits_at_2"]
    low, high = test["intervals"]["hits_at_2"]
    assert low < test["hits_at_2"] < high
    ranks = ranking.read(project / "runs/DB15K/rotate/ranks.parquet", "test")
    table = breakdown.breakdown(ranks, project / "data/DB15K/graph", samples=20)
    assert table["hits_at_2"][0].as_py() == pytest.approx(test["hits_at_2"])
    assert table["hits_at_2_low"][0].as_py() < test["hits_at_2"]
    lines = summary.table(project, ["DB15K"], MODELS).splitlines()
    assert "Hits@2" in lines[0].split()
    assert f"{100 * test['hits_at_2']:.2f}" in lines[2].split()
    html = page(project, ["DB15K"], MODELS, load=scorers.__getitem__)
    shown = re.search(r'data-model="rotate".*?data-metric="hits_at_2">(.*?)</span>', html, flags=re.DOTALL)[1]
    assert shown == f"{100 * test['hits_at_2']:.2f}"
