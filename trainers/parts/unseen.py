"""A trained model with more entities than it was trained with, of which it knows a text or a picture and no fact.

What the model reads of them goes through the projections that it has learned, as that of all others does. What it
learns for each entity apart, an unseen entity has not: the vector of its structure, and that by which training moved
the row of its features (AdaMF-MAT, MoMoK). Three stand-ins for both are offered, and `stages.studies.unseen` measures
them:

    mean      the mean over all entities: nothing is known of its facts
    zero      zeros: the encoder's own row; in mosaic's scorers the structure is left out
    nearest   the mean over the entities that are most like it in text and picture, by weight, made as long as theirs
              are in the mean: shorter, as means are, it would be near to everything

A model takes part if it has the method `grow(before, after, structure)`: it makes room for the entities of `after`,
whose ids go on behind those of `before`, and takes `structure(table (E, D)) -> (E', D)` for its free vectors.
"""

import copy
from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainers.parts.replace_modality import StandIn as StandsIn
from trainers.parts.replace_modality import replace_modality
from trainers.training.data import Data, Features, Tokens

StandIn = Literal["mean", "zero", "nearest"]
STAND_INS: tuple[StandIn, ...] = get_args(StandIn)
NEAREST = 10  # entities that stand in together
SHARPNESS = 15.0  # one of cosine c counts exp(15 (c − 1)), as in trainers/parts/mosaic/neighbours.py


def takes(model: nn.Module) -> bool:
    """Whether the model can be asked about entities that it was not trained with."""
    return hasattr(model, "grow")


def with_entities(model: Any, before: Data, after: Data, reads: Sequence[str], stand_in: StandIn) -> Any:
    """A copy of `model`, in evaluation mode, that also scores the entities of `after` which `before` has not.

    `before` is the data that it was trained on; `after` has the same rows, with those of the further entities behind
    them. `reads` are the kinds of tables the model reads, as in its ABOUT.
    """
    grown = copy.deepcopy(model)
    with torch.no_grad():
        stands_in = structure(before, after, stand_in)
        grown.grow(before, after, stands_in)
        if len(reads) == 1:  # the parts that hold a modality; mosaic, which reads both kinds, does so itself
            replace_modality(grown, before, after, reads[0], stands_in)
    return grown.eval()


def structure(before: Data, after: Data, stand_in: StandIn) -> StandsIn:
    """From a table (E, D) of what was learnt for each entity apart to one (E', D), with stand-ins for the others."""
    more = after.entities - before.entities
    weights = likeness(before, after) if stand_in == "nearest" else None

    def grown(table: Tensor) -> Tensor:
        if weights is not None:
            near = weights.to(table)
            new = F.normalize(near @ table, dim=1) * (near @ table.norm(dim=1, keepdim=True))
        else:
            new = (table.mean(0) if stand_in == "mean" else torch.zeros_like(table[0])).expand(more, -1)
        return torch.cat([table, new])

    return grown


def likeness(before: Data, after: Data) -> Tensor:
    """(E' − E, E) weights of the entities that are most like each further one; rows add up to 1.

    Likeness is the mean, over the modalities that the further entity has, of the cosines of features less their mean
    (of MyGO: of the means of its tokens' vectors); what the other one lacks counts 0. An entity that has none is as
    like all others.
    """
    size, more = before.entities, after.entities - before.entities
    total, count = torch.zeros(more, size), torch.zeros(more, 1)
    kind: Any = after.features or after.tokens
    for one in kind.values():
        unit = directions(one, after.entities, size)
        total += unit[size:] @ unit[:size].T
        count += unit[size:].any(1, keepdim=True)
    cosine = total / count.clamp(min=1)
    best = cosine.topk(min(NEAREST, size), dim=1)
    weights = torch.zeros(more, size).scatter_(1, best.indices, torch.exp(SHARPNESS * (best.values - 1)))
    weights = torch.where(count > 0, weights, torch.ones(()))
    return weights / weights.sum(1, keepdim=True)


def directions(one: Features | Tokens, entities: int, seen: int) -> Tensor:
    """(`entities`, D) unit vectors of what the entities have of a modality, zeros where one has none; the mean that is
    taken away is that of the first `seen` entities.
    """
    if isinstance(one, Features):
        entity, matrix = one.entity, one.matrix.float()
    else:
        owner = torch.repeat_interleave(one.entity, one.offsets.diff())
        entity, place = torch.unique(owner, return_inverse=True)
        matrix = torch.zeros(len(entity), one.codebook.shape[1]).index_add_(0, place, one.codebook[one.values].float())
        matrix /= torch.bincount(place, minlength=len(entity))[:, None]
    found = torch.zeros(entities, matrix.shape[1])
    known = entity < seen
    if known.any():
        found[entity] = F.normalize(matrix - matrix[known].mean(0), dim=1)
    return found
