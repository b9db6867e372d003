"""Other models' scores as further columns of mosaic's fusion."""

from types import SimpleNamespace

import torch

from benchmarks.base import fuse_with
from benchmarks.mosaic_parts import cross_validated
from tests.helpers.tiny import learner_of, plain, tiny
from trainers.models import mosaic
from trainers.parts.mosaic.fusion import Plan


def knowing(data) -> SimpleNamespace:
    """A run that holds dev's facts for true and nothing else."""

    def score(known, relation, side):
        out = torch.zeros(len(known), data.entities)
        for row, (entity, one) in enumerate(zip(known.tolist(), relation.tolist(), strict=True)):
            for head, r, tail in data.dev.tolist():
                if r == one and entity == (head if side == "tail" else tail):
                    out[row, tail if side == "tail" else head] = 9.0
        return out

    return SimpleNamespace(score=score, model=SimpleNamespace(sizes=lambda: (data.entities, data.relations)))


def test_the_fusion_takes_up_a_model_that_knows_in_both_directions():
    data = tiny()
    learner = learner_of(mosaic, data, plain(mosaic))
    learner.model.eval().mine()
    fuse_with(learner.model, [knowing(data)])
    plan = Plan(penalty=0.5, hard=4, random=4, epochs=200)
    lists = learner.lists(learner.unlearnt, plan)
    scorers, columns = len(learner.model.members()), lists.columns.shape[2]
    without = torch.tensor([place for place in range(columns) if place != scorers])
    blind, seeing = (
        cross_validated(learner, lists, kept, plan)["realistic"] for kept in (without, torch.arange(columns))
    )
    assert seeing.mean() < blind.mean()
    assert (seeing == 1).mean() > 0.9
