"""Same seed, same GPU, same weights: torch's fixed order is on while a run trains, and has a form of all it is asked.

Counted on the CPU, over plain torch, by the operations that a step and its gradients consist of.
"""

import os

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.helpers.tiny import learner_of, settings_of, tiny
from trainers.about import module_of
from trainers.training import loop

# Operations that on a GPU have no deterministic form (torch.use_deterministic_algorithms says so), by their names or
# the beginnings of these.
NO_ORDER = (
    "_adaptive_avg_pool", "adaptive_max_pool", "avg_pool3d_backward", "fractional_max_pool", "max_unpool",
    "_ctc_loss_backward", "_cudnn_ctc_loss", "grid_sampler_2d_backward", "grid_sampler_3d_backward", "upsample",
    "reflection_pad", "nll_loss2d", "put", "put_", "histc", "_histogram", "kthvalue", "median", "nanmedian", "cummax",
    "_scaled_dot_product_efficient_attention", "_sparse_addmm", "_sparse_mm",
)  # fmt: skip
MODELS = [
    ("adamf_mat", {}), ("adamf_mat", {"optimizer": "lazy_adam"}), ("momok", {}), ("momok", {"candidates": 7}),
    ("mygo", {}), ("mygo", {"candidates": 7}), ("tucker", {}), ("rotate", {}), ("transe", {}), ("complex", {}),
    ("distmult", {"objective": "k_vs_all"}), ("complex", {"objective": "one_vs_all", "optimizer": "adagrad"}),
    ("mosaic", {}),
]  # fmt: skip


class Watch(TorchDispatchMode):
    """Collects the operations whose order of summation a GPU leaves open."""

    def __init__(self):
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function._schema.name.removeprefix("aten::")
        kwargs = kwargs or {}
        floats = name in ("cumsum", "cumsum_", "cumprod") and args[0].is_floating_point()
        weighed = name == "bincount" and ((len(args) > 1 and args[1] is not None) or kwargs.get("weights") is not None)
        multiplied = name.startswith("scatter_reduce") and "prod" in (*args, *kwargs.values())
        exact = name in ("put", "put_", "median", "nanmedian")
        named = name in NO_ORDER if exact else name.startswith(tuple(one for one in NO_ORDER if len(one) > 4))
        if floats or weighed or multiplied or named:
            self.found.append(name)
        return function(*args, **kwargs)


@pytest.mark.parametrize(("name", "changes"), MODELS, ids=lambda value: str(value))
def test_a_step_has_nothing_that_a_gpu_adds_in_any_order(name, changes, plain_torch):
    module = module_of(name)
    learner = learner_of(module, tiny(), settings_of(module, **changes))
    learner.model.train()
    with Watch() as watch:
        learner.step(next(iter(learner.batches(0))))
    assert not watch.found


def test_what_has_no_order_is_noticed():
    row, weight = torch.tensor([1, 0, 1]), torch.ones(3)
    for work in (
        lambda: weight.cumsum(0), lambda: torch.bincount(row, weight), lambda: torch.histc(weight),
        lambda: weight.median(0), lambda: weight.clone().put_(row, weight),
        lambda: torch.nn.functional.cross_entropy(torch.ones(1, 2, 3), row[None]),
        lambda: weight.clone().scatter_reduce_(0, row, weight, "prod"),
    ):  # fmt: skip
        with Watch() as watch:
            work()
        assert watch.found
    with Watch() as watch:
        row.cumsum(0), torch.bincount(row), weight.clone().index_add_(0, row, weight)
        torch.nn.functional.cross_entropy(torch.ones(3, 2), row)
    assert not watch.found


@pytest.mark.parametrize("on_gpu", [True, False])
def test_the_fixed_order_is_on_while_a_run_trains_and_as_before_after_it(on_gpu, monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    before = torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic.fill_uninitialized_memory
    with loop.reproducible(on_gpu):
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.utils.deterministic.fill_uninitialized_memory
    assert os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None) == (":4096:8" if on_gpu else None)
    after = torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic.fill_uninitialized_memory
    assert after == before


def test_what_a_process_says_of_cublas_is_left_to_it(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    with loop.reproducible(True):
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"
