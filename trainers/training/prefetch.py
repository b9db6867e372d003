"""Batches made ahead of a GPU: a thread draws and copies the next ones while a step runs.

The thread queues its work in a stream of its own, so what asks the device for a number while a batch is made (how many
entities are distinct) waits for that batch alone, and no step waits at all.
"""

import contextlib
import queue
import threading
from collections.abc import Generator, Iterator
from dataclasses import is_dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

T = TypeVar("T")
AHEAD = 2  # batches that wait, made
_END = object()


def ahead(batches: Iterator[T], device: torch.device) -> Iterator[T]:
    """The same batches in the same order; on a GPU a thread makes them.

    There they must draw from generators of their own alone (`draws`): what a step draws from torch's comes in between.
    """
    return _made_in_a_stream(batches, device) if device.type == "cuda" else batches


def draws(seed: tuple[int, ...], device: torch.device, on: torch.device | None = None) -> torch.Generator | None:
    """What batches for `device` draw from, on the device `on` (None: the CPU).

    On the CPU None: torch's own generator, in turn with the steps. On a GPU one of their own, which `seed` decides.
    """
    if device.type != "cuda":
        return None
    state = np.random.SeedSequence(seed).generate_state(1, np.uint64)[0]
    return torch.Generator(on or "cpu").manual_seed(int(state >> 1))


def _made_in_a_stream(batches: Iterator[T], device: torch.device) -> Iterator[T]:
    """The batches, made by a thread in a stream of its own, each handed over to the stream of the steps."""
    steps, own = torch.cuda.current_stream(device), torch.cuda.Stream(device)
    own.wait_stream(steps)  # what batches are made of is there

    def made() -> Iterator[tuple[T, torch.cuda.Event]]:
        torch.cuda.set_stream(own)  # of the thread that makes them, and its device
        for batch in batches:
            yield batch, own.record_event()

    with contextlib.closing(threaded(made())) as found:
        for batch, there in found:
            steps.wait_event(there)  # the GPU does, not this thread
            for tensor in tensors_of(batch):
                if tensor.is_cuda:
                    tensor.record_stream(steps)  # its memory is not given away before the step has read it
            yield batch


def on_device(batch: T, device: torch.device) -> T:
    """The batch, a dataclass, with its tensors on the device (`moved`), also those of dataclasses in it."""
    parts: dict[str, Any] = {}
    for name, part in vars(batch).items():
        if isinstance(part, Tensor):
            parts[name] = moved(part, device)
        elif is_dataclass(part):
            parts[name] = on_device(part, device)
    return replace(batch, **parts)  # type: ignore[type-var]


def tensors_of(batch: object) -> Iterator[Tensor]:
    """All tensors in a batch: itself, or those in its fields and items."""
    if isinstance(batch, Tensor):
        yield batch
    parts = batch if isinstance(batch, tuple | list) else vars(batch).values() if is_dataclass(batch) else ()
    for part in parts:
        yield from tensors_of(part)


def threaded(batches: Iterator[T]) -> Generator[T]:
    """The batches, made by a thread. What it raises is raised here; it ends when this iterator does."""
    made: queue.Queue[Any] = queue.Queue(AHEAD)
    stopped = threading.Event()

    def put(one: object) -> bool:
        while not stopped.is_set():
            try:
                made.put(one, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def make() -> None:
        try:
            for batch in batches:
                if not put((batch, None)):
                    return
            put((_END, None))
        except BaseException as error:
            put((_END, error))

    thread = threading.Thread(target=make, name="batches", daemon=True)
    thread.start()
    try:
        while (found := made.get())[0] is not _END:
            yield found[0]
        if found[1] is not None:
            raise found[1]
    finally:
        stopped.set()
        thread.join()


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on the device; to a GPU from pinned memory, without waiting for the copy."""
    if device.type != "cuda" or tensor.is_cuda:
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
