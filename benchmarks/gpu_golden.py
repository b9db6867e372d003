"""Whether a GPU computes what the CPU does: the same model, weights, batches and draws on both, in float32."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from types import ModuleType
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from benchmarks.conditions import as_trained
from pipeline.graph.filter_index import FilterIndex
from trainers import kernels
from trainers.evaluation import ranking
from trainers.training.data import Data
from trainers.training.train import filter_index

STEPS, QUERIES = 2, 200
CPU = torch.device("cpu")


class DrawnOnTheCPU(TorchFunctionMode):
    """Lets what torch draws without a generator of its own come from the CPU's, whichever device it is for."""

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in (torch.rand, torch.randn, torch.randint, torch.randperm) and kwargs.get("generator") is None:
            device = kwargs.pop("device", None)
            return func(*args, **kwargs).to(device or CPU)
        if func in (torch.rand_like, torch.randn_like):
            like = args[0]
            draw = torch.rand if func is torch.rand_like else torch.randn
            return draw(like.shape, dtype=kwargs.get("dtype") or like.dtype).to(like.device)
        return func(*args, **kwargs)


def compared(module: ModuleType, data: Data, settings: Any, device: torch.device) -> dict[str, Any]:
    """Loss terms of the first steps and the MRR after them, on the CPU and on `device`.

    `apart`: the largest difference of a term in the first step, before which the weights are the same to the bit, as a
    share of the largest term; `apart_later`: in the steps after. Dropout is off, since each device draws its masks in
    its own way.
    """
    settings = replace(settings, **without_dropout(settings))
    with without_kernels():
        sides = {name: followed(module, data, settings, where) for name, where in (("cpu", CPU), ("device", device))}
    gaps = [apart(*losses) for losses in zip(sides["cpu"]["losses"], sides["device"]["losses"], strict=True)]
    mrr = apart(*({"mrr": side["mrr"]} for side in sides.values()))
    return {**sides, "apart": gaps[0], "apart_later": max(gaps[1:]), "apart_mrr": mrr}


def without_dropout(settings: Any) -> dict[str, Any]:
    """The settings' dropouts at 0, by name."""
    found = {}
    for field in fields(settings):
        value = getattr(settings, field.name)
        if "dropout" in field.name:
            found[field.name] = (0.0,) * len(value) if isinstance(value, tuple) else 0.0
    return found


@contextmanager
def without_kernels() -> Iterator[None]:
    """Plain torch on the CPU too: the C kernels draw in their own order, and a borrowed machine has not built them."""
    before = os.environ.get("TESSERA_KERNELS")
    os.environ["TESSERA_KERNELS"] = "off"
    kernels.library.cache_clear()
    try:
        yield
    finally:
        os.environ.pop("TESSERA_KERNELS")
        if before is not None:
            os.environ["TESSERA_KERNELS"] = before
        kernels.library.cache_clear()


def followed(module: ModuleType, data: Data, settings: Any, device: torch.device) -> dict[str, Any]:
    """The loss terms of each step and the MRR of some facts of train after them, on one device."""
    with as_trained(device, "plain"):
        model = module.build(data, settings, torch.Generator().manual_seed(0)).to(device)
        learner = module.Learner(model, data, settings, device=device, precision=torch.float32, seed=0)
        learner.model.train()
        torch.manual_seed(0)
        losses: list[dict[str, float]] = []
        with DrawnOnTheCPU():
            for _, batch in zip(range(STEPS), learner.batches(0), strict=False):
                losses.append({name: float(term) for name, term in learner.step(batch).items()})
        ranks = ranked(learner.model, data, QUERIES, filter_index(data), device)
    return {"losses": losses, "mrr": float(ranking.metrics(ranks)["mrr"])}


def ranked(model: Any, data: Data, facts: int, known: FilterIndex, device: torch.device) -> ranking.Ranks:
    """The ranks of the first facts of train, in both directions."""
    score = model.eval().scorer()
    return ranking.rank(score, data.train[:facts], known, entities=data.entities, device=device)


def apart(one: dict[str, float], other: dict[str, float]) -> float:
    """The largest difference between terms of one name, as a share of the largest term: some are 0 but for rounding."""
    return max(abs(one[name] - other[name]) for name in one) / max(abs(value) for value in one.values())
