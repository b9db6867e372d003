"""What the models of the structure alone share: their settings, and a step on the objective that these name.

An objective makes batches of the training triples and, of a model and a batch, the link loss. What it asks of a model:

    negative_sampling   link_scores(positive, negatives) -> (B,), (B, K)
    one_vs_all          known(entity), ask(x, relation) -> (B, D), answers (E, D), rows(table, entity), and `euclidean`
                        if its scores are negative distances and no inner products
    k_vs_all            the same, of inner products
    any                 n3 and dura (known, relation, row, answer) -> 0-d, where a regulariser is asked for;
                        `pair` and `relation` (see trainers/parts/bilinear.py) for the prediction of relations

A model that works `by_relation` is told by 1-vs-all which rows have which relation, as the last argument of `ask` and
`dura`; under other objectives it has to ask the device, and a GPU to be waited for.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.settings import AtLeastOne, Dropout, NotNegative
from trainers.training import kvsall, learner, one_vs_all, prefetch, processes
from trainers.training.data import Data
from trainers.training.lazy import LazyAdagrad
from trainers.training.one_vs_all import ByRelation
from trainers.training.optimizer import optimizer_step
from trainers.training.sampling import Negatives, NegativeSampler, local_slice, self_adversarial_loss, shuffled

Pairs = tuple[Tensor, Tensor, Tensor, Tensor]  # known (B,), relation (B,) below 2R, row (M,), answer (M,)
Objectives = Literal["negative_sampling", "one_vs_all", "k_vs_all"]
Optimizers = Literal["adam", "adagrad"]
Regularizers = Literal["n3", "dura"]


class Objective(Protocol):
    """What a step is taken on."""

    @property
    def steps(self) -> int:
        """How many batches an epoch has."""

    def batches(self, epoch: int) -> Iterator[Any]:
        """The batches of an epoch."""

    def loss(self, model: Any, batch: Any) -> tuple[Tensor, Pairs, float]:
        """The link loss, 0-d, the pairs that it is of, and what this process's part of the batch counts."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Hyperparameters of a structure-only model; widths and batch as AdaMF-MAT's, for like to be compared with like."""

    objective: Objectives
    epochs: AtLeastOne
    evaluate_every: AtLeastOne | None  # epochs between two measurements on dev; None: as the schedule says
    batch_size: AtLeastOne  # a step: positives; rows of up to `answers_per_row` answers; distinct queries
    answers_per_row: AtLeastOne  # 1-vs-all
    candidates: AtLeastOne | None  # 1-vs-all: entities that queries are compared with, drawn each step; None: all
    negatives: AtLeastOne  # corrupted triples for each positive
    negative_sides: Literal["bernoulli", "uniform"]  # how often the head is replaced, how often the tail
    dimension: AtLeastOne  # D: numbers of an entity; complex numbers in ComplEx and RotatE
    reciprocal: bool  # heads are asked through relations of their own (arXiv 1806.07297)
    margin: NotNegative  # distance models: score = margin − distance
    adversarial_temperature: NotNegative  # how much more the harder negatives count; 0: all equally
    label_smoothing: Dropout  # share of a label that all entities get: 1-vs-all, k-vs-all
    optimizer: Optimizers
    learning_rate: NotNegative
    init_scale: NotNegative | None  # deviation of the tables at the start; None: the model's own start
    regularizer: Regularizers
    regularization: NotNegative  # weight of the regulariser, which is a mean over triples
    schedule: Literal["constant", "linear"]  # linear: the learning rate falls to 0 over the epochs
    dropout: Dropout  # on the known entity's vector
    strangers: Literal["own", "mean"]  # what entities without a training fact ask with
    relation_prediction: NotNegative  # weight of the relation's cross entropy among all, given both entities
    modalities: tuple[Literal["structure"], ...] = ("structure",)  # these models read nothing else

    def __post_init__(self) -> None:
        if tuple(self.modalities) != ("structure",):
            raise ValueError("this model reads the structure only: modalities must be [structure]")


def only(settings: Settings, **values: tuple) -> None:
    """Raises ValueError unless each of the named settings has one of the values that this model knows."""
    for name, known in values.items():
        if getattr(settings, name) not in known:
            raise ValueError(f"this model knows {name} {', '.join(map(str, known))} only")


class Learner(learner.Learner):
    """Adam or Adagrad against the settings' objective, regulariser and prediction of relations."""

    def __init__(self, model: nn.Module, data: Data, settings: Settings, **run: Any):
        super().__init__(model, data, settings, **run)
        # Adagrad leaves rows without a gradient alone: the rows that a step has read are all there is to do.
        sparse = hasattr(model, "sparse") and bool(settings.candidates) and settings.optimizer == "adagrad"
        if sparse and settings.objective == "one_vs_all" and not processes.together():
            self.model.sparse = True
            torch.sparse.check_sparse_tensor_invariants.disable()  # torch's own default, which it warns of
        self.objective: Objective = OBJECTIVES[settings.objective](data, settings, self.device, self.seed)
        if isinstance(self.objective, OneVsAll):
            self.objective.by_relation = getattr(model, "by_relation", False)
        self.optimizers["model"] = _optimizer(settings, model, self.device)
        if settings.schedule == "linear":
            falling = torch.optim.lr_scheduler.LambdaLR(
                self.optimizers["model"], lambda epoch: max(0.0, 1 - epoch / settings.epochs)
            )
            self.schedulers["model"] = falling

    @property
    def steps_per_epoch(self) -> int:
        return self.objective.steps

    def batches(self, epoch: int) -> Iterator[object]:
        """The objective's batches in the order of (seed, epoch)."""
        return self.objective.batches(epoch)

    def step(self, batch: object) -> dict[str, Tensor]:
        """One step; with several processes, on this one's part of the batch."""
        settings = self.settings
        with self.autocast(), processes.own_draws(self.device):
            loss, pairs, share = self.objective.loss(self.model, batch)
        terms: dict[str, Tensor] = {"link": loss}
        if settings.regularization:
            sorted_rows = by_relation(batch) if settings.regularizer == "dura" else ()
            size = getattr(self.model, settings.regularizer)(*pairs, *sorted_rows)
            terms["regularization"] = share * settings.regularization * size
        if settings.relation_prediction:
            terms["relation"] = share * settings.relation_prediction * relation_loss(self.model, pairs)
        whole = sum(list(terms.values())[1:], start=loss)
        optimizer_step(whole, self.model.parameters(), self.optimizers["model"])
        return {name: term.detach() for name, term in terms.items()}


def _optimizer(settings: Settings, model: nn.Module, device: torch.device) -> torch.optim.Optimizer:
    kind = {"adam": torch.optim.Adam, "adagrad": LazyAdagrad}[settings.optimizer]
    fused = device.type == "cuda" or not getattr(model, "sparse", False)  # torch's own knows no sparse gradient then
    return kind(model.parameters(), lr=settings.learning_rate, fused=fused, foreach=False)


def by_relation(batch: object) -> tuple[ByRelation, ...]:
    """The queries and the pairs of a batch by relation, where it was made with them."""
    found = getattr(batch, "queries_by_relation", None), getattr(batch, "pairs_by_relation", None)
    return tuple(one for one in found if one is not None)


def relation_loss(model: Any, pairs: Pairs) -> Tensor:
    """Mean cross entropy of the relation among all, given both entities (arXiv 2110.02834, equation 3), 0-d."""
    known, relation, row, answer = pairs
    known, relation, stored = known[row], relation[row], len(model.relation)
    # Without reciprocal relations, a query for a head is the same fact the other way round.
    head, tail = torch.where(relation < stored, known, answer), torch.where(relation < stored, answer, known)
    scores = model.pair(model.rows(model.entity, head), model.rows(model.answers, tail)) @ model.relation.T
    return F.cross_entropy(scores, relation % stored)


class NegativeSampling:
    """Self-adversarial negative sampling (RotatE, arXiv 1902.10197, equations 5 and 6)."""

    def __init__(self, data: Data, settings: Settings, device: torch.device, seed: int):
        self.settings, self.device, self.seed = settings, device, seed
        self.triples = data.train.to(device)
        self.sampler = NegativeSampler(
            self.triples, entities=data.entities, relations=data.relations, sides=settings.negative_sides
        )

    @property
    def steps(self) -> int:
        return math.ceil(len(self.triples) / self.settings.batch_size)

    def batches(self, epoch: int) -> Iterator[tuple[Tensor, Negatives]]:
        """Positives (B, 3) in the order of (seed, epoch), and negatives drawn anew."""
        return prefetch.ahead(self._batches(epoch), self.device)

    def _batches(self, epoch: int) -> Iterator[tuple[Tensor, Negatives]]:
        chosen = prefetch.draws((self.seed, epoch), self.device, on=self.triples.device)
        for index in shuffled(len(self.triples), self.settings.batch_size, seed=self.seed, epoch=epoch):
            positive = self.triples[prefetch.moved(index, self.device)]
            yield positive, self.sampler(positive, self.settings.negatives, chosen)

    def loss(self, model: Any, batch: tuple[Tensor, Negatives]) -> tuple[Tensor, Pairs, float]:
        positive, negatives = batch
        local, share = local_slice(len(positive))
        positive, negatives = positive[local], Negatives(negatives.entity[local], negatives.head[local])
        scores = model.link_scores(positive, negatives)
        head, relation, tail = positive.unbind(1)
        pairs = head, relation, torch.arange(len(head), device=head.device), tail
        right, wrong = self_adversarial_loss(scores[0], scores[1], self.settings.adversarial_temperature)
        return share * (right + wrong), pairs, share


class OneVsAll:
    """Cross entropy of each answer among all entities, in both directions."""

    def __init__(self, data: Data, settings: Settings, device: torch.device, seed: int):
        self.settings, self.device, self.seed = settings, device, seed
        self.by_relation = False  # whether the model asks for its rows by relation
        self.rows = one_vs_all.Rows(data.train, data.entities, data.relations, settings.answers_per_row)
        self.steps = self.rows.steps(settings.batch_size)

    def batches(self, epoch: int) -> Iterator[one_vs_all.Batch]:
        settings, seed = self.settings, (self.seed, epoch)
        return self.rows.batches(
            settings.batch_size, seed, self.device, candidates=settings.candidates, by_relation=self.by_relation
        )

    def loss(self, model: Any, batch: one_vs_all.Batch) -> tuple[Tensor, Pairs, float]:
        query = model.ask(model.known(batch.known), batch.relation, *by_relation(batch)[:1])
        answers, answer, offset = model.answers, batch.answer, None
        if batch.candidates is not None:
            answers = model.rows(answers, batch.candidates.entity)
            answer, offset = batch.candidates.answer, batch.candidates.offset
        loss = one_vs_all.cross_entropy(
            query, answers, batch.row, answer, pairs=batch.pairs, starts=batch.starts, offset=offset,
            smoothing=self.settings.label_smoothing, euclidean=getattr(model, "euclidean", False),
        )  # fmt: skip
        pairs = batch.known, batch.relation, batch.row, batch.answer
        # The processes' losses add up to the loss, and `optimizer_step` takes the mean of their gradients.
        return processes.count() * loss, pairs, processes.count() * len(batch.row) / batch.pairs


class KVsAll:
    """Binary cross entropy of every entity for each distinct query, with all its answers."""

    def __init__(self, data: Data, settings: Settings, device: torch.device, seed: int):
        self.settings, self.device, self.seed = settings, device, seed
        self.queries = kvsall.Queries(data.train, data.entities, data.relations)
        self.entities, self.steps = data.entities, self.queries.steps(settings.batch_size)

    def batches(self, epoch: int) -> Iterator[kvsall.Batch]:
        return self.queries.batches(self.settings.batch_size, (self.seed, epoch), self.device)

    def loss(self, model: Any, batch: kvsall.Batch) -> tuple[Tensor, Pairs, float]:
        query = model.ask(model.known(batch.known), batch.relation)
        among = kvsall.draw_candidates(batch, self.entities, None)
        seen = model.answers if among.entity is None else model.answers[among.entity]
        loss = kvsall.link_loss(
            query, seen, among.row, among.answer, entities=self.entities, smoothing=self.settings.label_smoothing
        )
        pairs = batch.known, batch.relation, batch.row, batch.answer
        return processes.count() * loss, pairs, 1.0


OBJECTIVES: dict[str, Callable[[Data, Settings, torch.device, int], Objective]]
OBJECTIVES = {"negative_sampling": NegativeSampling, "one_vs_all": OneVsAll, "k_vs_all": KVsAll}
