"""MoMoK and MyGO on large graphs: only the rows of a step move, and a draw does not cost the number of entities."""

import pytest
import torch

from pipeline.errors import UserError
from tests.helpers.tiny import learner_of, settings_of, tiny
from trainers.models import momok, mygo
from trainers.training import lazy, processes, sampling
from trainers.training.optimizer import clip_

TABLES = {momok: [f"tables.{name}.table" for name in ("structure", "text", "image")], mygo: ["structure"]}


def stepped(module, optimizer: str, steps: int, **changes) -> tuple[torch.nn.Module, torch.nn.Module]:
    """The model after so many steps on few queries and candidates, and before the last of them."""
    changes = {"candidates": 3, "contrastive_rows": 2, "batch_size": 2, "gate_noise": False, **changes}
    one = learner_of(module, tiny(), settings_of(module, optimizer=optimizer, learning_rate=0.01, **changes))
    torch.manual_seed(3)
    one.model.train()
    before = {}
    for _, batch in zip(range(steps), one.batches(0), strict=False):
        before = {name: value.clone() for name, value in one.model.named_parameters()}
        one.step(batch)
    return dict(one.model.named_parameters()), before


@pytest.mark.parametrize("module", TABLES)
@pytest.mark.parametrize("missing", ["mean", "learned"])
def test_lazy_adam_moves_only_the_rows_of_a_step_by_the_same_gradients(module, missing):
    changes = {"missing": missing, "experts": 1} if module is momok else {"clip": 0.01}
    lazy, dense = (stepped(module, kind, 1, **changes)[0] for kind in ("lazy_adam", "adam"))
    for name, value in dense.items():
        if value.grad is not None:
            whole = lazy[name].grad.to_dense() if lazy[name].grad.is_sparse else lazy[name].grad
            torch.testing.assert_close(whole, value.grad, rtol=1e-4, atol=1e-7)
            assert lazy[name].grad.is_sparse == (name in TABLES[module])
    still = {}
    for kind in ("lazy_adam", "adam"):
        after, before = stepped(module, kind, 4, **changes)
        still[kind] = [int((after[name] == before[name]).all(1).sum()) for name in TABLES[module]]
    # Adam's momentum carries on the rows of the steps before.
    assert all(lazy > dense for lazy, dense in zip(*still.values(), strict=True))


@pytest.mark.parametrize("module", TABLES)
def test_lazy_adam_without_sampled_candidates_is_refused(module):
    with pytest.raises((ValueError, UserError), match="candidates"):
        settings_of(module, optimizer="lazy_adam", candidates=None)


@pytest.mark.parametrize("by_torch", [True, False])
def test_gradients_of_some_rows_are_clipped_like_whole_ones(by_torch, monkeypatch):
    monkeypatch.setattr(lazy, "by_torch", lambda gradient: by_torch)
    table, other = (torch.nn.Parameter(torch.zeros(5, 2)) for _ in range(2))
    rows = torch.tensor([1, 3, 1])
    slope = torch.arange(6.0).view(3, 2) + 1
    torch.nn.functional.embedding(rows, table, sparse=True).mul(slope).sum().backward()
    other.grad = torch.full((5, 2), 0.5)
    whole = [torch.nn.Parameter(torch.zeros(5, 2)) for _ in range(2)]
    for one, like in zip(whole, (table, other), strict=True):
        one.grad = like.grad.to_dense().clone()
    clip_([table, other], 0.7)
    torch.nn.utils.clip_grad_norm_(whole, 0.7)
    for one, like in zip(whole, (table, other), strict=True):
        torch.testing.assert_close(like.grad.to_dense(), one.grad)


@pytest.mark.parametrize(("module", "missing"), [(momok, "learned"), (mygo, "mean")])
def test_where_a_gpu_would_be_waited_for_rows_are_moved_as_torch_moves_them(module, missing, monkeypatch):
    changes = {"missing": missing, "experts": 1} if module is momok else {"clip": 0.01}
    theirs = stepped(module, "lazy_adam", 2, **changes)[0]
    monkeypatch.setattr(lazy, "by_torch", lambda gradient: False)
    ours = stepped(module, "lazy_adam", 2, **changes)[0]
    for name, value in theirs.items():  # but for a hundredth of a step, where a gradient is next to nothing
        torch.testing.assert_close(ours[name], value, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", [lazy.LazyAdam, lazy.LazyAdagrad])
def test_a_row_that_is_read_often_is_moved_once(kind, monkeypatch):
    start, rows = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([4, 1, 4, 4])

    def after(optimizer_class: type[torch.optim.Optimizer]) -> tuple[torch.Tensor, dict]:
        table = torch.nn.Parameter(start.clone())
        optimizer = optimizer_class([table], lr=0.1)
        for power in (2, 3):
            optimizer.zero_grad()
            torch.nn.functional.embedding(rows, table, sparse=True).pow(power).sum().backward()
            optimizer.step()
            assert table.grad.is_sparse
        return table.detach(), optimizer.state_dict()["state"][0]

    table, state = after(kind.__mro__[1])
    monkeypatch.setattr(lazy, "by_torch", lambda gradient: False)
    ours, ours_state = after(kind)
    torch.testing.assert_close(ours, table)
    assert torch.equal(ours[[0, 2, 3, 5]], start[[0, 2, 3, 5]])
    assert state.keys() == ours_state.keys()
    for name, value in state.items():
        torch.testing.assert_close(ours_state[name], value)


@pytest.mark.parametrize("number", [10, 2000])
def test_numbers_drawn_without_repetition_are_all_alike(number):
    draw = torch.Generator().manual_seed(0)
    size, times = 3, 4000
    assert (number > sampling.FEW * size) == (number == 2000)
    found = torch.stack([sampling.without_repetition(number, size, draw) for _ in range(times)])
    assert all(len(set(row)) == size for row in found.tolist())
    for place in found.unbind(1):  # each place alike over all numbers, by tenths of them
        counts = torch.bincount(place * 10 // number, minlength=10)
        assert (counts - times / 10).abs().max() < 5 * (times / 10) ** 0.5


def test_few_of_many_are_drawn_without_shuffling_them_all(monkeypatch):
    monkeypatch.setattr(torch, "randperm", None)
    drawn = sampling.without_repetition(10**12, 1000, torch.Generator().manual_seed(0))
    assert len(drawn.unique()) == 1000


def test_lazy_adam_on_several_gpus_is_a_sentence(monkeypatch):
    one = learner_of(mygo, tiny(), settings_of(mygo, optimizer="lazy_adam", candidates=3))
    table = [one.model.structure]
    monkeypatch.setattr(processes, "count", lambda: 2)
    assert one.lazy_adam(table)  # on CPUs gloo sums them
    one.device = torch.device("cuda", 0)
    with pytest.raises(UserError, match="several GPUs"):
        one.lazy_adam(table)
