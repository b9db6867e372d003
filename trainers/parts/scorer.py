"""A trained model that answers queries: it scores all entities, and refuses what is not a query."""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from pipeline.errors import UserError

SIDES = ("head", "tail")


class Score(Protocol):
    """The scores (B, E) float32 of all entities as answers, higher is better.

    Side "tail" asks (known, relation, ?), side "head" asks (?, relation, known); known and relation (B,) int64.
    """

    def __call__(self, known: Any, relation: Any, side: str) -> Tensor: ...


class ScoringModel(nn.Module, ABC):
    """A model that scores all entities as answers. What does not depend on the query is computed once per scorer."""

    entity: Any
    relation: Any

    def sizes(self) -> tuple[int, int]:
        """E and R, the numbers of entities and of relations, where each has a row in the table of that name."""
        return len(self.entity), len(self.relation)

    def prepare(self) -> Any:
        """What all queries share (say, all entities' embeddings), computed in evaluation mode without gradients."""
        return None

    @abstractmethod
    def score(self, prepared: Any, known: Tensor, relation: Tensor, side: str) -> Tensor:
        """(B, E) float32, of queries that were checked, in evaluation mode without gradients."""

    def scorer(self) -> "Scorer":
        """`score(known (B,), relation (B,), "tail" | "head") -> (B, E)` with the weights as they now are."""
        return Scorer(self)


class Scorer:
    """Scores all entities as answers to queries, after one check of the queries for all models.

    A model in training stays in training mode: it is put into evaluation mode for the time of the call.
    """

    @torch.inference_mode()
    def __init__(self, model: ScoringModel):
        self.model = model
        with evaluating(model):
            self.prepared = model.prepare()

    @torch.inference_mode()
    def __call__(self, known: Any, relation: Any, side: str) -> Tensor:
        """The scores (B, E) of all entities as answers: "tail" asks (known, relation, ?), "head" (?, relation, known).

        `known` and `relation` are integers of equal number: (B,) tensors, arrays or lists; a single one counts as a
        list of one. Raises UserError if they are not, if an id lies outside the graph, or for any other side.
        """
        if side not in SIDES:
            raise UserError(f"The side of a query is 'head' or 'tail', what is asked for, and not {side!r}.")
        device = next(self.model.parameters()).device
        entities, relations = self.model.sizes()
        known = _ids("entities", known, entities, device)
        relation = _ids("relations", relation, relations, device)
        if len(known) != len(relation):
            raise UserError(f"A query has one entity and one relation; {len(known)} and {len(relation)} were given.")
        with evaluating(self.model):
            return self.model.score(self.prepared, known, relation, side)


def _ids(what: str, given: Any, number: int, device: torch.device) -> Tensor:
    """`given` as (B,) int64 on the device. Raises UserError if it holds anything but ids from 0 to `number` - 1."""
    try:
        ids = torch.as_tensor(given, device=device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"The {what} of queries are integers, and not {given!r} ({error}).") from error
    if ids.numel() and (ids.dtype == torch.bool or ids.is_floating_point() or ids.is_complex()):
        raise UserError(f"The {what} of queries are integers, and not {str(ids.dtype).removeprefix('torch.')}.")
    if ids.dim() > 1:
        raise UserError(f"The {what} of queries have one dimension, and not the shape {tuple(ids.shape)}.")
    ids = ids.reshape(-1).long()
    wrong = ids[(ids < 0) | (ids >= number)]
    if len(wrong):
        raise UserError(f"The graph has {number} {what}, 0 to {number - 1}; {int(wrong[0])} is none of them.")
    return ids


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode within, and the mode there was after it."""
    mode = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(mode)
