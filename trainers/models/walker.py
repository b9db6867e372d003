"""A walker alone: it learns which ways through the graph lead from what is asked to an answer.

After NBFNet (Zhu et al. 2021, arXiv 2106.06935). No entity has a vector: a query begins at its known entity with
numbers that its relation decides, each layer carries them one edge further, and an entity scores by what has arrived at
it. Only relations are learnt, in both directions, by cross entropy among all entities (trainers/parts/mosaic/walker.py
has the layers). Entities to which no walk of so many steps leads score 0, all alike.

As a member of mosaic it is trained beside other scorers and fused with them.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import torch
from annotated_types import Ge, Le
from torch import Tensor

from pipeline.settings import AtLeastOne, Dropout, NotNegative
from trainers.about import About
from trainers.kernels import walker as kernel
from trainers.parts.mosaic.facts import Facts
from trainers.parts.mosaic.walker import CLIP, Walker, Ways
from trainers.parts.scorer import ScoringModel
from trainers.training import learner, prefetch, processes
from trainers.training.data import Data
from trainers.training.one_vs_all import in_both_directions
from trainers.training.optimizer import optimizer_step

# A fact is hidden from the walks that look for it, so that none is learnt by heart: each is found by what others say.
ABOUT = About(name="Walker", papers=("zhu2021nbfnet",), memorises=0.0)


@dataclass(frozen=True)
class Settings:
    """Structure alone."""

    epochs: AtLeastOne
    evaluate_every: AtLeastOne | None  # epochs between two measurements on dev; None: as the schedule says
    facts: AtLeastOne | None  # that an epoch asks for, drawn anew; None: all, each by its tail and by its head
    batch_size: AtLeastOne  # of them a step
    layers: Annotated[int, Ge(1), Le(kernel.MOST_LAYERS)]  # steps of a walk
    width: Literal[16, 32]  # numbers of an entity on the way
    learning_rate: NotNegative  # of Adam, falling to 0 over the epochs
    dropout: Dropout  # on what edges do to what they carry


@dataclass(frozen=True)
class Batch:
    """Facts as questions: (known, relation, ?), with relations from R on asking for heads."""

    known: Tensor  # (B,) int64
    relation: Tensor  # (B,) int64, 0 … 2R − 1
    answer: Tensor  # (B,) int64
    size: int  # B of the whole batch, of which other processes may hold a part


class WalkerModel(ScoringModel):
    """The walker and the training facts that it walks over, as a buffer, so that a run folder holds all of it."""

    facts: Tensor

    def __init__(self, data: Data, settings: Settings, generator: torch.Generator):
        super().__init__()
        self.entities, self.relations = data.entities, data.relations
        self.walker = Walker(2 * data.relations, settings.layers, settings.width, generator)
        self.register_buffer("facts", data.train.clone())
        self._ways: Ways | None = None
        self.register_load_state_dict_post_hook(WalkerModel._forget)

    def sizes(self) -> tuple[int, int]:
        return self.entities, self.relations

    def ways(self) -> Ways:
        """The training facts as edges; kept until these change."""
        if self._ways is None or self._ways.device != self.facts.device:
            facts = Facts(self.facts.cpu().numpy(), self.entities, self.relations)
            self._ways = Ways(facts, self.facts.device)
        return self._ways

    def _forget(self, _=None) -> None:
        self._ways = None

    def score(self, prepared: None, known: Tensor, relation: Tensor, side: str) -> Tensor:
        return self.walker.scores(self.ways(), known, relation + (self.relations if side == "head" else 0))


def build(data: Data, settings: Settings, generator: torch.Generator) -> WalkerModel:
    """The model on the CPU, its random start drawn from `generator` alone."""
    return WalkerModel(data, settings, generator)


class Learner(learner.Learner):
    """Adam, its rate falling to 0; a GPU has to wait within a step, as trainers/parts/mosaic/walker.py says."""

    def __init__(self, model: WalkerModel, data: Data, settings: Settings, **run: Any):
        super().__init__(model, data, settings, **run)
        self.asked = np.stack(in_both_directions(data.train, data.relations), axis=1)
        self.number = min(settings.facts or len(self.asked), len(self.asked))
        self.optimizers["model"] = self.adam(model.parameters())
        self.schedulers["model"] = torch.optim.lr_scheduler.LambdaLR(
            self.optimizers["model"], lambda epoch: 1 - epoch / settings.epochs
        )

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(self.number / self.settings.batch_size)

    def batches(self, epoch: int) -> Iterator[Batch]:
        """Facts in an order that (seed, epoch) alone decides."""
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.asked))[: self.number]

        def whole() -> Iterator[Batch]:
            for ids in np.array_split(order, self.steps_per_epoch):
                known, relation, answer = torch.from_numpy(self.asked[ids[processes.part_of(len(ids))]]).unbind(1)
                yield prefetch.on_device(Batch(known, relation, answer, len(ids)), self.device)

        return prefetch.ahead(whole(), self.device)

    def step(self, batch: Batch) -> dict[str, Tensor]:
        asked = batch.known, batch.relation, batch.answer
        share = len(batch.known) / batch.size
        loss = share * self.model.walker.loss(self.model.ways(), *asked, self.settings.dropout)
        # The processes' losses add up to the batch's, and `optimizer_step` takes the mean of their gradients.
        optimizer_step(processes.count() * loss, self.model.parameters(), self.optimizers["model"], clip=CLIP)
        return {"link": processes.total(loss.detach())}
