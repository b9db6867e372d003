"""A model costs one file, one config and its citation: a toy model is added to a copy of the project, and is there."""

import json
import shutil
import subprocess
from pathlib import Path

from tests.helpers import warm
from tests.helpers.clones import ROOT, environment

MODEL = '''"""Toy: DistMult on a vector per entity and what is projected from its features."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from trainers.about import About
from trainers.parts.scorer import ScoringModel
from trainers.training.data import Data
from trainers.training.kvsall import Batch, QueryLearner, link_loss, seeded
from trainers.training.optimizer import optimizer_step

ABOUT = About(name="ToY", papers=("toy2026",), reads=("features",), memorises=0.3)


@dataclass(frozen=True)
class Settings:
    epochs: int
    batch_size: int
    learning_rate: float
    dimension: int
    modalities: tuple[Literal["structure", "text", "image"], ...]


class Toy(ScoringModel):
    def __init__(self, data: Data, settings: Settings):
        super().__init__()
        self.relations = data.relations
        self.entity = nn.Parameter(torch.randn(data.entities, settings.dimension) * settings.dimension**-0.5)
        self.relation = nn.Parameter(torch.randn(2 * data.relations, settings.dimension))
        self.projections = nn.ModuleDict()
        for name in (one for one in settings.modalities if one in data.features):
            found = data.features[name]
            rows = torch.zeros(data.entities, found.matrix.shape[1])
            rows[found.entity] = found.matrix
            self.register_buffer(f"{name}_features", rows)
            self.projections[name] = nn.Linear(rows.shape[1], settings.dimension)

    def prepare(self) -> Tensor:
        """(E, D)."""
        said = [layer(getattr(self, f"{name}_features")) for name, layer in self.projections.items()]
        return self.entity + sum(said)

    def sizes(self) -> tuple[int, int]:
        return len(self.entity), self.relations

    def score(self, prepared: Tensor, known: Tensor, relation: Tensor, side: str) -> Tensor:
        relation = relation + self.relations if side == "head" else relation
        return (prepared[known] * self.relation[relation]) @ prepared.T


def build(data: Data, settings: Settings, generator: torch.Generator) -> Toy:
    with seeded(generator):
        return Toy(data, settings)


class Learner(QueryLearner):
    def __init__(self, model: Toy, data: Data, settings: Settings, **run: Any):
        super().__init__(model, data, settings, **run)
        self.optimizers["model"] = self.adam(model.parameters())

    def step(self, batch: Batch) -> dict[str, Tensor]:
        seen = self.model.prepare()
        query = seen[batch.known] * self.model.relation[batch.relation]
        loss = link_loss(query, seen, batch.row, batch.answer, entities=len(seen))
        optimizer_step(loss, self.model.parameters(), self.optimizers["model"])
        return {"link": loss.detach()}
'''
CONFIG = """# Toy. Keys: see adamf_mat.yaml.
common:
  epochs: 5
  batch_size: 64
  learning_rate: 0.01
  dimension: 16
  modalities:
  - structure
  - text
  - image
"""
CITATION = """
[toy2026]
type = "inproceedings"
author = "Anybody"
title = "A Toy Model"
booktitle = "A Workshop"
year = 2026
"""
ASKED = """
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from stages import code, settings
from stages.params import load_params
from stages.report.tables import citations, display
from stages.studies.__main__ import NAMES, fits

params = load_params()
settings.check(params)
settings.write(params)
run = SimpleNamespace(model="toy", about={})
Path("found.json").write_text(json.dumps({
    "models": list(params.models),
    "called": display("toy"),
    "cited": [one.key for one in citations(["mini"], [run])],
    "studies": [name for name in NAMES if fits(name, "toy")],
    "versions": [name for name in code.versions({}) if "toy" in name],
}))
tests = ("trainers/models/test_model_contract.py", "trainers/parts/test_scorer.py", "stages/test_params.py")
of_toy = "toy and (saved or subset or permuting or sentence) or every_model_has_a_file"
sys.exit(pytest.main(["-p", "no:cacheprovider", *(f"tests/{one}" for one in tests), "-k", of_toy]))
"""


def project(into: Path) -> None:
    """What a model is made of, and what must find it, copied."""
    for name in ("pipeline", "stages", "trainers", "configs", "tests"):
        shutil.copytree(ROOT / name, into / name, ignore=shutil.ignore_patterns("__pycache__", "*.npz"))
    for name in ("params.yaml", "pyproject.toml"):
        shutil.copy(ROOT / name, into)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_model_costs_one_file_one_config_and_its_citation(tmp_path):
    project(tmp_path)
    before = contents(tmp_path)
    (tmp_path / "trainers/models/toy.py").write_text(MODEL)
    (tmp_path / "configs/models/toy.yaml").write_text(CONFIG)
    with (tmp_path / "stages/report/citations.toml").open("a") as handle:
        handle.write(CITATION)
    after = contents(tmp_path)
    assert {name for name in after if before.get(name) != after[name]} == {
        "trainers/models/toy.py", "configs/models/toy.yaml", "stages/report/citations.toml",
    }  # fmt: skip
    # And it is there: for a user who chooses it, in the report and the studies, for DVC, for the tests of all models.
    params = (tmp_path / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(params.replace("models:\n- adamf_mat\n- rotate", "models:\n- toy"))
    (tmp_path / "asked.py").write_text(ASKED)
    given = warm.environment(environment())
    done = subprocess.run(["python", "-m", "asked"], cwd=tmp_path, env=given, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["models"] == ["toy"]
    assert found["called"] == "ToY"
    assert "toy2026" in found["cited"]
    assert {"missing", "feature_noise", "modalities", "wrong_links", "encoders"} <= set(found["studies"])
    assert not {"token_noise", "tokens", "experts", "case"} & set(found["studies"])
    assert found["versions"] == ["models/toy"]
