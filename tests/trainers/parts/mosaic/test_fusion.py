"""The fusion's lists must stand for all rivals, and what is fitted on them must find what decides."""

import numpy as np
import pytest
import torch

from trainers.parts.mosaic import fusion
from trainers.parts.mosaic.fusion import Lists, Plan


@pytest.mark.parametrize("entities", [30, 700])
def test_a_list_holds_the_truth_the_hardest_rivals_and_others_that_stand_for_all_the_rest(entities):
    draw, plan = np.random.default_rng(0), Plan(hard=10, random=40)
    blend, truth, others = draw.normal(size=entities).astype(np.float32), 3, np.array([3, 5, 8])
    picked, offset = fusion.candidates(blend, others, truth, plan, draw)
    rivals = np.setdiff1d(np.arange(entities), others)
    counted = np.isfinite(offset)
    assert picked[0] == truth
    assert offset[0] == 0
    assert set(picked[1:11]) == set(rivals[np.argsort(-blend[rivals])][:10])
    assert not set(picked[1:][counted[1:]]) & set(others)
    assert np.exp(offset[counted]).sum() == pytest.approx(1 + len(rivals), rel=1e-4)


def test_a_list_of_fewer_entities_than_it_has_places_leaves_places_empty():
    draw, plan = np.random.default_rng(0), Plan(hard=10, random=5)
    picked, offset = fusion.candidates(np.zeros(6, dtype=np.float32), np.array([0, 1]), 0, plan, draw)
    assert len(picked) == len(offset) == 16
    assert sorted(picked[np.isfinite(offset)]) == [0, 2, 3, 4, 5]


def lists(relations: int = 2, count: int = 600) -> Lists:
    """Of three columns the first decides in relation 0, the second in relation 1, the third nowhere."""
    draw = torch.Generator().manual_seed(0)
    columns = torch.randn(count, 20, 3, generator=draw)
    relation = torch.arange(count) % relations
    columns[torch.arange(count), 0, relation] += 3
    return Lists(columns, torch.zeros(count, 20), relation, torch.arange(count) % 20)


def test_weights_are_found_for_each_relation_and_the_penalty_holds_them_together():
    def weights(penalty):
        fitted = fusion.fit(lists(), torch.zeros(3), 2, Plan(penalty=penalty), seed=0)
        return fitted.weights(torch.tensor([0, 1]), torch.tensor([5, 5]))

    free, held = weights(0.1), weights(1e4)
    assert free[0, 0] > free[0, 1] + 0.8
    assert free[1, 1] > free[1, 0] + 0.8
    assert (free[:, 2].abs() < 0.2).all()
    assert torch.allclose(held[0], held[1], atol=0.05)


def test_few_lists_leave_the_fusion_near_the_blend_that_it_begins_with():
    few = lists(count=4)
    blend = torch.tensor([0.0, 0.0, 1.0])
    fitted = fusion.fit(few, blend, 2, Plan(), seed=0)
    assert (fitted.weights(few.relation, few.degree)[:, 2] > 0.3).all()
