"""Several processes that train one model: `torchrun --nproc-per-node=2 -m stages.train …`, on one machine or many.

Every process builds the same model from the same seed and draws the same batches. A learner takes its own part of each
batch (`training.sampling.local_slice`) or, where it normalises over the batch, of the candidates that the batch is
compared with (`training.kvsall.draw_candidates`) and of what is computed row by row (`spread`). Gradients are averaged
(`training.optimizer.optimizer_step`), so the weights stay the same everywhere. The first process alone measures,
chooses and writes; all see one file system, from which they resume.
"""

import contextlib
import os
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, distributed

_last_block = (-1, 0)  # of `own_draws`: the number it found, and how many blocks before it found the same


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


def part_of(number: int) -> slice:
    """This process's part of `number` rows; all of them if it trains alone."""
    if not together():
        return slice(0, number)
    rank, processes = distributed.get_rank(), distributed.get_world_size()
    return slice(rank * number // processes, (rank + 1) * number // processes)


def spread(compute: Callable[[slice], Tensor], number: int, device: torch.device) -> Tensor:
    """What `compute` makes of `number` rows, (number, …): each process makes its own part, and all get all.

    Row i of the result must depend on row i alone. Gradients go back to the process that made a row, summed over
    processes, so that their mean (`optimizer_step`) is as if each had made all rows. Draws are each process's own.
    """
    if not together() or number < count():
        return compute(slice(0, number))
    own = part_of(number)
    with own_draws(device):
        part = compute(own)
    return _Joined.apply(part, own, number)


class _Joined(torch.autograd.Function):
    @staticmethod
    def forward(ctx, part, own, number):
        ctx.own = own
        whole = part.new_zeros(number, *part.shape[1:])
        whole[own] = part
        distributed.all_reduce(whole)
        return whole

    @staticmethod
    def backward(ctx, gradient):
        gradient = gradient.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(gradient)
        return gradient[ctx.own], None, None


@contextlib.contextmanager
def own_draws(device: torch.device) -> Iterator[None]:
    """Within the block each process draws its own random numbers; after it all draw the same ones again.

    Those that all draw are left as if there were no block, as in one process. So two blocks between which nobody drew
    find the same number there, and are told apart by counting.
    """
    global _last_block
    if not together():
        yield
        return
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        found = int(torch.randint(1 << 62, ()))
        _last_block = found, _last_block[1] + 1 if found == _last_block[0] else 0
        torch.manual_seed(found + _last_block[1] * count() + distributed.get_rank())
        yield


def wait() -> None:
    """Wait until all processes have come this far, so that what the first has written is there for the others."""
    if together():
        distributed.barrier()


def leave() -> None:
    """Leave the other processes."""
    if together():
        distributed.destroy_process_group()
