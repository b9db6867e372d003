"""A trained model, asked as if its entities had other modalities than those it was trained with.

For studies: what happens to a trained model when an entity turns out to have no picture, or gets one later. A part of
a model that holds a modality stands under that modality's name and has a method `replace_modality(before, after)`. All
follow one rule for what is trained per entity:

    it had the modality, and has it      its trained row
    it had it, and has it no longer      what the model takes for a missing row (`missing` in its settings): the mean of
                                         the trained rows, zeros, the one vector learned for all, or nothing (mask)
    it had none, and has one now         the encoder's row, as at the start of training
    it had none, and has none            its row as trained

Entities may be added behind those of training (see unseen.py): one that has the modality gets the encoder's row, with
what stands in for that by which training would have moved it; one that has not gets what the model takes for a missing
row.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from trainers.training.data import Data, Features

StandIn = Callable[[Tensor], Tensor]


def replace_modality(
    model: nn.Module, before: Data, after: Data, kind: str, stand_in: StandIn | None = None
) -> nn.Module:
    """The model, changed in place from the modalities of `before`, on which it was trained, to those of `after`.

    `kind` is what it reads of them: "features" or "tokens", the only one of `ABOUT.reads`. `stand_in` makes of a table
    (E, W) one that goes on with the entities that were added; None: none were.
    """
    for path, part in model.named_modules():
        if hasattr(part, "replace_modality"):
            name = path.rpartition(".")[2]
            part.replace_modality(getattr(before, kind)[name], getattr(after, kind)[name], after.entities, stand_in)
    return model


def replaced_rows(
    now: Tensor,
    before: Features,
    after: Features,
    given: Tensor,
    fallback: Tensor,
    entities: int,
    stand_in: StandIn | None = None,
) -> Tensor:
    """(`entities`, W) by the rule above: of rows `now` (E, W), rows `given` to `after` (N, W), a missing one (W,)."""
    if stand_in is not None:  # the rows of `before` come first in `after`
        moved = torch.zeros_like(now)
        moved[before.entity] = now[before.entity] - given[: len(before.entity)].to(now)
        given = given.to(now) + stand_in(moved)[after.entity]
    now = torch.cat([now, fallback.expand(entities - len(now), -1)])
    had = torch.zeros(len(now), dtype=torch.bool, device=now.device)
    had[before.entity] = True
    has = torch.zeros_like(had)
    has[after.entity] = True
    found = torch.where((had & ~has)[:, None], fallback, now)
    new = ~had[after.entity.to(now.device)]
    found[after.entity[new.cpu()]] = given[new.cpu()].to(found)
    return found
