"""Entities held out whole: nothing of them is left to train on, and their facts are those that are measured."""

import pytest
import torch

from pipeline.errors import UserError
from tests.helpers.tiny import ENTITIES, tiny
from trainers.training import data as reading
from trainers.training.held_out import hold_out, renumbered, write


def facts(data) -> torch.Tensor:
    return torch.cat([data.train, data.dev, data.test])


def test_what_is_held_out_stands_nowhere_in_what_is_trained_on_and_each_joining_fact_once_in_a_half():
    data = tiny()
    cut = hold_out(data, 0.2, seed=3)
    seen = cut.seen.entities
    assert ENTITIES - seen == 5
    assert int(facts(cut.seen)[:, [0, 2]].max()) < seen
    for kind in ("features", "tokens"):
        for name, one in getattr(cut.seen, kind).items():
            assert int(one.entity.max()) < seen
            assert len(one.entity) < len(getattr(data, kind)[name].entity)
    joining = torch.cat([cut.choose_on, cut.measure_on])
    new = (facts(cut.whole)[:, [0, 2]] >= seen).sum(1)
    assert len(joining) == int((new == 1).sum()) == len(torch.unique(joining, dim=0))
    halves = [set(part[:, [0, 2]][part[:, [0, 2]] >= seen].tolist()) for part in (cut.choose_on, cut.measure_on)]
    assert not halves[0] & halves[1]
    assert len(facts(cut.whole)) == len(facts(data))


def test_numbering_anew_and_back_is_the_same_graph():
    data = tiny()
    place = torch.randperm(ENTITIES, generator=torch.Generator().manual_seed(1))
    again = renumbered(renumbered(data, place), torch.argsort(place))
    assert torch.equal(facts(again), facts(data))
    assert torch.equal(again.features["text"].matrix, data.features["text"].matrix)
    assert torch.equal(again.tokens["image"].values, data.tokens["image"].values)


def test_what_is_written_is_what_training_reads(tmp_path):
    cut = hold_out(tiny(), 0.2, seed=3)
    write(
        cut.seen, tmp_path / "g/graph", tmp_path / "g/encoded", {"triples": {"split": "clean"}, "text": {}, "image": {}}
    )
    kinds = ("text", "image")
    read = reading.load(tmp_path / "g/graph", tmp_path / "g/encoded", name="tiny", features=kinds, tokens=kinds)
    assert read.entities == cut.seen.entities
    for split in ("train", "dev", "test"):
        assert torch.equal(getattr(read, split), getattr(cut.seen, split))
    for name in kinds:
        assert torch.equal(read.features[name].matrix, cut.seen.features[name].matrix)
        assert torch.equal(read.tokens[name].values, cut.seen.tokens[name].values)
        assert torch.equal(read.tokens[name].offsets, cut.seen.tokens[name].offsets)


def test_a_share_that_leaves_too_little_is_refused():
    with pytest.raises(UserError, match="hold out another share"):
        hold_out(tiny(), 0.98, seed=0)
