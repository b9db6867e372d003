"""What an unseen entity can be asked without a trained model: scores to set beside those of one.

Each function gives a score as `trainers.evaluation.ranking.rank` takes it: (known (B,), relation (B,), side) -> (B, E).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from trainers.parts.unseen import directions
from trainers.training.data import Data

Score = Callable[[Tensor, Tensor, str], Tensor]


def popularity(train: Tensor, entities: int, relations: int) -> Score:
    """How often train has the candidate on the asked side of the relation."""
    counts = {}
    for side, end in (("tail", 2), ("head", 0)):
        place = train[:, 1] * entities + train[:, end]
        counts[side] = torch.bincount(place, minlength=relations * entities).float().view(relations, entities)
    return lambda known, relation, side: counts[side][relation]


def likeness(unit: Tensor) -> Score:
    """The cosine of the two texts; `unit` (E, D) as `directions` makes it."""
    return lambda known, relation, side: unit[known] @ unit.T


def nearest_facts(unit: Tensor, train: Tensor, sharpness: float) -> Score:
    """Σ over the train facts (k', r, e') of w(known, k') w(candidate, e'), with w = exp(sharpness (cosine − 1)).

    So an unseen entity answers what entities with like texts answer, and is an answer where such are. Texts' cosines
    are all that speaks for it; of itself an entity is the likest, whether it has a text or not.
    """
    near = torch.exp(sharpness * (unit @ unit.T - 1))
    near.fill_diagonal_(1.0)

    def score(known: Tensor, relation: Tensor, side: str) -> Tensor:
        given, asked = (0, 2) if side == "tail" else (2, 0)
        found = torch.zeros(len(known), len(near))
        for one in relation.unique().tolist():
            rows = (relation == one).nonzero()[:, 0]
            facts = train[train[:, 1] == one]
            weight = near[known[rows]][:, facts[:, given]]
            found[rows] = torch.zeros(len(rows), len(near)).index_add_(1, facts[:, asked], weight)
        return found @ near

    return score


def text_directions(data: Data, seen: int) -> Tensor:
    """(E, D) unit vectors of the entities' texts, zeros without one."""
    one = data.features.get("text") or data.tokens["text"]
    return directions(one, data.entities, seen)
