"""Several processes that train one model: `torchrun --nproc-per-node=2 -m stages.train …`, on one machine or many.

Every process builds the same model from the same seed and draws the same batches; a learner takes its own part of each
(`trainers.sampling.own_rows`), gradients are averaged (`trainers.optim.descend`), and so the weights stay the same
everywhere. The first process alone measures, chooses and writes; all see one file system, from which they resume.
"""

import os

import torch
from torch import distributed


def join(device: torch.device) -> torch.device:
    """Meet the other processes that torchrun started; the device that is this one's. Alone, nothing happens."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return device
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    if not distributed.is_initialized():
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return device


def together() -> bool:
    """Whether there are other processes."""
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


def wait() -> None:
    """Go on when all processes have come this far, so that what the first has written is there for the others."""
    if together():
        distributed.barrier()


def leave() -> None:
    """Part from the other processes."""
    if together():
        distributed.destroy_process_group()
