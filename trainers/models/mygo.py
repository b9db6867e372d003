"""MyGO: entities as short sequences of image and text tokens (Zhang et al., arXiv 2404.09468).

Tokens: every entity is the sequence [ENT]; structure; image tokens; text tokens. One Transformer layer's output at
[ENT] is its embedding (the paper's cross-modal entity encoder). Triples: a query is three vectors, one of them a
learned unknown, through a second Transformer; TuckER makes one vector of its output and compares it with all entities
(hierarchical triple modeling). Views: a fine-grained contrastive loss pulls an entity's embedding towards means of its
sequence under another dropout.

The same numbers as the reference code, with less work: [ENT] is the same vector for every entity, so its attention
logits are x·(W_kᵀ q), the value projection follows the weighted sum, and only that place goes through the feed-forward
network; a token is projected and normalised once for each row of the codebook in use (the dropout falls on the places,
as in the reference); the contrastive pass encodes the rows it compares, not all entities.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.settings import AtLeastOne, Dropout, NotNegative, Positive
from trainers.about import About, PaperProtocol
from trainers.kernels.cross_entropy import linear_cross_entropy
from trainers.kernels.dropout import dropout
from trainers.kernels.ent_attention import Segment, mix, plain_weights
from trainers.parts.contrastive import info_nce
from trainers.parts.modules import Modules, ModuleSequence
from trainers.parts.scorer import ScoringModel, evaluating
from trainers.parts.token_selection import Selection, select
from trainers.parts.transformer import TransformerLayer
from trainers.parts.tucker import DROPOUT, TuckERScorer
from trainers.training import learner, prefetch, processes
from trainers.training.data import Data, Tokens
from trainers.training.optimizer import added, optimizer_step
from trainers.training.prefetch import moved
from trainers.training.sampling import local_slice, without_repetition

ABOUT = About(
    name="MyGO",
    papers=("zhang2025mygo",),
    reads=("tokens",),
    protocol=PaperProtocol(
        "mygo",
        ties="half",
        choice="best MRR on test",
        evaluate_every=50,
        nan_first=True,
        words="behind half of the tied rivals, rounded down; test looked at every 50 epochs and the epoch of the "
        "best MRR reported; the released split, known facts of all three files",
        epochs=1500,
        encoders="BEiT v2 picture tokens and BERT text tokens (LLaMA on MKG-Y)",
    ),
    explains="attention",
)
QUERIES = 1024  # taken together in evaluation
STRUCTURE, TOKENS = "structure", ("image", "text")


@dataclass(frozen=True)
class Settings:
    """What a user chooses; the defaults are the paper's for DB15K."""

    epochs: AtLeastOne = 1500
    batch_size: AtLeastOne = 2048
    modalities: tuple[Literal["structure", "text", "image"], ...] = ("structure", "text", "image")
    learning_rate: Positive = 1e-3
    restart_epochs: AtLeastOne = 50  # the cosine schedule starts anew after these epochs, then after twice as many, ...
    clip: Positive = 0.1  # largest norm of the gradient
    dimension: AtLeastOne = 256  # width D
    hidden_dimension: AtLeastOne = 1024  # width of the feed-forward networks
    heads: AtLeastOne = 2
    decoder_layers: AtLeastOne = 1
    image_tokens: AtLeastOne = 8  # tokens per entity, most frequent first
    text_tokens: AtLeastOne = 4
    dropout: Dropout = 0.01  # inside the Transformers
    structure_dropout: Dropout = 0.6
    image_dropout: Dropout = 0.3
    text_dropout: Dropout = 0.1
    scorer_dropout: tuple[Dropout, Dropout, Dropout] = DROPOUT  # of TuckER: on its input, its matrix, its output
    contrastive_weight: NotNegative = 0.01  # weight of the contrastive loss; 0 switches it off
    contrastive_rows: AtLeastOne = 512
    temperature: Positive = 0.5
    contrastive_text_view: Literal["reference", "all_tokens"] = "reference"  # reference: without its last token
    contrastive_means: Literal["reference", "unmasked"] = "reference"  # reference: places without a token count too
    candidates: AtLeastOne | None = None  # entities that a training query is compared with, drawn each step; None: all
    optimizer: Literal["adam", "lazy_adam"] = "adam"  # lazy_adam: of the structure only the rows of the step move

    def __post_init__(self) -> None:
        if self.optimizer == "lazy_adam" and self.candidates is None:
            raise ValueError("optimizer: lazy_adam moves the rows of a step, which are all unless `candidates` is set")
        if not self.modalities or len(set(self.modalities)) < len(self.modalities):
            raise ValueError("modalities needs at least one of structure, text, image, each once")
        if self.dimension % self.heads:
            raise ValueError(f"heads ({self.heads}) must divide dimension ({self.dimension})")
        reference_view = self.contrastive_weight and self.contrastive_text_view == "reference"
        if "text" in self.modalities and reference_view and self.text_tokens < 2:
            raise ValueError(
                "text_tokens (1) leaves no token where `contrastive_text_view: reference` drops the last; take 2, or "
                "all_tokens"
            )


@dataclass(frozen=True)
class Batch:
    """One step's queries and rows.

    Entities are numbered by `entities` where it is given (those that this step encodes), else by their ids.
    """

    known: Tensor  # (B,) int64
    relation: Tensor  # (B,) int64
    target: Tensor  # (B,) int64, the hidden entity
    hides_tail: Tensor  # (B,) bool; else the head is hidden
    contrasted: Tensor | None  # (n,) int64; the number of entities means the unknown-vector
    entities: Tensor | None  # (N,) int64 ids, ascending
    negatives: Tensor | None  # (n,) int64, sampled candidates

    def to(self, device: torch.device) -> "Batch":
        return replace(self, **{name: moved(part, device) for name, part in vars(self).items() if part is not None})


def build(data: Data, settings: Settings, generator: torch.Generator) -> "MyGO":
    """The model on the CPU, its weights drawn from `generator`.

    Raises UserError if the settings contradict one another or the data.
    """
    counts = {"image": settings.image_tokens, "text": settings.text_tokens}
    selections: dict[str, Selection] = {
        which: select(data.tokens[which], data.entities, counts[which])
        for which in TOKENS
        if which in settings.modalities
    }
    return MyGO(data.entities, data.relations, selections, settings, generator)


class TokenEmbedding(nn.Module):
    """One modality's tokens: a frozen codebook, a projection to width D with LayerNorm, and the modality's bias."""

    index: Tensor
    absent: Tensor
    codebook: Tensor

    def __init__(self, selection: Selection, width: int, p: float, generator: torch.Generator):
        super().__init__()
        self.p = p
        self.register_buffer("index", selection.index)  # (E, m) rows of the codebook
        self.register_buffer("absent", selection.absent)  # (E, m) bool
        self.register_buffer("codebook", selection.codebook)  # (U, W)
        self.project = nn.Linear(selection.codebook.shape[1], width, device="meta").to_empty(device="cpu")
        nn.init.xavier_uniform_(self.project.weight, generator=generator)
        bound = selection.codebook.shape[1] ** -0.5
        nn.init.uniform_(self.project.bias, -bound, bound, generator=generator)
        self.norm = nn.LayerNorm(width)
        self.bias = nn.Parameter(uniform((width,), math.sqrt(3 / width), generator))

    def vectors(self) -> Tensor:
        """(U, D): every codebook row in use, projected and normalised."""
        return self.norm(self.project(self.codebook))

    def replace_modality(self, before: Tokens, after: Tokens, entities: int, stand_in: object = None) -> None:
        """Let the entities have the tokens of `after`: none of them is trained, only how they are projected."""
        chosen = select(after, entities, self.index.shape[1])
        for name in ("index", "absent", "codebook"):
            setattr(self, name, getattr(chosen, name).to(self.index.device))

    def _load_from_state_dict(self, state: dict, prefix: str, *rest: object) -> None:
        # How many rows of the codebook are in use is known to the checkpoint, not to the settings.
        found = state.get(prefix + "codebook")
        if found is not None and found.shape[1:] == self.codebook.shape[1:]:
            self.codebook = self.codebook.new_empty(found.shape)
        super()._load_from_state_dict(state, prefix, *rest)


class MyGO(ScoringModel):
    """The whole model; `encoder` and `decoder` are Transformer layers."""

    def __init__(
        self,
        entities: int,
        relations: int,
        selections: dict[str, Selection],
        settings: Settings,
        generator: torch.Generator,
    ):
        super().__init__()
        self.entities, self.width, self.settings = entities, settings.dimension, settings
        width = settings.dimension
        vector = math.sqrt(3 / width)  # what Xavier's rule gives for a (1, 1, D) tensor
        self.ent_token = nn.Parameter(uniform((width,), vector, generator))
        self.unknown = nn.Parameter(uniform((width,), math.sqrt(6 / (width + 1)), generator))
        self.has_structure = STRUCTURE in settings.modalities
        self.sparse = settings.optimizer == "lazy_adam"
        if self.has_structure:
            self.structure = nn.Parameter(
                uniform((entities, width), math.sqrt(6 / (width * (1 + entities))), generator)
            )
            self.structure_norm = nn.LayerNorm(width)
            self.structure_bias = nn.Parameter(uniform((width,), vector, generator))
        drops = {"image": settings.image_dropout, "text": settings.text_dropout}
        self.tokens: Modules[TokenEmbedding] = Modules(
            {which: TokenEmbedding(one, width, drops[which], generator) for which, one in selections.items()}
        )
        self.relation = nn.Parameter(uniform((relations, width), math.sqrt(6 / (width * (1 + relations))), generator))
        self.relation_norm = nn.LayerNorm(width)
        self.position = nn.Parameter(uniform((3, width), vector, generator))  # head, relation, tail
        layer = (width, settings.heads, settings.hidden_dimension, settings.dropout, generator)
        self.encoder = TransformerLayer(*layer)
        self.decoder: ModuleSequence[TransformerLayer] = ModuleSequence(
            TransformerLayer(*layer) for _ in range(settings.decoder_layers)
        )
        self.tucker = TuckERScorer(width, width, dropout=settings.scorer_dropout, generator=generator)

    # The parts of an entity's sequence

    def token_vectors(self) -> dict[str, Tensor]:
        """(U, D) for each token modality: all codebook rows in use, ready to be gathered."""
        return {which: embedding.vectors() for which, embedding in self.tokens.items()}

    def segments(self, vectors: dict[str, Tensor], rows: Tensor | None) -> list[Segment]:
        """What follows [ENT] in the sequences of the entities `rows` (None: all), before their biases."""
        found = []
        if self.has_structure:
            table: Tensor = self.structure
            if rows is not None:
                table = F.embedding(rows, table, sparse=True) if self.sparse else table[rows]
            found.append(Segment(self.structure_norm(table), None, None, self.drop(self.settings.structure_dropout)))
        for which, embedding in self.tokens.items():
            index, absent = embedding.index, embedding.absent
            if rows is not None:
                index, absent = index[rows], absent[rows]
            found.append(Segment(vectors[which], index, absent, self.drop(embedding.p)))
        return found

    def biases(self) -> Tensor:
        """(1 + segments, D): the [ENT] vector, then what each segment adds to its places."""
        structure = [self.structure_bias] if self.has_structure else []
        return torch.stack([self.ent_token, *structure, *(embedding.bias for embedding in self.tokens.values())])

    def drop(self, p: float) -> float:
        """The dropout probability that holds now: none in evaluation."""
        return p if self.training else 0.0

    # Entities

    def embed(self, vectors: dict[str, Tensor], rows: Tensor | None = None) -> Tensor:
        """Embeddings (N, D) of the entities `rows` (None: all): the encoder's output at [ENT], and nothing else."""
        attention = self.encoder.self_attn
        direction, biases = self.key_directions(), self.biases()
        segments = self.segments(vectors, rows)
        mixed, share = mix(segments, direction, direction @ biases.T, self.drop(self.settings.dropout))
        mixed = mixed + share @ biases  # (N, heads, D): Σ_t a_t x_t
        w_v = attention.in_proj_weight[2 * self.width :].unflatten(0, (attention.num_heads, -1))
        b_v = attention.in_proj_bias[2 * self.width :].unflatten(0, (attention.num_heads, -1))
        values = torch.einsum("nhi,hoi->nho", mixed, w_v) + share.sum(-1, keepdim=True) * b_v
        return self.encoder.finish(self.ent_token, values.flatten(1))

    def key_directions(self) -> Tensor:
        """(heads, D): W_kᵀ q / √d of the [ENT] query. The keys' bias is the same for all places: softmax drops it."""
        attention, width = self.encoder.self_attn, self.width
        heads = attention.num_heads
        query = F.linear(self.ent_token, attention.in_proj_weight[:width], attention.in_proj_bias[:width])
        w_k = attention.in_proj_weight[width : 2 * width].unflatten(0, (heads, -1))
        return torch.einsum("hd,hdi->hi", query.unflatten(0, (heads, -1)), w_k) / math.sqrt(width // heads)

    def sequences(self, vectors: dict[str, Tensor], rows: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """The whole sequences (N, T, D) before and after the encoder, and where there is no token (N, T)."""
        segments, biases = self.segments(vectors, rows), self.biases()
        values = [segment.values() + bias for segment, bias in zip(segments, biases[1:], strict=True)]
        x = torch.cat([self.ent_token.expand(len(values[0]), 1, -1), *values], dim=1)
        absent = self.absent(rows)
        return x, self.encoder.at(x, absent), absent

    def absent(self, rows: Tensor | None) -> Tensor:
        """Where the sequences (N, T) of the entities `rows` (None: all) have no token; bool."""
        own = torch.zeros(
            self.entities if rows is None else len(rows), 1 + self.has_structure, dtype=torch.bool,
            device=self.ent_token.device,
        )  # fmt: skip
        tokens = (one.absent if rows is None else one.absent[rows] for one in self.tokens.values())
        return torch.cat([own, *tokens], dim=1)

    def relations(self) -> Tensor:
        """Relation vectors (R, D)."""
        return dropout(self.relation_norm(self.relation), self.drop(self.settings.structure_dropout))

    # Queries

    def query(self, known: Tensor, relation: Tensor, hides_tail: Tensor) -> Tensor:
        """Query vectors (B, D) of `known` entities' embeddings (B, D), `relation` vectors (B, D), hidden side (B,)."""
        if not self.training:
            x = self.decode(known, relation, hides_tail)
        else:
            x = processes.spread(
                lambda rows: self.decode(known[rows], relation[rows], hides_tail[rows]), len(known), known.device
            )
        return self.tucker(x[:, 0], x[:, 1])

    def decode(self, known: Tensor, relation: Tensor, hides_tail: Tensor) -> Tensor:
        """The second Transformer's outputs (B, 2, D) at the unknown and at the relation; arguments as of `query`."""
        head, middle, tail = self.position
        hidden = hides_tail.unsqueeze(1)
        unknown = self.unknown + torch.where(hidden, tail, head)
        x = torch.stack([unknown, relation + middle, known + torch.where(hidden, head, tail)], dim=1)
        last = len(self.decoder) - 1
        for position, layer in enumerate(self.decoder):
            x = layer.at(x, queries=2 if position == last else None)
        return x

    # Losses

    def contrastive(self, first: Tensor, vectors: dict[str, Tensor], rows: Tensor, entities: Tensor | None) -> Tensor:
        """The fine-grained contrastive loss of `rows` (n,): InfoNCE between `first` (N, D) and four views.

        A row N is the unknown-vector, which is its own view.
        """
        count = first.shape[0]
        unknown = rows == count
        ids = rows.clamp(max=count - 1)
        rows_of = ids if entities is None else entities[ids]
        x = processes.spread(lambda part: self.sequences(vectors, rows_of[part])[1], len(ids), ids.device)
        absent = self.absent(rows_of)
        anchors = torch.where(unknown[:, None], self.unknown, first[ids])
        losses = []
        for view, present in self.views(x, absent):
            view = torch.where(unknown[:, None], self.unknown, view)
            losses.append(info_nce(anchors, view, present | unknown, self.settings.temperature))
        return torch.stack(losses).mean()

    def views(self, x: Tensor, absent: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Each view (n, D) of the sequences (n, T, D), and which rows have it (n,)."""
        ones = torch.ones_like(absent[:, 0])
        unmasked = self.settings.contrastive_means == "unmasked"
        found = [(x[:, 0], ones)]
        for part in self.view_places():
            if not unmasked:
                found.append((x[:, part].mean(1), ones))
                continue
            there = (~absent[:, part]).unsqueeze(-1)
            count = there.sum(1)
            found.append(((x[:, part] * there).sum(1) / count.clamp(min=1), count[:, 0] > 0))
        return found

    def view_places(self) -> list[slice]:
        """The places that each mean goes over: the whole sequence, image tokens, text tokens."""
        places, start = [slice(None)], 1 + self.has_structure
        for which, embedding in self.tokens.items():
            m = embedding.index.shape[1]
            drops_last = which == "text" and self.settings.contrastive_text_view == "reference"
            places.append(slice(start, start + m - drops_last))
            start += m
        return places

    # Use

    def grow(self, before: Data, after: Data, structure: Callable[[Tensor], Tensor]) -> None:
        self.entities = after.entities
        if self.has_structure:
            self.structure = nn.Parameter(structure(self.structure))

    def sizes(self) -> tuple[int, int]:
        return self.entities, len(self.relation)

    def prepare(self) -> tuple[Tensor, Tensor]:
        """Embeddings (E, D) of all entities, and (R, D) of all relations."""
        return self.all_embeddings(), self.relations()

    def score(self, prepared: tuple[Tensor, Tensor], known: Tensor, relation: Tensor, side: str) -> Tensor:
        entities, relations = prepared
        result = torch.empty(len(known), len(entities), device=entities.device)
        for start in range(0, len(known), QUERIES):
            rows = slice(start, start + QUERIES)
            hides_tail = torch.full_like(known[rows], side == "tail", dtype=torch.bool)
            query = self.query(entities[known[rows]], relations[relation[rows]], hides_tail)
            torch.mm(query, entities.T, out=result[rows])
        return result

    def all_embeddings(self, block: int = 4096) -> Tensor:
        """Embeddings (E, D) of all entities, `block` at a time."""
        vectors = self.token_vectors()
        every = torch.arange(self.entities, device=self.ent_token.device)
        return torch.cat([self.embed(vectors, rows) for rows in every.split(block)])

    @torch.inference_mode()
    def attention(self, rows: Tensor | None = None) -> Tensor:
        """How [ENT] attends to its sequence, mean over heads: (n, T); T: [ENT], structure, image tokens, text tokens.

        Of the entities `rows` (n,), or of all. Rows sum to 1; a place without a token has 0.
        """
        with evaluating(self):
            segments, direction = self.segments(self.token_vectors(), rows), self.key_directions()
            values = [segment.values() for segment in segments]
            return plain_weights(segments, values, direction, direction @ self.biases().T).mean(1)


def uniform(shape: tuple[int, ...], bound: float, generator: torch.Generator) -> Tensor:
    """A tensor drawn uniformly from ±bound."""
    return torch.empty(shape).uniform_(-bound, bound, generator=generator)


class Learner(learner.Learner):
    """MyGO in training: Adam, gradients clipped, cosine warm restarts stepped once per epoch."""

    def __init__(self, model: MyGO, data: Data, settings: Settings, **run: Any):
        super().__init__(model, data, settings, **run)
        self.triples, self.entities = data.train, data.entities
        tables = [model.structure] if model.sparse and model.has_structure else []
        lazy = {id(one) for one in tables}
        self.optimizers["model"] = self.adam(one for one in model.parameters() if id(one) not in lazy)
        if tables:
            self.optimizers["rows"] = self.lazy_adam(tables)
        restarts = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts
        for name, optimizer in self.optimizers.items():
            self.schedulers[name] = restarts(optimizer, settings.restart_epochs, T_mult=2)

    @property
    def steps_per_epoch(self) -> int:
        return len(self._sizes())

    def _sizes(self) -> list[int]:
        """Batch sizes of an epoch. A last batch of one joins the one before: one row has no statistics of its own."""
        full, rest = divmod(len(self.triples), self.settings.batch_size)
        sizes = [self.settings.batch_size] * full + [rest] * (rest > 0)
        if len(sizes) > 1 and sizes[-1] == 1:
            sizes[-2:] = [sizes[-2] + 1]
        return sizes

    def batches(self, epoch: int) -> Iterator[Batch]:
        """The epoch's batches, a function of (seed, epoch): order, hidden side, contrasted rows, sampled candidates."""
        return prefetch.ahead(self._batches(epoch), self.device)

    def _batches(self, epoch: int) -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        order = torch.randperm(len(self.triples), generator=generator)
        hides_tail = torch.rand(len(self.triples), generator=generator) < 0.5
        for rows in order.split(self._sizes()):
            yield self._batch(self.triples[rows], hides_tail[rows], generator)

    def _batch(self, triples: Tensor, hides_tail: Tensor, generator: torch.Generator) -> Batch:
        head, relation, tail = triples.unbind(1)
        known, target = torch.where(hides_tail, head, tail), torch.where(hides_tail, tail, head)
        entities = negatives = contrasted = None
        if self.settings.contrastive_weight:
            contrasted = without_repetition(self.entities + 1, self.settings.contrastive_rows, generator)
        if self.settings.candidates is not None:
            negatives = without_repetition(self.entities, self.settings.candidates, generator)
            wanted = [known, target, negatives] + ([] if contrasted is None else [contrasted])
            entities = torch.unique(torch.cat(wanted))
            entities = entities[entities < self.entities]
            known, target, negatives = (torch.searchsorted(entities, ids) for ids in (known, target, negatives))
            contrasted = None if contrasted is None else torch.searchsorted(entities, contrasted)
        return Batch(known, relation, target, hides_tail, contrasted, entities, negatives).to(self.device)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """The loss terms of one batch, `link` and `contrastive`, the latter times μ; the loss is their sum."""
        model = self.model
        with self.autocast():
            vectors = model.token_vectors()
            first = self.embed(vectors, batch.entities)
            query = model.query(first[batch.known], model.relations()[batch.relation], batch.hides_tail)
            terms = {"link": self.link(query, first, batch)}
            if batch.contrasted is not None:
                contrastive = model.contrastive(first, vectors, batch.contrasted, batch.entities)
                terms["contrastive"] = self.settings.contrastive_weight * contrastive
        return terms

    def embed(self, vectors: dict[str, Tensor], rows: Tensor | None) -> Tensor:
        """Embeddings (N, D) of the entities `rows` (None: all), of which each process makes its part."""
        if not processes.together():
            return self.model.embed(vectors, rows)
        rows = torch.arange(self.entities, device=self.device) if rows is None else rows
        return processes.spread(lambda part: self.model.embed(vectors, rows[part]), len(rows), self.device)

    def link(self, query: Tensor, first: Tensor, batch: Batch) -> Tensor:
        """Cross entropy of the hidden entity among all, or among sampled ones; this process's share of it.

        Sampled: Σ_{e ≠ target} exp(s_e) is estimated without bias by E/n times its sum over n entities drawn uniformly
        without replacement (Horvitz-Thompson), the target itself left out.
        """
        part, share = local_slice(len(query))
        query, target = query[part], batch.target[part]
        if batch.negatives is None:
            return share * linear_cross_entropy(query, first, target)
        own = (query * first[target]).sum(1, keepdim=True)
        others = query @ first[batch.negatives].T + math.log(self.entities / len(batch.negatives))
        others = others.masked_fill(batch.negatives == target[:, None], -math.inf)
        logits = torch.cat([own, others], dim=1).float()
        return share * F.cross_entropy(logits, torch.zeros_like(target))

    def step(self, batch: Batch) -> dict[str, Tensor]:
        terms = self.losses(batch)
        optimizer_step(
            added(terms.values()), self.model.parameters(), *self.optimizers.values(), clip=self.settings.clip
        )
        terms["link"] = processes.total(terms["link"]) / processes.count()
        return {name: term.detach() for name, term in terms.items()}
