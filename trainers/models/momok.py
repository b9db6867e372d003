"""MoMoK (Zhang et al., 2024, arXiv 2405.16869): mixtures of relation-guided experts, one per modality, and a joint one.

Read top to bottom: experts (section 3.2 of the paper), fusion into the joint modality (3.3), mutual information between
experts (3.4), the model with its four TuckER scorers, its training. Sizes are named as in the docstrings of
trainers.training.kvsall; K is the number of experts, M that of modalities.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.settings import AtLeastOne, Count, Dropout, NotNegative
from trainers.about import About, PaperProtocol
from trainers.kernels import bce
from trainers.kernels.attention import attend
from trainers.kernels.dropout import dropout_linear
from trainers.parts import features
from trainers.parts.modules import Modules, ModuleSequence
from trainers.parts.scorer import ScoringModel, evaluating
from trainers.parts.tucker import DROPOUT, TuckERScorer
from trainers.training import processes
from trainers.training.data import Data
from trainers.training.kvsall import (
    Batch,
    Candidates,
    QueryLearner,
    draw_candidates,
    link_loss,
    seeded,
)
from trainers.training.optimizer import added, optimizer_step

ABOUT = About(
    name="MoMoK",
    papers=("zhang2025momok",),
    reads=("features",),
    protocol=PaperProtocol(
        "momok",
        ties="lot",
        choice="each metric's best on test",
        evaluate_every=100,
        nan_first=False,
        words="ties by lot; test looked at every 100 epochs and each metric reported at its own best epoch; the "
        "released split, known facts of all three files",
        epochs=2000,
        encoders="VGG16 pictures and BERT texts on DB15K (other pooled vectors on MKG-W and MKG-Y)",
    ),
    explains="gates",
)
HEADS = 2  # of the fusion
JOINT = "joint"
COLUMNS = 2048  # candidates compared at a time in evaluation


@dataclass(frozen=True)
class Settings:
    """The defaults are the paper's for DB15K."""

    epochs: AtLeastOne = 2000
    batch_size: AtLeastOne = 1024  # distinct queries (h, r), each with all its answers
    learning_rate: NotNegative = 5e-4
    modalities: tuple[Literal["structure", "text", "image"], ...] = ("structure", "text", "image")
    dimension: AtLeastOne = 256  # of structure and of the joint modality
    relation_dimension: AtLeastOne = 256
    feature_dimension: Count = 256  # features wider than this are pooled to it (trainers/parts/features.py); 0: never
    experts: AtLeastOne = 3  # 1: no mixture, and no mutual information
    information_weight: NotNegative = 1e-4  # weight of the mutual information between experts; 0: off
    missing: Literal["mean", "zero", "mask", "learned"] = "mean"  # what replaces a missing image or text
    candidates: AtLeastOne | None = None  # entities that a training query is compared with, drawn each step; None: all
    optimizer: Literal["adam", "lazy_adam"] = "adam"  # lazy_adam: of the tables only the rows of the step move
    dropout: tuple[Dropout, Dropout, Dropout] = DROPOUT  # of TuckER: input, matrix, output
    fusion_dropout: Dropout = 0.2
    gate_noise: bool = True  # noise on the experts' gates in training

    def __post_init__(self) -> None:
        if not self.modalities or len(set(self.modalities)) < len(self.modalities):
            raise ValueError("modalities needs at least one of structure, text, image, each once")
        if self.optimizer == "lazy_adam" and self.candidates is None:
            raise ValueError("optimizer: lazy_adam moves the rows of a step, which are all unless `candidates` is set")


class Experts(nn.Module):
    """K experts x ↦ W_k (x − b_k) and the gates that mix them (Eq. 3-5)."""

    def __init__(self, width: int, experts: int, *, noise: bool):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(experts, width, width) * 0.02)  # (K, D out, D in)
        self.bias = nn.Parameter(torch.zeros(experts, width))
        self.gate = nn.Parameter(torch.zeros(width, experts))
        self.noise = nn.Parameter(torch.zeros(width, experts))
        self.noisy = noise

    def gates(self, x: Tensor, temperature: Tensor | None = None) -> Tensor:
        """Weights (B, K) that add up to 1. `temperature` (B, 1): the relation's, before its sigmoid; None: 1."""
        logits = x @ self.gate
        if self.noisy and self.training:
            logits = logits + torch.randn_like(logits) * (F.softplus(x @ self.noise) + 0.01)
        if temperature is not None:
            logits = logits / torch.sigmoid(temperature)
        return torch.softmax(logits, dim=-1)

    def outputs(self, x: Tensor) -> Tensor:
        """What each expert makes of `x` (B, D): (B, K, D)."""
        shift = torch.einsum("kij,kj->ki", self.weight, self.bias)  # W(x − b) = Wx − Wb: one product for all experts
        return F.linear(x, self.weight.flatten(0, 1), -shift.flatten()).unflatten(1, shift.shape)

    def forward(self, x: Tensor, temperature: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The mixture (B, D), and the experts' outputs (B, K, D)."""
        outputs = self.outputs(x)
        return torch.bmm(self.gates(x, temperature).to(outputs).unsqueeze(1), outputs).squeeze(1), outputs


class Fusion(nn.Module):
    """Modalities to one joint vector: attention over them, in two heads that are added (Eq. 6-7)."""

    def __init__(self, widths: dict[str, int], width: int, dropout: float):
        super().__init__()
        self.dropout = dropout
        self.heads: ModuleSequence[Modules[nn.Linear]] = ModuleSequence(
            Modules({name: nn.Linear(each, width) for name, each in widths.items()}) for _ in range(HEADS)
        )
        self.attention = nn.Linear(width, 1, bias=False)

    def head(
        self, layers: Modules[nn.Linear], parts: dict[str, Tensor], present: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """One head: its vector (B, D) and its weights of the modalities (B, M)."""
        p = self.dropout if self.training else 0.0
        each = [dropout_linear(part, layers[name], p) for name, part in parts.items()]
        return attend(each, self.attention.weight[0], present)

    def forward(self, parts: dict[str, Tensor], present: Tensor | None = None) -> Tensor:
        """(B, D) of M parts (B, D_m). `present` (B, M) bool leaves a missing modality out of the attention."""
        return added(self.head(layers, parts, present)[0] for layers in self.heads)


class Club(nn.Module):
    """CLUB (Cheng et al., 2020, arXiv 2006.12013): an upper bound of the mutual information of two vectors."""

    def __init__(self, width: int):
        super().__init__()
        self.mean = nn.Sequential(nn.Linear(width, width // 2), nn.ReLU(), nn.Linear(width // 2, width))
        self.log_variance = nn.Sequential(
            nn.Linear(width, width // 2), nn.ReLU(), nn.Linear(width // 2, width), nn.Tanh()
        )

    def bound(self, x: Tensor, y: Tensor, permutation: Tensor) -> Tensor:
        """½ ⟨Σ [(μ − y_π)² − (μ − y)²] / e^lv⟩ for x, y (B, D) and a random permutation π (B,)."""
        mean, precision = self.mean(x), torch.exp(-self.log_variance(x))
        return (((mean - y[permutation]) ** 2 - (mean - y) ** 2) * precision).sum(1).mean() / 2

    def surprise(self, x: Tensor, y: Tensor) -> Tensor:
        """−log-likelihood of y given x, as the reference trains it: without the term lv itself."""
        return ((self.mean(x) - y) ** 2 * torch.exp(-self.log_variance(x))).sum(1).mean() / 2


class MoMoK(ScoringModel):
    def __init__(self, data: Data, settings: Settings):
        super().__init__()
        self.settings, self.entities, self.relations = settings, data.entities, data.relations
        self.tables: Modules[features.Structure | features.Pooled] = Modules(
            {name: self.table(name, data, settings) for name in settings.modalities}
        )
        widths = {name: table.width for name, table in self.tables.items()}
        rows, r_width = 2 * data.relations, settings.relation_dimension
        self.relation = nn.ParameterDict(
            {name: nn.init.xavier_normal_(nn.Parameter(torch.empty(rows, r_width))) for name in widths}
        )
        self.temperature = nn.Parameter(torch.randn(rows, 1))
        self.experts: Modules[Experts] = Modules(
            {name: Experts(width, settings.experts, noise=settings.gate_noise) for name, width in widths.items()}
        )
        self.scorers: Modules[TuckERScorer] = Modules(
            {name: TuckERScorer(width, r_width, dropout=settings.dropout) for name, width in widths.items()}
        )
        self.fuse_entity: Fusion | None = None
        self.fuse_relation: Fusion | None = None
        if len(widths) > 1:
            self.fuse_entity = Fusion(widths, settings.dimension, settings.fusion_dropout)
            self.fuse_relation = Fusion(dict.fromkeys(widths, r_width), settings.dimension, settings.fusion_dropout)
            self.scorers[JOINT] = TuckERScorer(settings.dimension, settings.dimension, dropout=settings.dropout)
        disentangle = settings.experts > 1 and settings.information_weight > 0
        self.estimators: Modules[Club] = Modules(
            {name: Club(width) for name, width in widths.items()} if disentangle else {}
        )

    @staticmethod
    def table(name: str, data: Data, settings: Settings) -> features.Structure | features.Pooled:
        """The entities' vectors in one modality."""
        sparse = settings.optimizer == "lazy_adam"
        if name == "structure":
            return features.Structure(data.entities, settings.dimension, sparse=sparse)
        width, missing = settings.feature_dimension, settings.missing
        return features.Pooled(data.features[name], data.entities, width, missing, sparse=sparse)

    def present(self, entities: Tensor | None) -> Tensor | None:
        """Who has which modality, (B, M) bool; None where a missing modality has a vector in its place."""
        if self.settings.missing != "mask":
            return None
        return torch.stack([table.present(entities) for table in self.tables.values()], dim=1)

    def represent(
        self, entities: Tensor | None, relation: Tensor | None = None
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Entities (B,), or all of them, as seen in each modality and jointly; and the experts' outputs (B, K, D).

        `relation` (B,) guides the gates of known entities; candidates have none.
        """
        temperature = None if relation is None else self.temperature[relation]
        seen, outputs = {}, {}
        for name, table in self.tables.items():
            seen[name], outputs[name] = self.experts[name](table(entities), temperature)
        if self.fuse_entity is not None:
            seen[JOINT] = self.fuse_entity(seen, self.present(entities))
        return seen, outputs

    def queries(self, known: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """What each scorer looks for, (B, D) each. A relation's matrix is made once, whatever its number of queries."""
        found = {
            name: self.scorers[name](known[name], table[batch.distinct], batch.index)
            for name, table in self.relation.items()
        }
        if self.fuse_relation is not None:
            # In training the fusion's dropout gives each query a joint relation of its own.
            per_query = self.training
            rows = batch.relation if per_query else batch.distinct
            fused = self.fuse_relation({name: table[rows] for name, table in self.relation.items()})
            found[JOINT] = self.scorers[JOINT](known[JOINT], fused, None if per_query else batch.index)
        return found

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The link loss (Eq. 11), summed over the scorers, and the experts' outputs for the known entities.

        With several processes it is this one's part of it, over its candidates.
        """
        known, outputs = self.represent(batch.known, batch.relation)
        found = self.queries(known, batch)
        among = draw_candidates(batch, self.entities, self.settings.candidates)
        with processes.own_draws(batch.known.device):
            seen, _ = self.represent(among.entity)
        losses = [
            link_loss(
                found[name],
                seen[name],
                among.row,
                among.answer,
                sampled=among.sampled,
                **self.counted(name, batch, among),
            )
            for name in found
        ]
        return added(losses), outputs

    def counted(self, name: str, batch: Batch, among: Candidates) -> dict[str, Any]:
        """With missing = "mask", a modality is trained on the entities that have it: what link_loss must leave out."""
        drawn = among.drawn
        if self.settings.missing != "mask" or name == JOINT:
            return {"entities": self.entities, "drawn": None if drawn is None else len(drawn)}
        table = self.tables[name]
        return {
            "entities": table.present(None).sum().clamp(min=1),  # perhaps no entity has it: then nothing is counted
            "drawn": None if drawn is None else table.present(drawn).sum().clamp(min=1),
            "rows": table.present(batch.known),
            "columns": table.present(among.entity),
        }

    def mutual_information(self, outputs: dict[str, Tensor], pair: tuple[int, int], permutation: Tensor) -> Tensor:
        """Mean over the modalities of CLUB's bound between two experts (Eq. 9), 0-d."""
        first, second = pair
        bounds = [
            self.estimators[name].bound(output[:, first], output[:, second], permutation)
            for name, output in outputs.items()
        ]
        return added(bounds) / len(bounds)

    def surprise(self, outputs: dict[str, Tensor], pair: tuple[int, int]) -> Tensor:
        """What the estimators minimise (Eq. 10), 0-d. `outputs` must be detached."""
        first, second = pair
        terms = [
            self.estimators[name].surprise(output[:, first], output[:, second]) for name, output in outputs.items()
        ]
        return added(terms) / len(terms)

    def grow(self, before: Data, after: Data, structure: Callable[[Tensor], Tensor]) -> None:
        """Room for the entities of `after` (trainers/parts/unseen.py)."""
        self.entities = after.entities
        for table in self.tables.values():
            if isinstance(table, features.Structure):
                table.table = nn.Parameter(structure(table.table))

    def sizes(self) -> tuple[int, int]:
        return self.entities, self.relations

    def prepare(self) -> "Prepared":
        seen, _ = self.represent(None)
        relation = dict(self.relation.items())
        if self.fuse_relation is not None:
            relation[JOINT] = self.fuse_relation(relation)
        return Prepared(seen, relation, self.present(None))

    def score(self, prepared: "Prepared", known: Tensor, relation: Tensor, side: str) -> Tensor:
        """The mean of the scorers' σ for every candidate, (B, E).

        With missing = "mask", the mean is over the modalities that both the known entity and the candidate have.
        """
        relation = relation + self.relations if side == "head" else relation
        seen, _ = self.represent(known, relation)
        queries = {name: self.scorers[name].ask(part, prepared.relation[name], relation) for name, part in seen.items()}
        scores = torch.zeros(len(known), self.entities, device=known.device)
        for start in range(0, self.entities, COLUMNS):
            columns = slice(start, start + COLUMNS)
            shares = prepared.shares(list(queries), known, columns)
            for (name, query), share in zip(queries.items(), shares, strict=True):
                bce.add_sigmoid_(scores[:, columns], query @ prepared.seen[name][columns].T, share)
        return scores

    @torch.inference_mode()
    def gates(self, relation: Tensor, known: Tensor | None = None) -> dict[str, Tensor]:
        """The experts' weights under relations (n,), 0 … 2R − 1: (n, K) a modality, without noise.

        For the known entities (n,) if given, else the mean over all entities.
        """
        found = {}
        for name, table in self.tables.items():
            logits = table(known).float() @ self.experts[name].gate
            heat = torch.sigmoid(self.temperature[relation])
            if known is not None:
                found[name] = torch.softmax(logits / heat, dim=1)
            else:
                found[name] = torch.stack([torch.softmax(logits / each, dim=1).mean(0) for each in heat])
        return found

    @torch.inference_mode()
    def modality_weights(self, known: Tensor, relation: Tensor) -> Tensor:
        """The fusion's weights (n, heads, M) of known entities under relations, both (n,); M as in the settings."""
        fuse = self.fuse_entity
        if fuse is None:
            raise ValueError("a model of one modality has no weights of modalities")
        with evaluating(self):
            seen, _ = self.represent(known, relation)
            parts = {name: seen[name] for name in self.tables}
            present = self.present(known)
            return torch.stack([fuse.head(one, parts, present)[1] for one in fuse.heads], dim=1)


@dataclass(frozen=True)
class Prepared:
    """What all queries share in evaluation, per modality and jointly."""

    seen: dict[str, Tensor]  # (E, D) the candidates
    relation: dict[str, Tensor]  # (2R, D_r)
    present: Tensor | None  # (E, M) bool: who has which modality; None: nothing is left out

    def shares(self, names: list[str], known: Tensor, columns: slice) -> list[Tensor | float]:
        """What each scorer counts for: equally much, or (B, C) equally much of those whose modality both sides have."""
        if self.present is None:
            return [1 / len(names)] * len(names)
        both = self.present[known].unsqueeze(1) & self.present[columns].unsqueeze(0)
        if JOINT in names:
            both = torch.cat([both, both.new_ones(*both.shape[:2], 1)], dim=2)
        return list((both / both.sum(2, keepdim=True).clamp(min=1)).unbind(2))


def build(data: Data, settings: Settings, generator: torch.Generator) -> MoMoK:
    """The model on the CPU, its random start drawn from `generator` alone."""
    with seeded(generator):
        return MoMoK(data, settings)


class Learner(QueryLearner):
    """Alternates: the model's step against the link loss and μ · MI, then the estimators' own step."""

    def __init__(self, model: MoMoK, data: Data, settings: Settings, **run: Any):
        super().__init__(model, data, settings, **run)
        self.trained = [value for name, value in model.named_parameters() if not name.startswith("estimators.")]
        lazy = settings.optimizer == "lazy_adam"
        tables = [one.table for one in model.tables.values() if lazy and len(one.table)]
        held = {id(one) for one in tables}
        self.optimizers["model"] = self.adam(one for one in self.trained if id(one) not in held)
        self.moved = ["model"] + ["rows"] * bool(tables)  # the optimisers of the model's own step
        if tables:
            self.optimizers["rows"] = self.lazy_adam(tables)
        if model.estimators:
            self.optimizers["estimators"] = self.adam(model.estimators.parameters())

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """Terms `link`, `mutual_information` (times μ) and `estimators`.

        With several processes all take the whole batch, since the scorers normalise over it, and each compares it with
        its part of the candidates; the noise on these (of the gates, of the fusion's dropout) is then each one's own.
        """
        with self.autocast():
            link, outputs = self.model(batch)
            terms = {"link": link}
            if self.model.estimators:
                order = torch.randperm(len(batch.known), device=self.device)
                terms["mutual_information"] = self.settings.information_weight * self.model.mutual_information(
                    outputs, self.pair(), order
                )
        # The processes' link losses add up to the loss, the other terms are the same everywhere, and `optimizer_step`
        # takes the mean of the gradients.
        loss = sum((processes.count() if name == "link" else 1) * term for name, term in terms.items())
        optimizer_step(loss, self.trained, *(self.optimizers[name] for name in self.moved))
        terms["link"] = processes.total(link)
        if self.model.estimators:
            terms["estimators"] = self.train_estimators(batch)
        return {name: term.detach() for name, term in terms.items()}

    def train_estimators(self, batch: Batch) -> Tensor:
        """One step of the estimators on what the experts, as they now are, make of the batch."""
        pair = self.pair()
        with self.autocast():
            with torch.no_grad():
                outputs = {
                    name: self.model.experts[name].outputs(t(batch.known)) for name, t in self.model.tables.items()
                }
            loss = self.model.surprise(outputs, pair)
        optimizer_step(loss, self.model.estimators.parameters(), self.optimizers["estimators"])
        return loss

    def pair(self) -> tuple[int, int]:
        """Two different experts, drawn on the CPU so that a GPU need not be waited for."""
        first, second = torch.randperm(self.settings.experts)[:2].tolist()
        return first, second
