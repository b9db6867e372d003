"""The tiny graph with several pictures per entity."""

from dataclasses import replace

import torch

from tests.helpers.tiny import tiny
from trainers.training.perturb import rows_of


def pictures():
    """The tiny graph, its entities with one, two or three pictures."""
    data = tiny()
    one = data.tokens["image"]
    times = 1 + torch.arange(len(one.entity)) % 3
    many = rows_of(one, torch.repeat_interleave(torch.arange(len(one.entity)), times))
    # Each picture's first token tells the pictures of an entity apart.
    first = many.offsets[:-1]
    many.values[first] = torch.arange(len(first)) % 3
    return replace(data, tokens={**data.tokens, "image": many})
