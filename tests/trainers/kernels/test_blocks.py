"""Plain torch in blocks, as a GPU works: the numbers of the whole, dropout included, in bounded memory."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from trainers import room
from trainers.kernels import blocks, cross_entropy, ent_attention, gathered, tucker
from trainers.kernels.ent_attention import Segment

pytestmark = pytest.mark.usefixtures("plain_torch")
FEW = 3000  # numbers in a block: each case below is several times as large, and all that it is given is smaller
CASES = ("tucker by relation", "tucker a relation each", "sum", "length", "product", "mix")


class Largest(TorchDispatchMode):
    """The largest number of numbers in a tensor that an operation makes."""

    most = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        for one in found if isinstance(found, tuple | list) else [found]:
            if isinstance(one, torch.Tensor) and one.untyped_storage().nbytes() > 8:
                self.most = max(self.most, one.untyped_storage().nbytes() // one.element_size())
        return found


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def case(name: str, dtype: torch.dtype, p: float = 0.0):
    """What is computed, and the leaves that it is differentiated by."""
    whole = torch.Generator().manual_seed(9)
    if name.startswith("tucker"):
        index = torch.randint(5, (40,), generator=whole) if "by" in name else None
        rows = 40 if index is None else 5
        leaves = draw(40, 13, dtype=dtype), draw(rows, 6, seed=1, dtype=dtype), draw(6, 13, 13, seed=2, dtype=dtype)
        return lambda x, r, w: tucker.contract(x, r, w, index, p), leaves
    if name == "mix":
        index, absent = torch.randint(50, (60, 9), generator=whole), torch.rand(60, 9, generator=whole) < 0.3
        leaves = (draw(60, 16, dtype=dtype), draw(50, 16, seed=1, dtype=dtype), draw(2, 16, seed=2, dtype=dtype),
                  draw(2, 3, seed=3, dtype=dtype))  # fmt: skip

        def mixed(own, table, direction, offset):
            segments = [Segment(own, None, None, p), Segment(table, index, absent, p)]
            return torch.cat([one.flatten() for one in ent_attention.mix(segments, direction, offset, p)])

        return mixed, leaves
    kind = {"sum": 1, "length": 2, "product": gathered.PRODUCT}[name]
    candidate, side = torch.randint(40, (30, 20), generator=whole), torch.rand(30, 20, generator=whole) < 0.4
    leaves = draw(30, 2, 12, dtype=dtype), draw(40, 12, seed=1, dtype=dtype)
    leaves[1][candidate[7, 3]] = leaves[0][7, int(side[7, 3])]  # a candidate that is its query
    return lambda query, entity: gathered._Scores.apply(query, entity, candidate, side, kind), leaves


def plainly(name: str, query: torch.Tensor, entity: torch.Tensor) -> torch.Tensor:
    """What `gathered` gives, by autograd."""
    whole = torch.Generator().manual_seed(9)
    candidate, side = torch.randint(40, (30, 20), generator=whole), torch.rand(30, 20, generator=whole) < 0.4
    asked, given = torch.where(side[..., None], query[:, None, 1], query[:, None, 0]), entity[candidate]
    if name == "product":
        return (asked * given).sum(-1)
    return torch.linalg.vector_norm(asked - given, {"sum": 1, "length": 2}[name], dim=-1)


def solved(work, leaves) -> list[torch.Tensor]:
    """The result, and the gradients of a random functional of it."""
    leaves = [leaf.clone().requires_grad_() for leaf in leaves]
    torch.manual_seed(4)
    out = work(*leaves)
    slope = draw(*out.shape, seed=5, dtype=out.dtype)
    return [out.detach(), *torch.autograd.grad((out * slope).sum(), leaves)]


def use_blocks(monkeypatch, size: int) -> None:
    monkeypatch.setattr(blocks, "BLOCK", {"cpu": size})


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("kept", [0, 1 << 16, 1 << 30], ids=["made again", "some kept", "kept"])
def test_blocks_give_what_the_whole_gives(name, kept, monkeypatch):
    work, leaves = case(name, torch.float64)
    use_blocks(monkeypatch, 1 << 30)
    whole = solved(work, leaves)
    monkeypatch.setattr(room, "LIMIT", kept)
    use_blocks(monkeypatch, FEW)
    for one, other in zip(solved(work, leaves), whole, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    if name in ("sum", "length", "product"):
        for one, other in zip(whole, solved(lambda *parts: plainly(name, *parts), leaves), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["tucker by relation", "tucker a relation each", "mix"])
def test_a_block_that_is_made_again_has_the_masks_that_it_had(name, monkeypatch):
    work, leaves = case(name, torch.float64, p=0.4)
    use_blocks(monkeypatch, FEW)
    found = []
    for kept in (0, 1 << 30):
        monkeypatch.setattr(room, "LIMIT", kept)
        found.append(solved(work, leaves))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
    assert not torch.equal(found[0][0], solved(case(name, torch.float64)[0], leaves)[0]), "nothing was dropped"


@pytest.mark.parametrize("name", CASES)
def test_nothing_is_larger_than_a_block(name, monkeypatch):
    work, leaves = case(name, torch.float32, p=0.4)
    use_blocks(monkeypatch, FEW)
    with Largest() as made:
        solved(work, leaves)
    assert 0 < made.most <= FEW


@pytest.mark.parametrize("name", ["tucker by relation", "tucker a relation each", "mix"])
def test_no_block_is_kept_where_there_is_no_room(name, monkeypatch):
    work, leaves = case(name, torch.float32, p=0.4)
    leaves = [leaf.requires_grad_() for leaf in leaves]
    use_blocks(monkeypatch, FEW)
    kept = {}
    for limit in (0, 1 << 30):
        monkeypatch.setattr(room, "LIMIT", limit)
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda one, to=sizes: to.append(one.numel()) or one, lambda one: one
        ):
            work(*leaves)
        kept[limit] = sum(sizes)
    assert kept[0] < FEW < kept[1 << 30]


@pytest.mark.parametrize("size", [1 << 22, 700 * 7, 1])
def test_cross_entropy_in_blocks_is_that_of_the_whole(size, monkeypatch):
    query, table, target = draw(40, 8).mul_(3), draw(700, 8, seed=1), torch.arange(40) * 17
    monkeypatch.setattr(cross_entropy, "BLOCK", {"cpu": size})
    with Largest() as made:
        ours = solved(lambda *parts: cross_entropy.linear_cross_entropy(*parts, target), (query, table))
    theirs = solved(lambda q, t: torch.nn.functional.cross_entropy(q @ t.T, target), (query, table))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    assert made.most <= max(size, table.numel())
