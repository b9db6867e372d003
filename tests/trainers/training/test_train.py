"""One training run on a graph some of whose modalities nobody has."""

import dataclasses

import pytest
import torch

from pipeline.errors import UserError
from tests.helpers.tiny import settings_of, tiny
from trainers.models import adamf_mat, transe
from trainers.training.data import Features
from trainers.training.train import without_absent


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
