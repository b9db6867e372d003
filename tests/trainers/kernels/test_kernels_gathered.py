"""The kernel of gathered candidates against plain autograd: values, gradients, odd shapes, zeros, NaN, threads."""

import pytest
import torch

from trainers import kernels
from trainers.kernels import gathered
from trainers.training.negative_sampling import ALL_AT_ONCE, products

pytestmark = pytest.mark.skipif(kernels.library() is None, reason="the C kernels are not built")
KINDS = {
    "sum": lambda *parts: gathered.distances(*parts, 1),
    "length": lambda *parts: gathered.distances(*parts, 2),
    "product": gathered.products,
}


def case(rows: int, count: int, entities: int, width: int) -> tuple[torch.Tensor, ...]:
    draw = torch.Generator().manual_seed(0)
    query = torch.randn(rows, 2, width, generator=draw).requires_grad_()
    entity = torch.randn(entities, width, generator=draw).requires_grad_()
    candidate = torch.randint(entities, (rows, count), generator=draw)
    return query, entity, candidate, torch.rand(rows, count, generator=draw) < 0.4


def with_gradients(kind: str, parts: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    found = KINDS[kind](*parts)
    weight = torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
    return (found, *torch.autograd.grad((found * weight).sum(), parts[:2]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(7, 5, 11, 6), (1, 1, 1, 1), (33, 20, 4, 17), (3, 129, 300, 250), (0, 4, 5, 3)])
def test_scores_and_gradients_are_those_of_plain_torch(monkeypatch, kind, shape):
    parts = case(*shape)
    if shape[0]:
        with torch.no_grad():  # one candidate that is its query
            parts[1][parts[2][0, 0]] = parts[0][0, int(parts[3][0, 0])]
    ours = with_gradients(kind, parts)
    monkeypatch.setattr(gathered, "library", lambda: None)
    for one, other in zip(ours, with_gradients(kind, parts), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_number_that_is_none_spoils_its_own_scores_only(kind):
    parts = case(6, 9, 8, 20)
    with torch.no_grad():
        parts[1][3, 7] = float("nan")
    found = with_gradients(kind, parts)
    assert torch.equal(found[0].isnan(), parts[2] == 3)
    if kind != "product":  # whose gradient by an entity does not depend on it
        assert found[2].isnan().any(1).tolist() == [entity == 3 for entity in range(8)]


def test_threads_do_not_change_a_bit():
    parts, threads = case(65, 40, 90, 50), torch.get_num_threads()
    found = []
    try:
        for number in (1, 3):
            torch.set_num_threads(number)
            found.append([one for kind in KINDS for one in with_gradients(kind, parts)])
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_one_product_with_all_entities_and_gathered_rows_give_the_same(monkeypatch):
    parts = case(9, 8, 20, 12)
    assert len(parts[1]) <= ALL_AT_ONCE[True] * parts[2].shape[1]
    whole = products(*parts)
    monkeypatch.setitem(ALL_AT_ONCE, True, 0)
    torch.testing.assert_close(whole, products(*parts))
