"""One training run on a graph some of whose modalities nobody has."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from pipeline import tables
from pipeline.errors import UserError
from pipeline.graph.vocabulary import SPLITS
from tests.helpers.tiny import settings_of, tiny
from trainers import matmul
from trainers.models import adamf_mat, transe
from trainers.training.data import Features
from trainers.training.train import Schedule, train, without_absent


def pictureless():
    data = tiny()
    nobody = Features(torch.empty(0, dtype=torch.int64), torch.empty(0, 0))
    return dataclasses.replace(data, features={**data.features, "image": nobody}, tokens={})


def test_a_modality_that_nobody_has_is_left_out_and_said(caplog):
    left = without_absent(settings_of(adamf_mat), pictureless())
    assert left.modalities == ("structure", "text")
    assert "training without" in caplog.text
    model = adamf_mat.build(pictureless(), left, torch.Generator().manual_seed(0))
    assert torch.isfinite(model.eval().scorer()(torch.tensor([0]), torch.tensor([0]), "tail")).all()


def test_nothing_changes_where_somebody_has_each_modality():
    settings = settings_of(adamf_mat)
    assert without_absent(settings, tiny()) is settings
    assert without_absent(settings_of(transe), pictureless()).modalities == ("structure",)


def test_nothing_left_to_read_is_a_sentence():
    with pytest.raises(UserError, match="No entity of tiny has an encoded image"):
        without_absent(settings_of(adamf_mat, modalities=("image",)), pictureless())


def test_train_and_dev_together_are_learnt_to_the_last_epoch(tmp_path):
    data = tiny()
    rows = {split: getattr(data, split) for split in SPLITS}
    columns = torch.cat(list(rows.values())).to(torch.int32).T.numpy()
    graph = tmp_path / "graph"
    names = {"key": [str(i) for i in range(data.entities)], "label": ["x"] * data.entities}
    ids = np.arange(data.entities, dtype=np.int32)
    tables.write(graph / "entities.parquet", "entities", {"entity_id": ids, **names}, {})
    relations = {name: column[: data.relations] for name, column in {"relation_id": ids, **names}.items()}
    tables.write(graph / "relations.parquet", "relations", {**relations, "category": ["1-1"] * data.relations}, {})
    triples = dict(zip(("head", "relation", "tail"), columns, strict=True))
    triples["split"] = [split for split, part in rows.items() for _ in range(len(part))]
    tables.write(graph / "triples.parquet", "triples", triples, {"split": "clean"})

    def trained(train_on):
        places = {"graph": graph, "encoded": tmp_path, "run": tmp_path / train_on, "work": tmp_path / "work"}
        settings = settings_of(transe, epochs=4, learning_rate=10.0)  # which soon gets worse
        schedule = Schedule(evaluate_every=1, patience=1, train_on=train_on)
        return train("transe", settings, schedule, **places, seed=0)

    alone, together = trained("train"), trained("train+dev")
    written = json.loads((tmp_path / "train" / "run.json").read_text())
    assert written["matmul"] == matmul.use("auto", torch.device("cpu"))
    assert together["triples_seen"] == 4 * (len(data.train) + len(data.dev))
    assert (together["epochs"], together["chosen_epoch"], together["train_on"]) == (4, 4, "train+dev")
    assert alone["fingerprint"] != together["fingerprint"]
    assert alone["triples_seen"] == alone["epochs"] * len(data.train)
