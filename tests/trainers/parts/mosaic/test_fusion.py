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
    number = torch.arange(count)
    return Lists(columns, torch.zeros(count, 20), relation, number % 20, number % 3, torch.empty(count, 0))


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


def test_what_dev_knows_is_no_rival_unless_it_is_left_out():
    """Five facts of dev, of which the first three answer one query, the first two being of folds 0 and 1."""
    query, answer, fold = np.array([7, 7, 7, 9, 4]), np.array([11, 12, 13, 11, 15]), np.array([0, 1, 1, 2, 2])
    also, of_fold = fusion.spared_of(query, answer, fold, most=4)
    told = [
        {(a, f) for a, f in zip(row, kinds, strict=True) if f >= 0}
        for row, kinds in zip(also.tolist(), of_fold.tolist(), strict=True)
    ]
    assert told == [{(12, 1), (13, 1)}, {(11, 0), (13, 1)}, {(11, 0), (12, 1)}, set(), set()]
    offset = torch.cat([torch.zeros(5, 1), torch.full((5, 4), -torch.inf)], 1)
    lists = Lists(torch.randn(5, 5, 2), offset, torch.zeros(5), torch.zeros(5), torch.from_numpy(fold), of_fold)
    rest = lists.without(1)
    assert rest.fold.tolist() == [0, 2, 2]
    assert torch.isfinite(rest.offset).sum(1).tolist() == [3, 1, 1]  # 12 and 13 stand against 11
    assert torch.isfinite(lists.without(0).offset).sum(1).tolist() == [2, 2, 1, 1]  # 11 against 12, and against 13
    assert torch.isfinite(lists.offset).sum() == 5


def test_of_a_query_with_many_answers_so_many_stand_by():
    also, of_fold = fusion.spared_of(np.zeros(30, dtype=int), np.arange(30), np.arange(30) % 3, most=16)
    assert (of_fold >= 0).all()
    assert all(len(set(row)) == 16 and place not in row for place, row in enumerate(also.tolist()))
