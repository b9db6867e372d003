"""No step makes a GPU wait: nothing in it has a size, or a branch, that only the values of a tensor tell.

Watched on the CPU, over plain torch, in whole epochs of a graph that is much larger than its batches. Learners are told
that they are on a GPU; what they put there stays on the CPU, and it is seen how. What a thread does ahead of the steps,
in a stream of its own, may wait; nothing that it copies may.
"""

import contextlib
from collections.abc import Iterator

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from tests.helpers.tiny import CODES, RELATIONS, settings_of
from trainers.about import MODELS, module_of
from trainers.models import momok
from trainers.parts.mosaic import views
from trainers.training import lazy, one_vs_all, prefetch
from trainers.training.data import Data, Features, Tokens

pytestmark = pytest.mark.usefixtures("plain_torch")
ENTITIES, FACTS = 4000, 50
GPU = torch.device("cuda")

# Operations whose result's size, or whose return to Python, depends on numbers that lie on the device.
WAITS = {
    "_local_scalar_dense", "nonzero", "_unique", "_unique2", "unique_dim", "unique_consecutive", "masked_select",
    "bincount", "equal", "is_nonzero", "_coalesce",
}  # fmt: skip
LEAVES = ("tolist", "numpy", "cpu")  # methods that bring a tensor to Python without an operation
FROM_PYTHON = ("tensor", "as_tensor", "from_numpy", "new_tensor")  # numbers that have to be copied to the device


class Operations(TorchDispatchMode):
    """Collects the operations that would wait."""

    def __init__(self, found: list[str]):
        super().__init__()
        self.found = found

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function._schema.name.removeprefix("aten::")
        masks = name in ("index", "index_put", "index_put_") and any(
            one is not None and one.dtype in (torch.bool, torch.uint8) for one in args[1]
        )
        sizes = name == "repeat_interleave" and (kwargs or {}).get("output_size") is None
        if name in WAITS or masks or sizes:
            self.found.append(name)
        return function(*args, **(kwargs or {}))


class InPlaceOfAGPU(TorchFunctionMode):
    """Puts on the CPU what should be on a GPU, and collects calls that would wait; `ahead`: copies alone."""

    def __init__(self, found: list[str]):
        super().__init__()
        self.found, self.ahead, self.used = found, False, False

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs, name = dict(kwargs or {}), getattr(function, "__name__", "")
        if name == "pin_memory":
            pinned = args[0].clone()
            pinned.is_pinned_here = True
            return pinned
        there = [one for one in (*args, *kwargs.values()) if isinstance(one, torch.device) and one.type == "cuda"]
        if name == "to" and there and not (hasattr(args[0], "is_pinned_here") and kwargs.get("non_blocking")):
            self.found.append("a copy from pageable memory")
        if not self.ahead and name in (*LEAVES, *FROM_PYTHON):
            self.found.append(name)
        args = tuple(torch.device("cpu") if one in there else one for one in args)
        kwargs = {key: torch.device("cpu") if value in there else value for key, value in kwargs.items()}
        return function(*args, **kwargs)


@contextlib.contextmanager
def watched() -> Iterator[tuple[list[str], InPlaceOfAGPU]]:
    found: list[str] = []
    with InPlaceOfAGPU(found) as device, Operations(found):
        yield found, device


@pytest.fixture(scope="module")
def few() -> Data:
    """Many entities and few facts; half of the entities have a picture, a third a text."""
    draw = torch.Generator().manual_seed(0)
    sizes = (ENTITIES, RELATIONS, ENTITIES)
    triples = torch.stack([torch.randint(size, (FACTS + 20,), generator=draw) for size in sizes], dim=1)
    have = {"image": torch.arange(0, ENTITIES, 2), "text": torch.arange(1, ENTITIES, 3)}
    features = {name: Features(ids, torch.randn(len(ids), 12, generator=draw)) for name, ids in have.items()}
    tokens = {}
    for name, ids in have.items():
        offsets = torch.arange(len(ids) + 1) * 3
        values = torch.randint(0, CODES, (int(offsets[-1]),), generator=draw)
        tokens[name] = Tokens(ids, offsets, values, torch.arange(CODES), torch.randn(CODES, 12, generator=draw))
    splits = triples.split([FACTS, 10, 10])
    return Data("few", ENTITIES, RELATIONS, *splits, features, tokens)


LAZY = {"candidates": 7, "optimizer": "lazy_adam"}
SAMPLED = {"objective": "one_vs_all", "candidates": 7}
POOL = {"negative_pool": 50}
FURTHER = {
    "adamf": [POOL], "adamf_mat": [POOL, {**POOL, "optimizer": "lazy_adam", "missing": "learned"}],
    "momok": [{"candidates": 7}, {**LAZY, "missing": "mask"}], "mygo": [{"candidates": 7}, LAZY],
    "tucker": [{"candidates": 7}], "mosaic": [{"candidates": 7}], "rescal": [SAMPLED, {**SAMPLED, "reciprocal": True}],
    "complex": [{"objective": "one_vs_all"}, SAMPLED, {**SAMPLED, "optimizer": "adagrad"}], "cp": [SAMPLED],
    "distmult": [{"objective": "k_vs_all"}, {**SAMPLED, "relation_prediction": 0.1}],
    "transe": [{**SAMPLED, "norm": 2}],
}  # fmt: skip
CASES = [(name, {}) for name in MODELS if name != "walker"]  # which waits, as it says itself
CASES += [(name, one) for name, each in FURTHER.items() for one in each]


@pytest.mark.parametrize(("name", "changes"), CASES, ids=lambda value: str(value))
def test_an_epoch_waits_for_nothing(name, changes, few, monkeypatch):
    if name == "mosaic":  # but for its walker, as that says itself
        changes = {**changes, "walker_layers": 0}
    monkeypatch.setattr(momok.Learner, "pair", lambda learner: (0, 1))  # drawn on the CPU, whatever the device
    monkeypatch.setitem(one_vs_all.BLOCK, "cpu", 5 * ENTITIES)  # some rows at a time
    for switch in ((views, "by_scipy"), (lazy, "by_torch")):  # what a CPU takes instead
        monkeypatch.setattr(*switch, lambda tensor: False)
    module = module_of(name)
    settings = settings_of(module, **changes)
    model = module.build(few, settings, torch.Generator().manual_seed(0))
    with watched() as (found, device):
        learner = module.Learner(model, few, settings, device=GPU, precision=torch.float32, seed=0)
        monkeypatch.setattr(prefetch, "_made_in_a_stream", lambda batches, _: made_ahead(batches, device))
        found.clear()  # before the first epoch anything may wait
        learner.model.train()
        for _, batch in zip(range(3), learner.batches(0), strict=False):
            learner.step(batch)
    assert not found
    assert device.used


def made_ahead(batches: Iterator, device: InPlaceOfAGPU) -> Iterator:
    """The batches, as a thread makes them: what it draws from torch's own generator would not be by the seed."""
    device.used = True
    while True:
        device.ahead, held, drawn = True, len(device.found), torch.get_rng_state()
        batch = next(batches, None)
        same = torch.equal(drawn, torch.get_rng_state())
        device.found[held:] = [one for one in device.found[held:] if one.startswith("a copy")]
        device.ahead = False
        if not same:
            device.found.append("a draw from torch's generator")
        if batch is None:
            return
        yield batch


def test_what_waits_is_noticed():
    row = torch.tensor([1, 0, 1])
    sparse = torch.sparse_coo_tensor(row[None], torch.ones(3), (3,))
    for work in (
        lambda: int(row.sum()), lambda: row.nonzero(), lambda: row[row > 0], lambda: torch.unique(row),
        lambda: torch.repeat_interleave(row), lambda: torch.bincount(row), lambda: [*row.tolist()], lambda: row.cpu(),
        lambda: row.to(GPU), lambda: row.to(GPU, non_blocking=True), lambda: row.pin_memory().to(GPU),
        lambda: torch.tensor(1.0, device=GPU), lambda: row.new_tensor(2), lambda: sparse.coalesce(),
    ):  # fmt: skip
        with watched() as (found, _):
            work()
        assert found
    with watched() as (found, _):
        row.pin_memory().to(GPU, non_blocking=True) + torch.ones(3, device=GPU)
    assert not found
