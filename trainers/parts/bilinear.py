"""What the bilinear models share: score(h, r, t) = q(h, r) · t, with q linear in the entity and in the relation.

A model says what is its own: how a relation turns an entity (`turn`) and, the adjoint of that, how it turns the answer
back (`turn_back`): q(h, r) · t = h · q*(t, r). From the two come queries in both directions, with or without reciprocal
relations (arXiv 1806.07297, section 3), and the regularisers.
"""

from abc import abstractmethod
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainers.parts.scorer import ScoringModel
from trainers.training.data import Data
from trainers.training.negative_sampling import candidates, products
from trainers.training.one_vs_all import ByRelation
from trainers.training.sampling import Negatives, counts
from trainers.training.structure import Settings


class Bilinear(ScoringModel):
    """`entity` (E, D); `relation` (R, D_r), or (2R, D_r) with reciprocal ones: (?, r, t) is asked as (t, r + R, ?).

    Everywhere else a relation is a number below 2R, from R on in the direction of heads.
    """

    asked: Tensor  # (n, 2) int64: relation and entity of each query of train, where `strangers` asks for it
    seen: Tensor  # (E,) bool: the entities of train, where `entity_dropout` asks for it

    def __init__(self, entity: Tensor, relation: Tensor, data: Data, settings: Settings):
        super().__init__()
        self.entity, self.relation = nn.Parameter(entity), nn.Parameter(relation)
        self.relations, self.dropout, self.strangers = data.relations, settings.dropout, settings.strangers
        if self.strangers == "mean":
            asked = torch.cat([data.train[:, [1, 0]], data.train[:, [1, 2]] + torch.tensor([data.relations, 0])])
            key = torch.unique(asked[:, 0] * len(entity) + asked[:, 1])  # numbers are sorted far faster than rows
            self.register_buffer("asked", torch.stack([key // len(entity), key % len(entity)], dim=1))  # (N, 2)
        self.sparse = False  # whether gradients hold only the rows of entities that a step has read

    @property
    def reciprocal(self) -> bool:
        return len(self.relation) == 2 * self.relations

    @property
    def answers(self) -> Tensor:
        """(E, D): what queries are compared with."""
        return self.entity

    @abstractmethod
    def turn(self, x: Tensor, r: Tensor) -> Tensor:
        """q: entities (B, D) under relations (B, D_r) to queries (B, D)."""

    @abstractmethod
    def turn_back(self, x: Tensor, r: Tensor) -> Tensor:
        """q*, the adjoint of `turn`: answers (B, D) under relations (B, D_r) to (B, D)."""

    @abstractmethod
    def pair(self, x: Tensor, answer: Tensor) -> Tensor:
        """(B, D_r), whose product with a relation is the score of x, that relation, and the answer (both (B, D))."""

    def modulus(self, rows: Tensor) -> Tensor:
        """(B, ·) moduli of the numbers that rows (B, D) or (B, D_r) consist of."""
        return rows.abs()

    def ask(self, x: Tensor, relation: Tensor, rows: ByRelation | None = None) -> Tensor:
        """Queries (B, D) of entities (B, D) under relations (B,) below 2R; `rows`: these by relation, if known."""
        return self._directed(x, relation, self.turn, self.turn_back, rows)

    def ask_back(self, answer: Tensor, relation: Tensor, rows: ByRelation | None = None) -> Tensor:
        """The adjoint of `ask`, (B, D)."""
        return self._directed(answer, relation, self.turn_back, self.turn, rows)

    def _directed(
        self, x: Tensor, relation: Tensor, forth: Callable, back: Callable, rows: ByRelation | None
    ) -> Tensor:
        if self.reciprocal:
            return forth(x, self.relation[relation])
        r = self.relation[relation % self.relations]
        return torch.where((relation >= self.relations).unsqueeze(1), back(x, r), forth(x, r))

    def known(self, entity: Tensor) -> Tensor:
        """(B, D) vectors of the entities that are known in queries, with dropout in training."""
        return F.dropout(self.rows(self.entity, entity), self.dropout, self.training)

    def rows(self, table: Tensor, entity: Tensor) -> Tensor:
        """(B, D) rows of a table of entities."""
        return F.embedding(entity, table, sparse=self.sparse)

    def link_scores(self, positive: Tensor, negatives: Negatives) -> tuple[Tensor, Tensor]:
        """Scores (B,) of `positive` (B, 3) and (B, K) of its negatives."""
        head, relation, tail = positive.unbind(1)
        sides = self.ask(self.known(head), relation), self.ask(self.known(tail), relation + self.relations)
        score = products(torch.stack(sides, dim=1), self.answers, *candidates(positive, negatives))
        return score[:, 0], score[:, 1:]

    def n3(self, known: Tensor, relation: Tensor, row: Tensor, answer: Tensor) -> Tensor:
        """Nuclear 3-norm (arXiv 1806.07297, equation 6) of M triples, their mean: cubed moduli, entities by halves.

        `known` (B,) and `relation` (B,) make queries; triple i is query `row[i]` (M,) with `answer[i]` (M,).
        """
        share = counts(row, len(known)) / len(row)
        x, r = self.rows(self.entity, known), self.relation[relation if self.reciprocal else relation % self.relations]
        sizes = [self.modulus(part).pow(3).sum(-1) for part in (x, r, self.rows(self.answers, answer))]
        return (share * (sizes[0] / 2 + sizes[1])).sum() + sizes[2].mean() / 2

    def dura(
        self, known: Tensor, relation: Tensor, row: Tensor, answer: Tensor,
        queries: ByRelation | None = None, pairs: ByRelation | None = None,
    ) -> Tensor:  # fmt: skip
        """DURA (arXiv 2011.05816, equation 8) of M triples, their mean: |h|² + |q(h, r)|² + |t|² + |q*(t, r)|².

        Arguments as of `n3`, and the queries and the triples by relation, if known.
        """
        share = counts(row, len(known)) / len(row)
        x, t = self.rows(self.entity, known), self.rows(self.answers, answer)
        heads = x.square().sum(-1) + self.ask(x, relation, queries).square().sum(-1)
        tails = t.square().sum(-1) + self.ask_back(t, relation[row], pairs).square().sum(-1)
        return (share * heads).sum() + tails.mean()

    def sizes(self) -> tuple[int, int]:
        return len(self.entity), self.relations

    def prepare(self) -> tuple[Tensor, Tensor] | None:
        """With `strangers: mean`: who has a training fact (E,) bool, and of each relation below 2R the mean (2R, D) of
        the entities that training has asked with it.

        With that an entity without a training fact asks: its scores then are the mean of theirs.
        """
        if self.strangers == "own":
            return None
        relation, entity = self.asked.unbind(1)
        counts = torch.bincount(relation, minlength=2 * self.relations).clamp(min=1)
        sums = self.entity.new_zeros(2 * self.relations, self.entity.shape[1])
        seen = torch.zeros(len(self.entity), dtype=torch.bool, device=entity.device)
        seen[entity] = True
        return seen, sums.index_add_(0, relation, self.entity[entity]) / counts.unsqueeze(1)

    def score(self, prepared: tuple[Tensor, Tensor] | None, known: Tensor, relation: Tensor, side: str) -> Tensor:
        relation = relation + self.relations if side == "head" else relation
        x = self.entity[known]
        if prepared is not None:
            seen, mean = prepared
            x = torch.where(seen[known].unsqueeze(1), x, mean[relation])
        return self.ask(x, relation) @ self.answers.T


def normal(rows: int, width: int, scale: float | None, generator: torch.Generator) -> Tensor:
    """(rows, width) normal around 0 with deviation `scale`; None: 1/√width."""
    return torch.randn(rows, width, generator=generator) * (width**-0.5 if scale is None else scale)
