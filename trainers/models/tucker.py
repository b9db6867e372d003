"""TuckER (Balažević et al., 2019, arXiv 1901.09590), trained like MoMoK, whose structure alone it is."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.settings import AtLeastOne, Dropout, NotNegative
from trainers.about import About
from trainers.parts.scorer import ScoringModel
from trainers.parts.tucker import TuckERScorer
from trainers.training import processes
from trainers.training.data import Data
from trainers.training.kvsall import Batch, QueryLearner, draw_candidates, link_loss, seeded
from trainers.training.optimizer import optimizer_step

ABOUT = About(name="TuckER", papers=("balazevic2019tucker",))


@dataclass(frozen=True)
class Settings:
    """Of the baseline: structure alone. MoMoK's defaults, so that what the other modalities add can be read off."""

    epochs: AtLeastOne
    batch_size: AtLeastOne  # distinct queries (h, r), each with all its answers
    learning_rate: NotNegative
    dimension: AtLeastOne
    relation_dimension: AtLeastOne
    dropout: tuple[Dropout, Dropout, Dropout]  # input, matrix, output
    candidates: AtLeastOne | None  # entities that a training query is compared with, drawn each step; None: all


class TuckER(ScoringModel):
    """σ(q(h, r) · e_t) with reciprocal relations (section 4 of the paper)."""

    def __init__(self, data: Data, settings: Settings):
        super().__init__()
        self.settings, self.entities, self.relations = settings, data.entities, data.relations
        self.entity = nn.Parameter(nn.init.xavier_normal_(torch.empty(data.entities, settings.dimension)))
        rows = torch.empty(2 * data.relations, settings.relation_dimension)
        self.relation = nn.Parameter(nn.init.xavier_normal_(rows))
        self.core = TuckERScorer(settings.dimension, settings.relation_dimension, dropout=settings.dropout)

    def forward(self, batch: Batch) -> Tensor:
        """The link loss of a batch, 0-d."""
        query = self.core(self.entity[batch.known], self.relation[batch.distinct], batch.index)
        among = draw_candidates(batch, self.entities, self.settings.candidates)
        seen = self.entity if among.entity is None else self.entity[among.entity]
        drawn = None if among.drawn is None else len(among.drawn)
        return link_loss(
            query, seen, among.row, among.answer, entities=self.entities, sampled=among.sampled, drawn=drawn
        )

    def sizes(self) -> tuple[int, int]:
        return self.entities, self.relations

    def score(self, prepared: None, known: Tensor, relation: Tensor, side: str) -> Tensor:
        """(B, E) logits."""
        relation = relation + self.relations if side == "head" else relation
        return self.core.ask(self.entity[known], self.relation, relation) @ self.entity.T


def build(data: Data, settings: Settings, generator: torch.Generator) -> TuckER:
    """The model on the CPU, its random start drawn from `generator` alone."""
    with seeded(generator):
        return TuckER(data, settings)


class Learner(QueryLearner):
    """Adam against the link loss."""

    def __init__(self, model: TuckER, data: Data, settings: Settings, **run: Any):
        super().__init__(model, data, settings, **run)
        self.optimizers["model"] = self.adam(model.parameters())

    def step(self, batch: Batch) -> dict[str, Tensor]:
        with self.autocast():
            loss = self.model(batch)
        # The processes' losses add up to the loss, and `optimizer_step` takes the mean of their gradients.
        optimizer_step(processes.count() * loss, self.model.parameters(), self.optimizers["model"])
        return {"link": processes.total(loss)}
