"""Batches made ahead of a GPU: a thread draws and copies the next ones while a step runs."""

import queue
import threading
from collections.abc import Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")
AHEAD = 2  # batches that wait, made
_END = object()


def ahead(batches: Iterator[T], device: torch.device) -> Iterator[T]:
    """The same batches in the same order; on a GPU a thread makes them.

    For iterators that draw from generators of their own alone: what a step draws from torch's must not come in between.
    """
    return threaded(batches) if device.type == "cuda" else batches


def threaded(batches: Iterator[T]) -> Iterator[T]:
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
