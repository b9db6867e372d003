"""Under what a measurement runs: as `trainers.training.train` runs a model, and in no more memory than it is given."""

import argparse
import resource
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from trainers import matmul, room
from trainers.matmul import Choice
from trainers.training import loop


@contextmanager
def as_trained(device: torch.device, multiply: Choice = "auto") -> Iterator[str]:
    """What the train stage sets in its process before a run, and how it sums gradients; gives `matmul.use`'s word.

    Steps that are timed outside of it may multiply by another route than a run of the product on the same machine.
    """
    room.keep_at_most(None)
    used = matmul.use(multiply, device)
    with loop.reproducible(device.type == "cuda"):
        yield used


def add_bound(parser: argparse.ArgumentParser) -> None:
    """The option `--gib` of a benchmark whose measuring processes call `bound`."""
    parser.add_argument("--gib", type=float, help="GiB of address space that a measuring process may use (any)")


def bound(gib: float | None) -> None:
    """Let this process map at most so much memory (RLIMIT_AS): what asks for more fails, and the machine lives on.

    None: no bound. A GPU's driver maps more than it uses, so a bound is for the CPU.
    """
    if gib is not None:
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (int(gib * 2**30), hard))


def out_of_memory(text: str) -> bool:
    """Whether what a process wrote as it failed says that memory ran out."""
    return any(word in text for word in ("MemoryError", "OutOfMemory", "allocate memory", "Cannot allocate"))
