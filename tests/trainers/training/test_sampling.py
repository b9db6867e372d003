"""Negatives: the law of the side and of the entity, no known triple, decided by the seed, no waiting for the device."""

import pytest
import torch
import torch.nn.functional as F

from trainers.training.sampling import (
    NegativeIndex,
    NegativeSampler,
    bernoulli,
    local_slice,
    self_adversarial_loss,
    shuffled,
)

ENTITIES, RELATIONS = 12, 3


def graph() -> torch.Tensor:
    """Relation 0 leads from entity 0 to 1 … 8 and from 9 to 1; relation 1 is one to one; relation 2 has no triple."""
    star = [(0, 0, tail) for tail in range(1, 9)] + [(9, 0, 1)]
    return torch.tensor([*star, (2, 1, 3), (4, 1, 5)])


def sampler(**changes) -> NegativeSampler:
    return NegativeSampler(graph(), entities=ENTITIES, relations=RELATIONS, **changes)


def draw(generator: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(generator)


def corrupted(positive: torch.Tensor, negatives) -> torch.Tensor:
    """(B, K, 3) the triples that the negatives stand for."""
    rows = positive[:, None].repeat(1, negatives.entity.shape[1], 1)
    rows[..., 0] = torch.where(negatives.head, negatives.entity, rows[..., 0])
    rows[..., 2] = torch.where(negatives.head, rows[..., 2], negatives.entity)
    return rows


def test_bernoulli_is_tails_per_head_against_heads_per_tail():
    # Relation 0: nine triples, two heads, eight tails: tph = 9/2, hpt = 9/8.
    expected = torch.tensor([4.5 / (4.5 + 1.125), 0.5, 0.5])
    torch.testing.assert_close(bernoulli(graph(), RELATIONS), expected)
    torch.testing.assert_close(bernoulli(graph().repeat(3, 1), RELATIONS), expected)  # repeated triples count once


@pytest.mark.parametrize(("sides", "share"), [("bernoulli", 0.8), ("uniform", 0.5)])
def test_the_head_is_replaced_as_often_as_the_rule_says(sides, share):
    count = 20000
    found = sampler(sides=sides)(graph()[:1], count, draw()).head.float().mean().item()
    assert abs(found - share) < 4 * (share * (1 - share) / count) ** 0.5


def test_unknown_sides_are_refused():
    with pytest.raises(ValueError, match="sides"):
        sampler(sides="left")


def test_no_negative_is_a_known_triple_and_the_others_are_equally_likely():
    positive, count = graph()[:1].repeat(50, 1), 2000
    negatives = sampler()(positive, count, draw())
    known = {tuple(row) for row in graph().tolist()}
    drawn = corrupted(positive, negatives).flatten(0, 1)
    assert not known & {tuple(row) for row in drawn.tolist()}
    tails = torch.bincount(negatives.entity[~negatives.head], minlength=ENTITIES)
    free = torch.tensor([0, 9, 10, 11])  # entities that relation 0 does not lead to from entity 0
    assert tails[free].sum() == tails.sum()
    heads = torch.bincount(negatives.entity[negatives.head], minlength=ENTITIES)
    others = torch.tensor([1, 2, 3, 4, 5, 6, 7, 8, 10, 11])  # not 0 and not 9, which lead to 1
    assert heads[others].sum() == heads.sum()
    for seen in (tails[free], heads[others]):
        expected = seen.sum() / len(seen)
        # χ² beyond its 99.99 % point (21.1 for 3, 33.7 for 9 degrees of freedom) would be no even draw.
        assert (((seen - expected) ** 2) / expected).sum() < (21.1 if len(seen) == 4 else 33.7)


def test_a_query_that_every_entity_answers_still_gets_a_draw():
    triples = torch.tensor([(0, 0, tail) for tail in range(ENTITIES)])
    negatives = NegativeSampler(triples, entities=ENTITIES, relations=1)(triples[:2], 50, draw())
    assert negatives.entity.min() >= 0
    assert negatives.entity.max() < ENTITIES


def test_free_entities_agree_with_an_obvious_count():
    generator = draw(1)
    key, answer = (torch.randint(size, (400,), generator=generator) for size in (30, 50))
    free = NegativeIndex.build(key, answer, 50)
    for query in range(32):  # two of them have no answers at all
        known = set(answer[key == query].tolist())
        expected = [entity for entity in range(50) if entity not in known]
        found = free.draw(torch.full((len(expected),), query), torch.arange(len(expected)))
        assert found.tolist() == expected


def test_the_seed_decides_and_only_the_seed():
    positive = graph()
    one, same, other = (sampler()(positive, 64, draw(seed)) for seed in (5, 5, 6))
    assert torch.equal(one.entity, same.entity)
    assert torch.equal(one.head, same.head)
    assert not torch.equal(one.entity, other.entity)


def test_nothing_asks_the_device_for_a_number(monkeypatch):
    draws, positive = sampler(), graph()

    def refuse(*_):
        raise AssertionError("a draw looked at a tensor's value")

    for name in ("item", "tolist", "__bool__", "__int__", "__float__", "__index__", "nonzero"):
        monkeypatch.setattr(torch.Tensor, name, refuse)
    draws(positive, 16)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_draws_on_a_gpu_follow_the_same_rules():
    triples = graph().cuda()
    negatives = NegativeSampler(triples, entities=ENTITIES, relations=RELATIONS)(triples, 200)
    assert negatives.entity.is_cuda
    known = {tuple(row) for row in graph().tolist()}
    assert not known & {tuple(row) for row in corrupted(triples, negatives).flatten(0, 1).tolist()}


def test_an_epoch_visits_everything_once_in_an_order_of_its_own():
    first, again, next_one, other = (
        torch.cat(list(shuffled(100, 32, seed=seed, epoch=epoch))) for seed, epoch in ((0, 1), (0, 1), (0, 2), (1, 1))
    )
    assert torch.equal(first.sort().values, torch.arange(100))
    assert torch.equal(first, again)
    assert not torch.equal(first, next_one)
    assert not torch.equal(first, other)
    assert [len(part) for part in shuffled(100, 32, seed=0, epoch=0)] == [32, 32, 32, 4]


def test_one_process_owns_the_whole_batch():
    rows, share = local_slice(10)
    assert (rows, share) == (slice(None), 1.0)


def test_shares_of_several_processes_add_up_to_the_batch(monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 3)
    loss, rows = torch.arange(10.0), []
    total = 0.0
    for rank in range(3):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
        own, share = local_slice(10)
        rows += range(10)[own]
        total += share * loss[own].mean() / 3
    assert rows == list(range(10))
    assert total == pytest.approx(loss.mean().item())


def test_the_loss_weighs_hard_negatives_more_and_lets_no_gradient_through_the_weights():
    positive = torch.tensor([1.0, 2.0])
    negative = torch.tensor([[0.0, 2.0, -1.0], [1.0, 1.0, 1.0]], requires_grad=True)
    hits, misses = self_adversarial_loss(positive, negative, 2.0)
    weight = torch.softmax(2 * negative.detach(), dim=-1)
    expected = -(weight * torch.log(torch.sigmoid(-negative))).sum(-1).mean() / 2
    torch.testing.assert_close(misses, expected)
    torch.testing.assert_close(hits, -torch.log(torch.sigmoid(positive)).mean() / 2)
    misses.backward()
    torch.testing.assert_close(negative.grad, weight * torch.sigmoid(negative.detach()) / 4)
    even = self_adversarial_loss(positive, negative, 0.0)[1]
    torch.testing.assert_close(even, -F.logsigmoid(-negative).mean() / 2)
