"""The kernel of complex distances against plain autograd: values, gradients, odd shapes, NaN, threads."""

import subprocess
import sys

import pytest
import torch

from trainers import kernels
from trainers.kernels import rotate

needs_kernels = pytest.mark.skipif(kernels.library() is None, reason="the C kernels are not built")


def plain(query: torch.Tensor, entity: torch.Tensor, candidate: torch.Tensor, side: torch.Tensor) -> torch.Tensor:
    """The definition, with torch's complex numbers."""
    width = entity.shape[1] // 2
    asked = torch.where(side[..., None], query[:, None, 1], query[:, None, 0])
    difference = asked - entity[candidate]
    return torch.complex(difference[..., :width], difference[..., width:]).abs().sum(-1)


def case(rows: int, count: int, entities: int, width: int, seed: int = 0) -> tuple[torch.Tensor, ...]:
    draw = torch.Generator().manual_seed(seed)
    query = torch.randn(rows, 2, 2 * width, generator=draw)
    entity = torch.randn(entities, 2 * width, generator=draw)
    candidate = torch.randint(entities, (rows, count), generator=draw)
    side = torch.rand(rows, count, generator=draw) < 0.4
    return query, entity, candidate, side


@pytest.fixture(params=["kernel", "plain"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to the same numbers; the plain one in blocks so small that there are several."""
    if request.param == "kernel" and kernels.library() is None:
        pytest.skip("the C kernels are not built")
    if request.param == "plain":
        monkeypatch.setattr(rotate, "library", lambda: None)
        monkeypatch.setattr(rotate, "BLOCK", {"cpu": 1 << 9})
    return request.param


@pytest.mark.parametrize("shape", [(7, 5, 11, 6), (1, 1, 1, 1), (33, 20, 4, 17), (3, 129, 300, 250), (0, 4, 5, 3)])
def test_distances_and_gradients_are_those_of_autograd(path: str, shape: tuple[int, ...]):
    query, entity, candidate, side = case(*shape)
    query.requires_grad_(), entity.requires_grad_()
    weight = torch.randn(candidate.shape, generator=torch.Generator().manual_seed(1))
    ours, theirs = rotate.distances(query, entity, candidate, side), plain(query, entity, candidate, side)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    expected = torch.autograd.grad((theirs * weight).sum(), (query, entity))
    found = torch.autograd.grad((ours * weight).sum(), (query, entity))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_all_distances_are_those_of_each_pair(path: str):
    query, entity, _, _ = case(19, 1, 150, 13)
    every = torch.arange(150).expand(19, 150)
    expected = plain(query, entity, every, torch.zeros(19, 150, dtype=torch.bool))
    torch.testing.assert_close(rotate.all_distances(query[:, 0], entity), expected, rtol=1e-5, atol=1e-5)


def test_equal_vectors_have_distance_and_gradient_zero(path: str):
    query, entity, candidate, side = case(2, 3, 4, 5)
    entity[candidate[0, 0]] = query[0, int(side[0, 0])]
    query.requires_grad_()
    distance = rotate.distances(query, entity, candidate, side)[0, 0]
    assert distance == 0
    assert not torch.autograd.grad(distance, query)[0].any()


def test_a_number_that_is_none_spoils_its_own_distances_only(path: str):
    query, entity, candidate, side = case(6, 9, 8, 20)
    entity[3, 7] = float("nan")
    entity.requires_grad_()
    found = rotate.distances(query, entity, candidate, side)
    assert torch.equal(found.isnan(), candidate == 3)
    gradient = torch.autograd.grad(found.sum(), entity)[0].isnan().any(1)
    assert gradient.tolist() == [entity == 3 for entity in range(8)]
    assert torch.equal(rotate.all_distances(query[:, 0], entity.detach()).isnan().any(0), torch.arange(8) == 3)


@needs_kernels
def test_threads_do_not_change_a_bit():
    query, entity, candidate, side = case(65, 40, 90, 50)
    results, threads = [], torch.get_num_threads()
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            query.requires_grad_(), entity.requires_grad_()
            found = rotate.distances(query, entity, candidate, side)
            results.append((found, *torch.autograd.grad(found.square().sum(), (query, entity))))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(one, same) for one, same in zip(results[0], other, strict=True))


def test_without_the_library_it_says_so_once_and_goes_on():
    code = (
        "import logging, torch; logging.basicConfig(level='INFO')\n"
        "from trainers import kernels; from trainers.kernels import rotate\n"
        "for _ in range(2): print(rotate.all_distances(torch.zeros(1, 2), torch.ones(1, 2)).item())\n"
        "assert kernels.library() is None"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={"TESSERA_KERNELS": "off", "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, cwd=kernels.Path(kernels.__file__).parents[2], check=True,
    )  # fmt: skip
    assert done.stderr.count("plain torch") == 1
    assert done.stdout.split() == [str(torch.ones(1, 2).square().sum().sqrt().item())] * 2
