"""Mosaic, the house model: scorers of structure, text and image, fused with what is counted from the training facts.

Each scorer is a ComplEx (arXiv 1606.06357) trained 1-vs-all with DURA (arXiv 2011.05816) whose entities are a free
vector and, for text and image, a linear map of what an encoder says. Beside them a walker (arXiv 2106.06935) learns
which ways through the graph lead to answers. When their training is over, rules, constants and walks
(`trainers/parts/mosaic/`) are read off the training facts, and a small listwise model is fitted on dev that says how
far each of them is to be believed, for each relation and direction.

To be fair when this model is compared: it is several models and their fusion, others are single ones; and the fusion's
weights are fitted on dev, by which others choose their epoch only. So run.json, metrics.json and the report give as MRR
on dev the figure found by cross-validation; dev.json holds what the fitted weights reach on the facts that they were
fitted on.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from annotated_types import Ge, Le
from torch import Tensor, nn

from pipeline.errors import UserError
from pipeline.graph.rows import distinct, within
from pipeline.settings import AtLeastOne, Count, Dropout, NotNegative
from trainers.about import About
from trainers.kernels import walker
from trainers.parts.mosaic import constants, fusion, rules
from trainers.parts.mosaic.constants import Constants
from trainers.parts.mosaic.evidence import Evidence
from trainers.parts.mosaic.facts import Facts
from trainers.parts.mosaic.fusion import Fusion, Lists, Plan
from trainers.parts.mosaic.rules import Rules
from trainers.parts.mosaic.views import Bag, Dense
from trainers.parts.mosaic.walker import CLIP, Walker, Ways
from trainers.parts.scorer import ScoringModel
from trainers.training import learner, processes
from trainers.training.data import Data
from trainers.training.one_vs_all import Batch, Rows, cross_entropy
from trainers.training.optimizer import optimizer_step
from trainers.training.sampling import counts
from trainers.training.train import dev_measure, filter_index

PAPERS = ("trouillon2016complex", "zhang2020dura", "zhu2021nbfnet")
ABOUT = About(name="Mosaic", papers=PAPERS, reads=("features", "tokens"))

BLOCK = 128  # queries whose evidence is held at a time
VIEW_OF = {"text": "words", "image": "image"}  # what a scorer maps onto its entities
START = 1e-3  # spread of the weights before training
LOT = 16  # facts a step of the walker's own
FITTED = 20_000  # facts of dev that the fusion is fitted on, at most: their lists are 100 KB each


@dataclass(frozen=True)
class Settings:
    """Of the scorers first, then of the fusion."""

    epochs: AtLeastOne
    evaluate_every: AtLeastOne | None  # epochs between two measurements on dev; None: as the schedule says
    batch_size: AtLeastOne  # rows of up to `answers_per_row` answers of a query
    answers_per_row: AtLeastOne
    learning_rate: NotNegative  # of Adagrad
    modalities: tuple[Literal["structure", "text", "image"], ...]
    structure_ranks: tuple[AtLeastOne, ...]  # complex numbers of an entity, a scorer each
    text_ranks: tuple[AtLeastOne, ...]
    image_ranks: tuple[AtLeastOne, ...]
    regularization: NotNegative  # weight of DURA, a mean over triples
    dropout: Dropout  # on the known entity
    view_scale: NotNegative  # length of the vectors of texts and images that are mapped onto entities
    candidates: AtLeastOne | None  # entities that a training query is compared with, drawn each step; None: all
    walker_layers: Annotated[int, Ge(0), Le(walker.MOST_LAYERS)]  # steps of its walks; 0: there is no walker
    walker_width: Literal[16, 32]  # numbers of an entity on the way
    walker_queries: AtLeastOne  # facts a step that it is asked for
    walker_learning_rate: NotNegative  # of Adam, falling to 0 over the epochs
    walker_dropout: Dropout  # on what edges do to what they carry
    rules_per_relation: Count  # at most
    fusion_penalty: NotNegative  # on what the fusion's weights differ between relations
    fusion_from: str | None  # run folder whose fusion is taken over; None: one is fitted on dev

    def __post_init__(self) -> None:
        if not self.modalities or len(set(self.modalities)) < len(self.modalities):
            raise ValueError("modalities needs at least one of structure, text, image, each once")
        if not scorers_of(self):
            raise ValueError("there is no scorer: give one of the modalities a rank, as in structure_ranks: [200]")


def scorers_of(settings: Settings) -> list[str]:
    """The names of the scorers: those of each modality in turn, numbered."""
    return [f"{name}_{i}" for name in settings.modalities for i in range(len(getattr(settings, f"{name}_ranks")))]


def members_of(settings: Settings) -> list[str]:
    """What the fusion weighs beside the evidence: the scorers, and the walker if there is one."""
    walks = settings.walker_layers and "structure" in settings.modalities
    return [*scorers_of(settings), *(["walker"] if walks else [])]


class Scorer(nn.Module):
    """ComplEx with reciprocal relations; entities are a free vector, and W (K, 2D) of what a view says of them.

    `relation` (2R, 2D), `entity` (E, 2D): real parts, then imaginary ones. W starts at 0.
    """

    def __init__(self, data: Data, rank: int, settings: Settings, width: int, generator: torch.Generator):
        """`width` K of the view; 0: there is none."""
        super().__init__()

        def start(rows: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(rows, 2 * rank, generator=generator) * START)

        self.settings = settings
        self.relation = start(2 * data.relations)
        self.entity = start(data.entities) if "structure" in settings.modalities else None
        self.W = start(width) if width else None

    def table(self, view: Any, entity: Tensor | None = None) -> Tensor:
        """(E, 2D) vectors of all entities, or (n, 2D) of those in `entity` (n,)."""
        own = self.entity if self.entity is None or entity is None else self.entity[entity]
        if self.W is None:
            assert own is not None, "what has no view has the structure"
            return own
        said = self.settings.view_scale * view.times(self.W, entity)
        return said if own is None else own + said

    def ask(self, x: Tensor, relation: Tensor) -> Tensor:
        """Queries (B, 2D) of entities `x` (B, 2D): their products with answers are Re Σ x r conj(t)."""
        return _product(x, self.relation[relation])

    def loss(self, batch: Batch, view: Any) -> Tensor:
        """Cross entropy of the batch's answers among all entities or its candidates, and DURA, 0-d."""
        if batch.candidates is not None:  # the answers among them: only their rows and the known entities' are made
            entity, place, offset = batch.candidates.entity, batch.candidates.answer, batch.candidates.offset
            among = self.table(view, entity)
            known = self.table(view, batch.known)
        else:
            among, place, offset = self.table(view), batch.answer, None
            known = among[batch.known]
        answer = among[place]
        query = self.ask(F.dropout(known, self.settings.dropout, self.training), batch.relation)
        paid = cross_entropy(query, among, batch.row, place, pairs=batch.pairs, starts=batch.starts, offset=offset)
        return paid + self.settings.regularization * self._dura(batch, known, answer)

    def _dura(self, batch: Batch, known: Tensor, answer: Tensor) -> Tensor:
        """Mean over triples of |h|² + |h r|² + |t|² + |t conj(r)|²: without it, the facts are learnt by heart."""
        share = counts(batch.row, len(batch.known)) / batch.pairs
        forth = known.square().sum(1) + self.ask(known, batch.relation).square().sum(1)
        r = self.relation[batch.relation[batch.row]]
        back = answer.square().sum(1) + _product(answer, _conjugate(r)).square().sum(1)
        return (share * forth).sum() + back.sum() / batch.pairs


class Mosaic(ScoringModel):
    """Scorers by modality; after `fuse` also rules and the fusion, as buffers, so that a run folder holds all of it."""

    views: Any  # nn.ModuleDict of `Dense` and `Bag`
    scorers: Any  # nn.ModuleDict of `Scorer`
    facts: Tensor
    rules: Tensor
    rules_confidence: Tensor
    constants: Tensor
    constants_confidence: Tensor

    def __init__(self, data: Data, settings: Settings, generator: torch.Generator):
        super().__init__()
        self.settings, self.entities, self.relations = settings, data.entities, data.relations
        self.views = nn.ModuleDict()
        for view in (one for one in ("text", "image") if one in settings.modalities):
            self.views[view] = Dense(data.features[view], data.entities)
        if "text" in settings.modalities:
            self.views["words"] = Bag(data.tokens["text"], data.entities)
        self.scorers = nn.ModuleDict()
        for name in scorers_of(settings):
            kind, place = name.split("_")
            width = self.views[VIEW_OF[kind]].width if kind in VIEW_OF else 0
            rank = getattr(settings, f"{kind}_ranks")[int(place)]
            self.scorers[name] = Scorer(data, rank, settings, width, generator)
        self.walker: Walker | None = None
        if "walker" in members_of(settings):
            self.walker = Walker(2 * data.relations, settings.walker_layers, settings.walker_width, generator)
        self.register_buffer("facts", data.train.clone())
        self.register_buffer("rules", torch.empty(0, 4, dtype=torch.int64))  # relation, first, second, support
        self.register_buffer("rules_confidence", torch.empty(0))
        self.register_buffer("constants", torch.empty(0, 5, dtype=torch.int64))  # relation, s, d, c, support
        self.register_buffer("constants_confidence", torch.empty(0))
        self.fusion = Fusion(0, 0)
        self._evidence: Evidence | None = None
        self._ways: Ways | None = None
        self._stands_in: tuple[int, Callable[[Tensor], Tensor]] | None = None
        self.register_load_state_dict_post_hook(Mosaic._forget)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Each scorer's loss, 0-d."""
        return {name: scorer.loss(batch, self._view(name)) for name, scorer in self.scorers.items()}

    def walker_losses(self, batch: Batch) -> Iterator[Tensor]:
        """The walker's loss, 0-d, on one lot after the other of the facts of the batch that are drawn for it.

        Other than the scorers' it makes a GPU wait (`trainers/parts/mosaic/walker.py`).
        """
        assert self.walker is not None
        number, taken = min(self.settings.walker_queries, batch.pairs), 0
        drawn = torch.randperm(len(batch.answer), device=batch.answer.device)
        # As many lots in each process, of however many facts its part of the batch has: they step together, and the
        # mean over processes of their shares of a lot is the mean over the lot.
        for start in range(0, number, LOT):
            size = min(LOT, number - start)
            part = processes.part_of(size)
            lot = drawn[taken : taken + part.stop - part.start]
            row, taken = batch.row[lot], taken + len(lot)
            asked = batch.known[row], batch.relation[row], batch.answer[lot]
            share = len(lot) * processes.count() / size
            yield share * self.walker.loss(self.ways(), *asked, self.settings.walker_dropout)

    def members(self) -> list[str]:
        """What the fusion weighs beside the evidence, in the order of its columns."""
        return members_of(self.settings)

    def _view(self, scorer: str) -> Any:
        kind = scorer.split("_")[0]
        return self.views[VIEW_OF[kind]] if kind in VIEW_OF else None

    def grow(self, before: Data, after: Data, structure: Callable[[Tensor], Tensor]) -> None:
        """Room for the entities of `after` (trainers/parts/unseen.py), which no training fact knows."""
        self._forget()
        self.entities, self._stands_in = after.entities, (before.entities, structure)
        for name, view in self.views.items():
            kind, of = ("tokens", "text") if name == "words" else ("features", name)
            view.grow(getattr(before, kind)[of], getattr(after, kind)[of], after.entities)
        for scorer in self.scorers.values():
            if scorer.entity is not None:
                scorer.entity = nn.Parameter(structure(scorer.entity))

    def sizes(self) -> tuple[int, int]:
        return self.entities, self.relations

    def prepare(self) -> Callable[[Tensor, Tensor, str], Tensor]:
        """The fusion's scores; before there is a fusion, the members' mean."""
        return self._fused() if len(self.fusion.everywhere) else self._blended()

    def score(self, prepared: Callable, known: Tensor, relation: Tensor, side: str) -> Tensor:
        return prepared(known, relation, side)

    @torch.inference_mode()
    def log_probabilities(self) -> Callable[[Tensor, Tensor], list[Tensor]]:
        """(known (B,), relation (B,) below 2R) -> the log-softmax (B, E) of each member."""
        tables = [scorer.table(self._view(name)) for name, scorer in self.scorers.items()]

        @torch.inference_mode()
        def score(known: Tensor, relation: Tensor) -> list[Tensor]:
            both = zip(self.scorers.values(), tables, strict=True)
            found = [(one.ask(table[known], relation) @ table.T).log_softmax(1) for one, table in both]
            if self.walker is not None:
                found.append(self._also_new(self.walker.scores(self.ways(), known, relation).log_softmax(1)))
            return found

        return score

    def _also_new(self, walked: Tensor) -> Tensor:
        """The walker's (B, E), where no way leads to the entities that `grow` has added: others stand in for them."""
        if self._stands_in is None:
            return walked
        seen, structure = self._stands_in
        lowest = walked[:, :seen].amin(1, keepdim=True)
        above = walked[:, :seen] - lowest  # none below 0, so that a stand-in is as long as their mean
        new = torch.stack([structure(row[:, None])[seen:, 0] for row in above])
        return torch.cat([walked[:, :seen], lowest + new], 1)

    def _blended(self) -> Callable[[Tensor, Tensor, str], Tensor]:
        each = self.log_probabilities()

        @torch.inference_mode()
        def score(known: Tensor, relation: Tensor, side: str) -> Tensor:
            blocks = zip(known.long().split(BLOCK), self._directed(relation, side).split(BLOCK), strict=True)
            return torch.cat([torch.stack(each(*asked)).mean(0) for asked in blocks])

        return score

    def _fused(self) -> Callable[[Tensor, Tensor, str], Tensor]:
        """The fusion's scores, of a block of queries at a time and a column at a time."""
        evidence, each = self.evidence(), self.log_probabilities()
        degree = torch.from_numpy(evidence.facts.degree).to(self.facts.device)

        @torch.inference_mode()
        def score(known: Tensor, relation: Tensor, side: str) -> Tensor:
            out = torch.zeros(len(known), self.entities, device=known.device)
            for rows in torch.arange(len(known), device=known.device).split(BLOCK):
                asked = known[rows].long(), self._directed(relation[rows], side)
                weights = self.fusion.weights(asked[1], degree[asked[0]])
                for column, weight in zip(_columns(evidence, each, *asked), weights.T, strict=True):
                    out[rows] += weight[:, None] * column
            return out

        return score

    @torch.inference_mode()
    def contributions(self, known: int, relation: int, answer: int) -> dict[str, float]:
        """What each column adds to the score of (known, relation below 2R, answer), above the mean of all entities."""
        asked = torch.tensor([known], device=self.facts.device), torch.tensor([relation], device=self.facts.device)
        evidence = self.evidence()
        degree = torch.from_numpy(evidence.facts.degree).to(self.facts.device)
        weights = self.fusion.weights(asked[1], degree[asked[0]])[0]
        columns = _columns(evidence, self.log_probabilities(), *asked)
        worth = [
            float(weight * (column[0, answer] - column[0].mean()))
            for weight, column in zip(weights, columns, strict=True)
        ]
        return dict(zip([*self.members(), *evidence.names], worth, strict=True))

    def evidence(self) -> Evidence:
        """What speaks for answers beside the scorers, read off the buffers; kept until these change."""
        if self._evidence is None:
            self._evidence = self._read_evidence()
        return self._evidence

    def ways(self) -> Ways:
        """The training facts as the walker needs them; kept until these change."""
        if self._ways is None or self._ways.device != self.facts.device:
            self._ways = Ways(self._read_facts(), self.facts.device)
        return self._ways

    def _read_facts(self) -> Facts:
        return Facts(self.facts.cpu().numpy(), self.entities, self.relations)

    def _read_evidence(self) -> Evidence:
        facts = self._read_facts()
        mined = fixed = None
        if "structure" in self.settings.modalities:
            relation, first, second, support = self.rules.cpu().numpy().T
            mined = Rules(relation, first, second, support, self.rules_confidence.cpu().numpy())
            relation, known, given, answer, support = self.constants.cpu().numpy().T
            fixed = Constants(relation, known, given, answer, support, self.constants_confidence.cpu().numpy())
        return Evidence(facts, mined, fixed, {name: view.matrix() for name, view in self.views.items()})

    def _forget(self, _=None) -> None:
        self._evidence = self._ways = None

    def mine(self) -> None:
        """Read rules and constants off the training facts."""
        self._forget()
        facts = self._read_facts()
        found, fixed = rules.mine(facts, best=self.settings.rules_per_relation), constants.mine(facts)
        columns: tuple[np.ndarray, ...] = (found.relation, found.first, found.second, found.support)
        self.rules, self.rules_confidence = self._kept(columns, found.confidence)
        columns = (fixed.relation, fixed.property, fixed.given, fixed.answer, fixed.support)
        self.constants, self.constants_confidence = self._kept(columns, fixed.confidence)

    def _kept(self, columns: tuple[np.ndarray, ...], confidence: np.ndarray) -> tuple[Tensor, Tensor]:
        device = self.facts.device
        return torch.from_numpy(np.stack(columns, 1)).to(device), torch.from_numpy(confidence).to(device)

    def _directed(self, relation: Tensor, side: str) -> Tensor:
        return relation.long() + (self.relations if side == "head" else 0)


def _columns(evidence: Evidence, each: Callable, known: Tensor, relation: Tensor) -> Iterator[Tensor]:
    """All columns (B, E) that the fusion weighs: the scorers and the walker, then the evidence."""
    yield from each(known, relation)
    for column in evidence.columns(known.cpu().numpy(), relation.cpu().numpy()):
        yield torch.from_numpy(np.require(column, np.float32, ["C", "W"])).to(known.device)


def _product(x: Tensor, r: Tensor) -> Tensor:
    """Products of complex numbers, (B, 2D) each: real parts, then imaginary ones."""
    a, b = x.chunk(2, dim=-1)
    c, d = r.chunk(2, dim=-1)
    return torch.cat([a * c - b * d, a * d + b * c], dim=-1)


def _conjugate(r: Tensor) -> Tensor:
    c, d = r.chunk(2, dim=-1)
    return torch.cat([c, -d], dim=-1)


def build(data: Data, settings: Settings, generator: torch.Generator) -> Mosaic:
    """The model on the CPU, its random start drawn from `generator` alone."""
    return Mosaic(data, settings, generator)


def _without(triples: Tensor, *others: Tensor) -> Tensor:
    """The distinct of `triples` (n, 3), in their order, that are not among `others` (m, 3) each."""
    left = distinct(triples.numpy())
    for one in others:
        left = left[~within(left, one.numpy())]
    return torch.from_numpy(left)


class Learner(learner.Learner):
    """Adagrad for all scorers at once, Adam for the walker; then, in `finish`, rules and the fusion."""

    def __init__(self, model: Mosaic, data: Data, settings: Settings, **run: Any):
        super().__init__(model, data, settings, **run)
        # Released splits repeat facts of train and of test in dev, of which the fusion may know no more than others.
        self.unlearnt = _without(data.dev, data.train, data.test)
        if len(self.unlearnt) > FITTED:
            drawn = np.random.default_rng(self.seed).choice(len(self.unlearnt), FITTED, replace=False)
            self.unlearnt = self.unlearnt[np.sort(drawn)]
        if settings.fusion_from:
            self._taken_over()  # what is not there is to be missed before training, not after it
        elif len(self.unlearnt) < fusion.FOLDS:
            raise UserError(
                f"{len(self.unlearnt)} dev facts of {data.name} are neither among the training facts nor in test, too "
                f"few to fit the fusion on ({fusion.FOLDS} at least): enlarge dev, or name in fusion_from a run of "
                "mosaic that was trained without them."
            )
        self.rows = Rows(data.train, data.entities, data.relations, settings.answers_per_row)
        self.fitted = list(model.scorers.parameters())
        self.optimizers["model"] = torch.optim.Adagrad(self.fitted, lr=settings.learning_rate, fused=True)
        if model.walker is not None:
            self.optimizers["walker"] = self.adam(model.walker.parameters(), settings.walker_learning_rate)
            falling = torch.optim.lr_scheduler.LambdaLR(
                self.optimizers["walker"], lambda epoch: 1 - epoch / settings.epochs
            )
            self.schedulers["walker"] = falling

    @property
    def steps_per_epoch(self) -> int:
        return self.rows.steps(self.settings.batch_size)

    def batches(self, epoch: int) -> Iterator[Batch]:
        settings, seed = self.settings, (self.seed, epoch)
        return self.rows.batches(settings.batch_size, seed, self.device, candidates=settings.candidates)

    def step(self, batch: Batch) -> dict[str, Tensor]:
        with self.autocast():
            terms = {name: processes.count() * loss for name, loss in self.model.losses(batch).items()}
        optimizer_step(sum(terms.values()), self.fitted, self.optimizers["model"])
        if self.model.walker is not None:
            for loss in self.model.walker_losses(batch):
                optimizer_step(loss, self.model.walker.parameters(), self.optimizers["walker"], clip=CLIP)
                terms["walker"] = loss  # of the last lot
        return {name: value.detach() for name, value in terms.items()}

    def finish(self) -> dict[str, float]:
        """Mine the rules and fit the fusion on dev: its MRR there by cross-validation. Or take a fusion over."""
        model = self.model.eval()
        model.mine()
        if self.settings.fusion_from:
            model.fusion = self._taken_over().to(self.device)
            return {"dev_mrr": dev_measure(self.data, self.device, None, self.seed)(model)}
        plan = Plan(penalty=self.settings.fusion_penalty)
        dev = self.unlearnt
        lists = self.lists(dev, plan)
        fold, found = lists.fold[: len(dev)], 0.0
        for one in range(fusion.FOLDS):
            model.fusion = self._fit(lists.without(one), plan)
            measure = dev_measure(self.data, self.device, None, self.seed, of=dev[fold == one])
            found += measure(model) * int((fold == one).sum()) / len(fold)
        model.fusion = self._fit(lists, plan)
        return {"dev_mrr": found, "dev_mrr_by_cross_validation": found}

    def _taken_over(self) -> Fusion:
        """The fusion of the run `fusion_from`. Raises UserError if it is none of this model's."""
        model = self.model
        columns = len(model.members()) + len(model.evidence().names)
        return fusion.of_run(Path(self.settings.fusion_from), model.members(), columns, model.relations)

    def _fit(self, lists: Lists, plan: Plan) -> Fusion:
        """A fusion that begins at the mean of the members."""
        scorers = len(self.model.members())
        blend = torch.zeros(lists.columns.shape[2])
        blend[:scorers] = 1 / scorers
        return fusion.fit(lists, blend, 2 * self.model.relations, plan, self.seed).to(self.device)

    def lists(self, dev: Tensor, plan: Plan) -> Lists:
        """`dev` (n, 3) in both directions, tails first, with candidates. Nothing here has seen a fact of test."""
        facts = filter_index(replace(self.data, dev=dev, test=dev[:0], facts=None))
        evidence, each = self.model.evidence(), self.model.log_probabilities()
        generator = np.random.default_rng(self.seed)
        fold = torch.from_numpy(fusion.folds(len(dev), self.seed))
        parts = []
        for side, ends in (("tail", (0, 2)), ("head", (2, 0))):
            asked = self.model._directed(dev[:, 1], side)
            query = (asked * self.model.entities + dev[:, ends[0]]).numpy()
            spared = fusion.spared_of(query, dev[:, ends[1]].numpy(), fold.numpy(), plan.spared)
            for rows in torch.arange(len(dev)).split(BLOCK):
                known, answer = (dev[rows, end] for end in ends)
                columns = _columns(evidence, each, known.to(self.device), asked[rows].to(self.device))
                scorers = [next(columns) for _ in self.model.members()]
                blend = torch.stack(scorers).mean(0).cpu().numpy()
                others = facts.answers(known, dev[rows, 1], side)
                picked, offset = fusion.candidates_of_all(blend, others, answer, plan, generator)
                also, of_fold = (one[rows] for one in spared)
                picked, offset = torch.cat([picked, also], 1), F.pad(offset, (0, plan.spared), value=-torch.inf)
                every = itertools.chain(scorers, columns)
                said = torch.stack([column.cpu().gather(1, picked) for column in every], dim=2)
                degree = torch.from_numpy(evidence.facts.degree)[known]
                parts.append((said, offset, asked[rows], degree, fold[rows], of_fold))
        return Lists(*(torch.cat(part) for part in zip(*parts, strict=True)))
