"""Plain torch in blocks: a GPU holds one block of what would otherwise be gathered whole.

What a block leaves for its gradients is kept while there is room (trainers/room.py) and computed again after that,
with the dropout masks that it had.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from trainers import room

BLOCK = {"cpu": 1 << 22, "cuda": 1 << 24}  # numbers in one temporary: 16 MB, which stay in cache; 64 MB


def rows_at_once(device: torch.device, width: int) -> int:
    """How many rows of `width` numbers make a block; at least 1."""
    return max(1, BLOCK.get(device.type, BLOCK["cpu"]) // max(1, width))


def in_turn(work: Callable[..., Any], blocks: Iterable[tuple], device: torch.device, size: int) -> list:
    """[work(*block) for each of `blocks`]. `size`: the bytes that one block leaves for the backward pass, if kept."""
    blocks = list(blocks)
    if len(blocks) == 1 or not torch.is_grad_enabled():
        return [work(*block) for block in blocks]
    kept = room.may_keep(device) // max(1, size)
    return [
        work(*block) if number < kept else checkpoint(work, *block, use_reentrant=False)
        for number, block in enumerate(blocks)
    ]
