"""TuckER (Balažević et al., 2019, arXiv 1901.09590): the scorer that MoMoK and MyGO share, and the baseline itself."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainers.kernels.tucker import contract
from trainers.training import processes
from trainers.training.data import Data
from trainers.training.kvsall import Batch, Queries, check_candidates, draw_candidates, evaluating, link_loss, seeded
from trainers.training.optimizer import autocast, descend

NEEDS = ()

DROPOUT = (0.3, 0.4, 0.5)  # on the input, on the relation's matrix, on the output: the papers' values
TOGETHER = 64  # relations whose matrices are made at a time in evaluation


class TuckERScorer(nn.Module):
    """A known entity and a relation to a query vector, to be compared with every candidate by a dot product.

    q = dropout(BN1(dropout(BN0(x)) · dropout(M_r))) with M_r = Σ_k r_k W_k (Eq. 3 of the paper, with its
    regularisation). The dropout on M_r falls on each query separately, also where queries share a relation.

    Names of the weights: `W` (D_r, D, D), `bn0`, `bn1`.
    """

    def __init__(
        self,
        width: int,
        relation_width: int,
        *,
        dropout: tuple[float, float, float] = DROPOUT,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.W = nn.Parameter(torch.empty(relation_width, width, width))
        nn.init.xavier_uniform_(self.W, generator=generator)
        self.bn0 = nn.BatchNorm1d(width)
        self.bn1 = nn.BatchNorm1d(width)
        self.dropout = dropout

    def forward(self, x: Tensor, relation: Tensor, index: Tensor | None = None) -> Tensor:
        """Query vectors (B, D) of entities `x` (B, D) under `relation` (U, D_r).

        `index` (B,) int64 says which row of `relation` each query has; None: query i has row i (U = B). Giving each
        distinct relation once saves the product with W, which is most of the work.
        """
        on_input, on_matrix, on_output = self.dropout if self.training else (0.0, 0.0, 0.0)
        x = F.dropout(self.bn0(x), on_input)
        return F.dropout(self.bn1(contract(x, relation, self.W, index, on_matrix)), on_output)

    def ask(self, x: Tensor, table: Tensor, relation: Tensor) -> Tensor:
        """Query vectors (B, D) for evaluation, of entities `x` (B, D) under `relation` (B,), rows of `table` (R, D_r).

        Each distinct relation's matrix is made once and is gone before the next few are.
        """
        x = self.bn0(x)
        out = torch.empty_like(x)
        order = torch.argsort(relation, stable=True)
        distinct, counts = torch.unique_consecutive(relation[order], return_counts=True)
        rows = order.split(counts.tolist())
        for start in range(0, len(distinct), TOGETHER):
            vectors = table[distinct[start : start + TOGETHER]]
            matrices = (vectors @ self.W.flatten(1)).unflatten(1, self.W.shape[1:])
            for row, matrix in zip(rows[start : start + TOGETHER], matrices, strict=True):
                out[row] = x[row] @ matrix
        return self.bn1(out)


@dataclass(frozen=True)
class Settings:
    """Of the baseline: structure alone. MoMoK's defaults, so that what the other modalities add can be read off."""

    epochs: int = 500
    batch_size: int = 1024  # distinct queries (h, r), each with all its answers
    learning_rate: float = 5e-4
    width: int = 256
    relation_width: int = 256
    dropout: tuple[float, float, float] = DROPOUT  # input, matrix, output
    candidates: int | None = None  # entities that a training query is compared with, drawn each step; None: all

    def __post_init__(self) -> None:
        check_candidates(self.candidates)


class TuckER(nn.Module):
    """σ(q(h, r) · e_t) with reciprocal relations (section 4 of the paper)."""

    def __init__(self, data: Data, settings: Settings):
        super().__init__()
        self.settings, self.entities, self.relations = settings, data.entities, data.relations
        self.entity = nn.Parameter(nn.init.xavier_normal_(torch.empty(data.entities, settings.width)))
        rows = torch.empty(2 * data.relations, settings.relation_width)
        self.relation = nn.Parameter(nn.init.xavier_normal_(rows))
        self.core = TuckERScorer(settings.width, settings.relation_width, dropout=settings.dropout)

    def forward(self, batch: Batch) -> Tensor:
        """The link loss of a batch, 0-d."""
        query = self.core(self.entity[batch.known], self.relation[batch.distinct], batch.index)
        among = draw_candidates(batch, self.entities, self.settings.candidates)
        seen = self.entity if among.entity is None else self.entity[among.entity]
        drawn = None if among.drawn is None else len(among.drawn)
        return link_loss(
            query, seen, among.row, among.answer, entities=self.entities, sampled=among.sampled, drawn=drawn
        )

    def scorer(self) -> Callable[[Tensor, Tensor, str], Tensor]:
        """`score(known (B,), relation (B,), side) -> (B, E)` logits, in evaluation mode."""

        @torch.inference_mode()
        def score(known: Tensor, relation: Tensor, side: str) -> Tensor:
            relation = relation + self.relations if side == "head" else relation
            with evaluating(self):
                return self.core.ask(self.entity[known], self.relation, relation) @ self.entity.T

        return score


def build(data: Data, settings: Settings, generator: torch.Generator) -> TuckER:
    """The model on the CPU, its random start drawn from `generator` alone."""
    with seeded(generator):
        return TuckER(data, settings)


class Learner:
    """Adam against the link loss."""

    def __init__(
        self, model: TuckER, data: Data, settings: Settings, *, device: torch.device, precision: torch.dtype, seed: int
    ):
        self.model = model.to(device)
        self.settings, self.device, self.precision, self.seed = settings, device, precision, seed
        self.queries = Queries(data.train, data.entities, data.relations)
        self.optimizers = {"model": torch.optim.Adam(model.parameters(), lr=settings.learning_rate, fused=True)}
        self.schedulers: dict[str, torch.optim.lr_scheduler.LRScheduler] = {}

    @property
    def steps_per_epoch(self) -> int:
        return self.queries.steps(self.settings.batch_size)

    def batches(self, epoch: int) -> Iterator[Batch]:
        return self.queries.batches(self.settings.batch_size, (self.seed, epoch), self.device)

    def step(self, batch: Batch) -> dict[str, Tensor]:
        with autocast(self.device, self.precision):
            loss = self.model(batch)
        # The processes' losses add up to the loss, and `descend` takes the mean of their gradients.
        descend(processes.count() * loss, self.model.parameters(), self.optimizers["model"])
        return {"link": processes.total(loss)}
