"""Several processes that train one model: `torchrun --nproc-per-node=2 -m stages.train …`, on one machine or many.

Every process builds the same model from the same seed and draws the same batches. A learner takes its own part of each
batch (`training.sampling.local_slice`) or, where it normalises over the batch, of the candidates that the batch is
compared with (`training.kvsall.draw_candidates`). Gradients are averaged (`training.optimizer.optimizer_step`), so the
weights stay the same everywhere. The first process alone measures, chooses and writes; all see one file system, from
which they resume.
"""

import contextlib
import os
from collections.abc import Iterator

import torch
from torch import distributed


def join(device: torch.device) -> torch.device:
    """Join the other processes that torchrun started, if there are any; returns the device of this one."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return device
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    if not distributed.is_initialized():
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return device


def together() -> bool:
    """Whether other processes train with this one."""
    return distributed.is_available() and distributed.is_initialized()


def count() -> int:
    """How many processes train this model."""
    return distributed.get_world_size() if together() else 1


def is_first() -> bool:
    """Whether this process is the one that measures and writes."""
    return not together() or distributed.get_rank() == 0


def agree(value: float, device: torch.device) -> float:
    """The first process's `value`, in all of them."""
    if not together():
        return value
    told = torch.tensor(value, dtype=torch.float64, device=device)
    distributed.broadcast(told, 0)
    return told.item()


def total(value: torch.Tensor) -> torch.Tensor:
    """The sum of `value` over all processes, in each of them; it carries no gradient."""
    value = value.detach().clone()
    if together():
        distributed.all_reduce(value)
    return value


@contextlib.contextmanager
def own_draws(device: torch.device) -> Iterator[None]:
    """Within the block each process draws its own random numbers; after it all draw the same ones again."""
    if not together():
        yield
        return
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(int(torch.randint(1 << 62, ())) + distributed.get_rank())
        yield


def wait() -> None:
    """Wait until all processes have come this far, so that what the first has written is there for the others."""
    if together():
        distributed.barrier()


def leave() -> None:
    """Leave the other processes."""
    if together():
        distributed.destroy_process_group()
