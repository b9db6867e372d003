"""AdaMF-MAT (arXiv 2402.15444): entities fused from structure, image and text by attention, scored by rotation, and
trained against generators that imitate the image and the text.

Read from top to bottom: settings, the model (fusion, scores, ranking), the generators, a training step.
All distinct entities of a step are projected and fused once, then gathered; the distances to the negatives are one
kernel.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.settings import AtLeastOne, Count, NotNegative
from trainers.about import About, PaperProtocol
from trainers.kernels import rotate
from trainers.kernels.rotate import rotated
from trainers.parts.modules import Modules
from trainers.parts.projected import ProjectedFeatures
from trainers.parts.scorer import ScoringModel
from trainers.training import learner, prefetch
from trainers.training.data import Data, Features
from trainers.training.optimizer import added, optimizer_step
from trainers.training.sampling import (
    Negatives,
    NegativeSampler,
    linear_,
    local_slice,
    self_adversarial_loss,
    shuffled,
    uniform_,
)

ABOUT = About(
    name="AdaMF-MAT",
    papers=("zhang2024adamf",),
    reads=("features",),
    protocol=PaperProtocol(
        "adamf_mat",
        ties="ahead",
        choice="last",
        evaluate_every=None,
        nan_first=True,
        words="ties in the model's favour; the last epoch; the released split, known facts of all three files",
        epochs=1000,
        encoders="VGG16 pictures and BERT texts on DB15K (other pooled vectors on MKG-W and MKG-Y)",
    ),
    explains="modality_weights",
)
NOISE = 64  # width of the generators' noise
HIDDEN = 512  # width of the generators' hidden layer
BLOCK = 16384  # entities fused at once for ranking, so that a graph of millions needs no second copy of its features


@dataclass(frozen=True)
class Settings:
    """Hyperparameters; the defaults are the paper's for DB15K where it gives them."""

    epochs: AtLeastOne = 1000
    batch_size: AtLeastOne = 1024  # positives per step
    negatives: AtLeastOne = 128  # corrupted triples for each positive
    negative_sides: Literal["bernoulli", "uniform"] = "bernoulli"  # how often the head or the tail is replaced
    dimension: AtLeastOne = 250  # D: complex width of an entity, phases of a relation
    margin: NotNegative = 12.0  # score = margin − distance
    epsilon: NotNegative = 2.0  # the tables start uniform in ±(margin + epsilon) / width
    adversarial_temperature: NotNegative = 2.0  # τ: how much harder negatives count more
    learning_rate: NotNegative = 2e-5
    generator_learning_rate: NotNegative = 1e-4
    adversarial_weight: NotNegative = 0.1  # weight of the modality adversarial loss; 0: none, and no generators
    adversarial_weighting: Literal["reference", "per_triple"] = "reference"  # fakes weighted over the batch, or equally
    modalities: tuple[Literal["structure", "text", "image"], ...] = ("structure", "text", "image")
    missing: Literal["mean", "zero", "mask", "learned"] = "mean"  # what replaces a modality that an entity lacks
    feature_table: Literal["trained", "frozen"] = "trained"  # whether the encoders' features are learned further
    # adam: every row of the tables moves each step, as Adam is defined; lazy_adam: only the rows of the step's
    # entities, whose moments are kept in between, so a step costs the same however many entities there are. The numbers
    # differ: a row that is not drawn is not moved by its momentum, nor do its moments decay.
    optimizer: Literal["adam", "lazy_adam"] = "adam"
    negative_pool: Count = 0  # draw each step's negatives from so many entities, for large graphs; 0: from all

    def __post_init__(self) -> None:
        if not self.modalities or len(set(self.modalities)) < len(self.modalities):
            raise ValueError("modalities needs at least one of structure, text, image, each once")


def build(data: Data, settings: Settings, generator: torch.Generator) -> "AdaMF":
    """The model on the CPU, every number of its start drawn from `generator` in a fixed order."""
    return AdaMF(
        data.entities,
        data.relations,
        {name: data.features[name] for name in ("image", "text") if name in settings.modalities},
        structure="structure" in settings.modalities,
        dimension=settings.dimension,
        margin=settings.margin,
        epsilon=settings.epsilon,
        missing=settings.missing,
        feature_table=settings.feature_table,
        sparse=settings.optimizer == "lazy_adam",
        adversarial=settings.adversarial_weight > 0,
        generator=generator,
    )


@dataclass
class Fused:
    """Entities of one step, n of them."""

    joint: Tensor  # (n, 2D) float32
    structure: Tensor | None  # (n, 2D)
    weights: Tensor  # (n, modalities) in the order of `AdaMF.names`; rows sum to 1
    present: Tensor | None  # (n, modalities) bool, False where a modality is masked; None: nowhere

    def __getitem__(self, row: Tensor) -> "Fused":
        """The rows (B,) of it."""
        structure = None if self.structure is None else self.structure[row]
        present = None if self.present is None else self.present[row]
        return Fused(self.joint[row], structure, self.weights[row], present)


class AdaMF(ScoringModel):
    """Adaptive fusion and RotatE; with `adversarial`, also the generators that the Learner trains against it."""

    def __init__(
        self,
        entities: int,
        relations: int,
        features: dict[str, Features],
        *,
        structure: bool,
        dimension: int,
        margin: float,
        epsilon: float,
        missing: str,
        feature_table: str,
        sparse: bool,
        adversarial: bool,
        generator: torch.Generator,
    ):
        super().__init__()
        width = 2 * dimension
        self.margin = margin
        self.relation_range = (margin + epsilon) / dimension
        self.names = (("structure",) if structure else ()) + tuple(features)
        self.sparse = sparse
        self.entity = nn.Parameter(torch.empty(entities, width)) if structure else None
        if structure:
            uniform_(self.entity, (margin + epsilon) / width, generator)
        self.relation = nn.Parameter(uniform_(torch.empty(relations, dimension), self.relation_range, generator))
        trained = feature_table == "trained"
        self.modality: Modules[ProjectedFeatures] = Modules(
            {
                name: ProjectedFeatures(
                    found, entities, width, missing=missing, trained=trained, sparse=sparse, generator=generator
                )
                for name, found in features.items()
            }
        )
        self.attention = linear_(nn.Linear(width, 1, bias=False), generator) if len(self.names) > 1 else None
        self.generators: Modules[Generator] = Modules(
            {name: Generator(width if structure else 0, width, generator) for name in features if adversarial}
        )

    @property
    def entities(self) -> int:
        return len(self.entity) if self.entity is not None else len(next(iter(self.modality.values())).row)

    # ------------------------------------------------------------------------------------------------------ fusion

    def fuse(self, entity: Tensor | None = None) -> Fused:
        """Joint embeddings of `entity` (n,), or of all: Σ_m a_m e_m with a = softmax_m(w · tanh e_m) (section 4.1)."""
        parts, structure = [], None
        if self.entity is not None:
            structure = self.entity if entity is None else F.embedding(entity, self.entity, sparse=self.sparse)
            parts.append(structure)
        parts += [modality(entity) for modality in self.modality.values()]
        present = self._present(entity)
        joint, weights = self.attend(parts, present)
        return Fused(joint, structure, weights, present)

    def attend(self, parts: list[Tensor], present: Tensor | None) -> tuple[Tensor, Tensor]:
        """The fusion (n, 2D) of `parts`, one (n, 2D) per modality, and its weights (n, modalities).

        Where `present` (n, modalities) is False the weight is 0; an entity with nothing at all becomes the zero vector.
        """
        parts = [part.float() for part in parts]
        if self.attention is None:
            weights = parts[0].new_ones(len(parts[0]), 1) if present is None else present.float()
            return parts[0] if present is None else parts[0] * weights, weights
        weight = self.attention.weight[0]
        logits = torch.stack([torch.tanh(part) @ weight for part in parts], dim=-1)
        if present is not None:
            empty = ~present.any(1, keepdim=True)
            logits = logits.masked_fill(~present & ~empty, -math.inf)
        weights = torch.softmax(logits, dim=-1)
        if present is not None:
            weights = weights * present
        joint = parts[0] * weights[:, :1]
        for index, part in enumerate(parts[1:], start=1):
            joint = torch.addcmul(joint, part, weights[:, index : index + 1])
        return joint, weights

    def _present(self, entity: Tensor | None) -> Tensor | None:
        """(n, modalities) bool, or None where nothing is left out."""
        if not any(modality.masks for modality in self.modality.values()):
            return None
        columns = [modality.present for modality in self.modality.values()]
        if self.entity is not None:
            columns.insert(0, torch.ones_like(columns[0]))
        present = torch.stack(columns, dim=1)
        return present if entity is None else present[entity]

    @torch.inference_mode()
    def modality_weights(self, entity: Tensor | None = None) -> Tensor:
        """(n, 3) float32: how much structure, image and text count for each `entity` (n,) or for all; 0 if not used."""
        wanted = torch.arange(self.entities) if entity is None else entity
        weights = torch.cat([self.fuse(block).weights for block in wanted.to(self.relation.device).split(BLOCK)])
        out = weights.new_zeros(len(weights), 3)
        for index, name in enumerate(self.names):
            out[:, ("structure", "image", "text").index(name)] = weights[:, index]
        return out

    # ------------------------------------------------------------------------------------------------------ scores

    def phase(self, relation: Tensor) -> Tensor:
        """(B, D) angles θ of `relation` (B,), in radians."""
        return self.relation[relation] * (math.pi / self.relation_range)

    def link_scores(
        self, joint: Tensor, head: Tensor, relation: Tensor, tail: Tensor, negatives: Negatives
    ) -> tuple[Tensor, Tensor]:
        """Scores f⁺ (B,) of positives and f⁻ (B, K) of their negatives; entities are rows of `joint` (n, 2D).

        The known side of a positive is rotated once: |h e^{iθ} − t_k| for tails, |t e^{−iθ} − h_k| for heads.
        """
        angle = self.phase(relation)
        query = torch.stack([rotated(joint[head], angle), rotated(joint[tail], -angle)], dim=1)
        candidate = torch.cat([tail[:, None], negatives.entity], dim=1)
        side = torch.cat([torch.zeros_like(tail, dtype=torch.bool)[:, None], negatives.head], dim=1)
        score = self.margin - rotate.distances(query, joint, candidate, side)
        return score[:, 0], score[:, 1:]

    def crossed_scores(self, heads: list[Tensor], relation: Tensor, tails: list[Tensor]) -> list[list[Tensor]]:
        """Scores (B,) of each of `heads` with each of `tails`, two (B, 2D) vectors each, under `relation` (B,)."""
        angle = self.phase(relation)
        query = torch.stack([rotated(head, angle) for head in heads], dim=1)
        row = torch.arange(len(relation), device=relation.device)
        candidate = torch.stack([row, row, row + len(row), row + len(row)], dim=1)
        side = (torch.arange(4, device=row.device) % 2 == 1).expand(len(row), 4)
        scores = (self.margin - rotate.distances(query, torch.cat(tails), candidate, side)).unbind(1)
        return [[scores[0], scores[2]], [scores[1], scores[3]]]

    def grow(self, before: Data, after: Data, structure: Callable[[Tensor], Tensor]) -> None:
        """Room for the entities of `after` (trainers/parts/unseen.py)."""
        if self.entity is not None:
            self.entity = nn.Parameter(structure(self.entity))

    def sizes(self) -> tuple[int, int]:
        return self.entities, len(self.relation)

    def prepare(self) -> Tensor:
        """(E, 2D) joint embeddings of all entities."""
        blocks = torch.arange(self.entities, device=self.relation.device).split(BLOCK)
        if len(blocks) == 1:
            return self.fuse().joint
        # Filled, not concatenated, which would take the memory twice.
        joint = torch.empty(self.entities, 2 * self.relation.shape[1], device=self.relation.device)
        for block in blocks:
            joint[block] = self.fuse(block).joint
        return joint

    def score(self, prepared: Tensor, known: Tensor, relation: Tensor, side: str) -> Tensor:
        angle = self.phase(relation)
        query = rotated(prepared[known], angle if side == "tail" else -angle)
        return rotate.all_distances(query, prepared).neg_().add_(self.margin)

    # ---------------------------------------------------------------------------------------- modality adversaries

    def noise(self, rows: int, device: torch.device) -> dict[str, tuple[Tensor, Tensor]]:
        """Noise z (rows, 64) of the head and of the tail, a pair per generator, from torch's own generator."""
        return {
            name: (torch.randn(rows, NOISE, device=device), torch.randn(rows, NOISE, device=device))
            for name in self.generators
        }

    def fakes(self, structure: Tensor | None, noise: list[Tensor]) -> list[Tensor]:
        """Imitated vectors (B, 2D), one per generator, for entities of `structure` (B, 2D)."""
        return [make(z, structure) for make, z in zip(self.generators.values(), noise, strict=True)]

    def fake_scores(
        self,
        head: Fused,
        relation: Tensor,
        tail: Fused,
        noise: dict[str, tuple[Tensor, Tensor]],
    ) -> tuple[Tensor, list[Tensor]]:
        """True scores (B,), and those with the head, the tail, and both fused from imitations (section 4.2).

        The structure stays true, and where a modality is masked its imitation is too.
        """
        imitated = []
        for index, end in enumerate((head, tail)):
            parts = self.fakes(end.structure, [pair[index] for pair in noise.values()])
            if end.structure is not None:
                parts.insert(0, end.structure)
            imitated.append(self.attend(parts, end.present)[0])
        scores = self.crossed_scores([head.joint, imitated[0]], relation, [tail.joint, imitated[1]])
        return scores[0][0], [scores[1][0], scores[0][1], scores[1][1]]


class Generator(nn.Module):
    """[z ; s] → 512 → LeakyReLU → 2D: an imitation of one projected modality (section 4.2, equation 6)."""

    def __init__(self, given: int, width: int, generator: torch.Generator):
        super().__init__()
        self.hidden = linear_(nn.Linear(NOISE + given, HIDDEN), generator)
        self.out = linear_(nn.Linear(HIDDEN, width), generator)

    def forward(self, noise: Tensor, structure: Tensor | None) -> Tensor:
        given = noise if structure is None else torch.cat([noise, structure], dim=-1)
        return self.out(F.leaky_relu(self.hidden(given)))


# ------------------------------------------------------------------------------------------------------- training


@dataclass(frozen=True)
class Batch:
    """Positives and their negatives, and the entities of both; with several processes, of this one's part."""

    positive: Tensor  # (B, 3) int64
    negatives: Negatives  # (B, K)
    entity: Tensor | None  # (n,) int64 ascending: the distinct entities; None: all
    head: Tensor  # (B,) int64, as the next two rows of `entity`
    tail: Tensor  # (B,) int64
    corrupt: Tensor  # (B, K) int64
    whole: int  # positives of all processes


class Learner(learner.Learner):
    """Trains the model and, if μ > 0, the generators in turn (section 4.3)."""

    def __init__(self, model: AdaMF, data: Data, settings: Settings, **run: Any):
        super().__init__(model, data, settings, **run)
        self.triples = data.train.to(self.device)
        self.sampler = NegativeSampler(
            self.triples, entities=data.entities, relations=data.relations, sides=settings.negative_sides
        )
        tables, others = [], []
        for name, value in model.named_parameters():
            if name == "entity" or name.endswith(".table"):
                tables.append(value)
            elif not name.startswith("generators."):
                others.append(value)
        self.discriminating = tables + others  # the model's parameters without the generators'
        lazy = settings.optimizer == "lazy_adam"
        self.optimizers["model"] = self.adam(others if lazy else self.discriminating)
        if lazy and tables:
            self.optimizers["rows"] = self.lazy_adam(tables)
        if model.generators:
            self.optimizers["generators"] = self.adam(model.generators.parameters(), settings.generator_learning_rate)

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(len(self.triples) / self.settings.batch_size)

    def batches(self, epoch: int) -> Iterator[Batch]:
        """Positives in the order of (seed, epoch), and new negatives."""
        return prefetch.ahead(self._batches(epoch), self.device)

    def _batches(self, epoch: int) -> Iterator[Batch]:
        chosen = prefetch.draws((self.seed, epoch), self.device, on=self.triples.device)
        for index in shuffled(len(self.triples), self.settings.batch_size, seed=self.seed, epoch=epoch):
            yield self.batch(self.triples[prefetch.moved(index, self.device)], chosen)

    def batch(self, positive: Tensor, generator: torch.Generator | None = None) -> Batch:
        """`positive` (B, 3) with negatives from `generator`, or torch's own.

        With several processes each takes its part of them (of what all of them draw alike).
        """
        negatives = self.sampler(positive, self.settings.negatives, generator, pool=self.settings.negative_pool)
        local, _ = local_slice(len(positive))
        own = Negatives(negatives.entity[local], negatives.head[local])
        return self.distinct(positive[local], own, len(positive))

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """The discriminator's step and, if μ > 0, the generators' step.

        With several processes the reference's adversarial weighting runs over this one's part instead of the whole
        batch.
        """
        local, share = local_slice(batch.whole)
        terms = self.discriminator_loss(batch, self._noise(batch.whole, local))
        if "rows" in self.optimizers:
            self.optimizers["rows"].zero_grad(set_to_none=True)
        optimizer_step(share * added(terms.values()), self.discriminating, self.optimizers["model"])
        if "rows" in self.optimizers:
            self.optimizers["rows"].step()
        if self.model.generators:
            terms["generator"] = self.generator_loss(batch.positive, self._noise(batch.whole, local))
            optimizer_step(
                share * terms["generator"], self.model.generators.parameters(), self.optimizers["generators"]
            )
        return {name: term.detach() for name, term in terms.items()}

    def _noise(self, number: int, local: slice) -> dict[str, tuple[Tensor, Tensor]]:
        drawn = self.model.noise(number, self.device)
        return {name: (head[local], tail[local]) for name, (head, tail) in drawn.items()}

    def discriminator_loss(self, batch: Batch, noise: dict[str, tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
        """Terms whose sum is the discriminator's loss: `link`, and `adversarial` = μ Σ L(f⁺, f_fake)."""
        with self.autocast():
            fused = self.model.fuse(batch.entity)
        head, relation, tail = batch.head, batch.positive[:, 1], batch.tail
        negatives = Negatives(batch.corrupt, batch.negatives.head)
        true, false = self.model.link_scores(fused.joint, head, relation, tail, negatives)
        terms = {"link": added(self_adversarial_loss(true, false, self.settings.adversarial_temperature))}
        if self.model.generators:
            _, fakes = self.model.fake_scores(fused[head], relation, fused[tail], noise)
            terms["adversarial"] = self.settings.adversarial_weight * added(
                self.adversarial_loss(true, fake) for fake in fakes
            )
        return terms

    def generator_loss(self, positive: Tensor, noise: dict[str, tuple[Tensor, Tensor]]) -> Tensor:
        """Σ L(f_fake, f⁺): the imitations should score above the true triples; for the generators' weights alone."""
        head, relation, tail = positive.unbind(1)
        with torch.no_grad(), self.autocast():
            ends = [self.model.fuse(side) for side in (head, tail)]
        true, fakes = self.model.fake_scores(ends[0], relation, ends[1], noise)
        # True scores are a column in the reference too, so each weighs 1 whatever `adversarial_weighting` says.
        return added(added(self_adversarial_loss(fake, true.detach()[:, None], 0.0)) for fake in fakes)

    def adversarial_loss(self, true: Tensor, fake: Tensor) -> Tensor:
        """L(f⁺, f_fake), both (B,): the link loss with one negative per triple.

        The reference's softmax runs over the batch, since its fake scores have one axis, so the loss is a weighted mean
        that the best fakes dominate; `per_triple` gives each the weight 1.
        """
        if self.settings.adversarial_weighting == "per_triple":
            fake = fake[:, None]
        return added(self_adversarial_loss(true, fake, self.settings.adversarial_temperature))

    def distinct(self, positive: Tensor, negatives: Negatives, whole: int) -> Batch:
        """`positive` (B, 3) of `whole` and their negatives with their distinct entities, which a GPU has to count.

        A graph that has hardly more entities than a step is fused whole.
        """
        head, _, tail = positive.unbind(1)
        drawn = negatives.entity.numel()
        if self.settings.negative_pool:
            drawn = min(drawn, self.settings.negative_pool)
        if self.settings.optimizer == "adam" and self.model.entities <= drawn + 2 * len(head):
            return Batch(positive, negatives, None, head, tail, negatives.entity, whole)
        entity, row = torch.unique(torch.cat([head, tail, negatives.entity.flatten()]), return_inverse=True)
        head, tail, corrupt = row.split([len(head), len(tail), negatives.entity.numel()])
        return Batch(positive, negatives, entity, head, tail, corrupt.view_as(negatives.entity), whole)
