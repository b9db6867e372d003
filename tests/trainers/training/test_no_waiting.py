"""No step makes a GPU wait: nothing in it has a size, or a branch, that only the values of a tensor tell.

Counted on the CPU, over plain torch, by the operations that a step consists of.
"""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.helpers.tiny import learner_of, settings_of, tiny
from trainers.about import module_of
from trainers.kernels import library
from trainers.models import momok

# Operations whose result's size, or whose return to Python, depends on numbers that lie on the device.
WAITS = {
    "_local_scalar_dense", "nonzero", "_unique", "_unique2", "unique_dim", "unique_consecutive", "masked_select",
    "bincount", "equal", "is_nonzero",
}  # fmt: skip


LEAVES = ("tolist", "numpy", "cpu")  # methods that bring a tensor to Python without an operation


class Watch(TorchDispatchMode):
    """Collects the operations that would wait."""

    def __init__(self, monkeypatch):
        super().__init__()
        self.found: list[str] = []
        for name in LEAVES:
            leave = getattr(torch.Tensor, name)
            monkeypatch.setattr(
                torch.Tensor, name, lambda one, name=name, leave=leave: self.found.append(name) or leave(one)
            )

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function._schema.name.removeprefix("aten::")
        masks = name in ("index", "index_put", "index_put_") and any(
            one is not None and one.dtype in (torch.bool, torch.uint8) for one in args[1]
        )
        sizes = name == "repeat_interleave" and (kwargs or {}).get("output_size") is None
        if name in WAITS or masks or sizes:
            self.found.append(name)
        return function(*args, **(kwargs or {}))


@pytest.fixture(autouse=True)
def _plain_torch(monkeypatch):
    monkeypatch.setenv("TESSERA_KERNELS", "off")
    library.cache_clear()
    yield
    library.cache_clear()


CASES = [
    ("adamf_mat", {}), ("momok", {}), ("momok", {"candidates": 7}), ("mygo", {}), ("mygo", {"candidates": 7}),
    ("tucker", {}), ("rotate", {}), ("transe", {}), ("complex", {}), ("distmult", {"objective": "k_vs_all"}),
    ("complex", {"objective": "one_vs_all", "optimizer": "adagrad"}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "changes"), CASES, ids=lambda value: str(value))
def test_a_step_waits_for_nothing(name, changes, monkeypatch):
    if name == "momok":  # draws two experts on the CPU, whatever the device
        monkeypatch.setattr(momok.Learner, "pair", lambda learner: (0, 1))
    module = module_of(name)
    learner = learner_of(module, tiny(), settings_of(module, **changes))
    learner.model.train()
    batches = learner.batches(0)
    learner.step(next(batches))
    batch = next(batches)
    with Watch(monkeypatch) as watch:
        learner.step(batch)
    assert not watch.found


def test_what_waits_is_noticed(monkeypatch):
    row = torch.tensor([1, 0, 1])
    for work in (
        lambda: int(row.sum()), lambda: row.nonzero(), lambda: row[row > 0], lambda: torch.unique(row),
        lambda: torch.repeat_interleave(row), lambda: torch.bincount(row), lambda: [*row.tolist()], lambda: row.cpu(),
    ):  # fmt: skip
        with Watch(monkeypatch) as watch:
            work()
        assert watch.found
