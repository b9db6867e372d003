"""Order of the training triples, and negatives drawn against them: which side is replaced, and by whom.

Everything is a tensor operation on whichever device the triples lie; nothing waits for the device, nothing is
rejected and drawn again, so a draw costs the same whatever it hits.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from trainers.training import processes

FEW = 64  # a draw of less than one number in so many does not shuffle all of them


def shuffled(number: int, batch_size: int, *, seed: int, epoch: int) -> Iterator[Tensor]:
    """Indices 0 … number−1 in the order of one epoch, in batches (B,) of `batch_size`, the last one perhaps smaller.

    A function of `seed` and `epoch` alone, so that an epoch can be repeated after an interruption.
    """
    order = torch.randperm(number, generator=torch.Generator().manual_seed(_mix(seed, epoch)))
    yield from order.split(batch_size)


def _mix(seed: int, epoch: int) -> int:
    return (seed * 0x9E3779B1 + epoch * 0x85EBCA77 + 0x27D4EB2F) % (1 << 63)


def without_repetition(
    number: int, size: int, generator: torch.Generator | None = None, device: torch.device | None = None
) -> Tensor:
    """(min(size, number),) int64: different ones of 0 … number−1, any such sequence as likely as any other.

    From many numbers few are drawn one after another, repetitions left out, so that a draw does not cost `number`.
    """
    if number <= FEW * size:
        return torch.randperm(number, generator=generator, device=device)[:size]
    # More than are needed, since some come twice. That too few are left is less likely than 10⁻²⁵, whatever the size,
    # so nothing asks the device whether it is so: an index out of range, which is an error, would say it.
    drawn = torch.randint(number, (size + size // 8 + 16,), generator=generator, device=device)
    order = torch.argsort(drawn, stable=True)
    first = torch.ones_like(drawn, dtype=torch.bool)
    first[1:] = drawn[order[1:]] != drawn[order[:-1]]
    places = torch.where(first, order, len(drawn)).sort().values[:size]  # of each number where it came first
    return drawn[places]


def counts(index: Tensor, number: int) -> Tensor:
    """(number,) float32: how often 0 … number−1 stand in `index` (n,), exact below 2²⁴.

    Unlike `bincount` it waits for no GPU to say how large the largest is. Sums of ones are the same in any order.
    """
    ones = torch.ones(len(index), device=index.device)
    return torch.zeros(number, device=index.device).index_add_(0, index, ones)


def local_slice(number: int) -> tuple[slice, float]:
    """This process' part of a batch of `number` rows, and the factor that makes its mean loss one share of the whole.

    With factor · loss on each process, the mean of the gradients over processes is the gradient of the whole batch's
    mean loss, also where the parts differ in size. Of a batch with fewer rows than processes each takes all.
    """
    if not processes.together() or number < processes.count():
        return slice(None), 1.0
    own = processes.part_of(number)
    return own, (own.stop - own.start) * processes.count() / number


@dataclass(frozen=True)
class NegativeIndex:
    """For one side: the known answers of each query, and draws from all other entities.

    A query's answers a_0 < a_1 < … leave E − m entities free, and the u-th free one is u + j where j counts the
    answers with a_i − i ≤ u. `gap` holds a_i − i of all queries after one another, shifted by the query's number so
    that one sorted search finds j for a whole batch.
    """

    key: Tensor  # (Q,) int64 ascending: the queries that have answers
    fact: Tensor  # (answers,) int64 ascending: query number · E + a_i
    start: Tensor  # (Q + 1,) int64: where a query's answers start
    gap: Tensor  # (answers,) int64 ascending: query number · (E + 1) + a_i − i
    entities: int

    @classmethod
    def build(cls, key: Tensor, answer: Tensor, entities: int) -> "NegativeIndex":
        """`key` (n,) int64 names the query of each known `answer` (n,) int64; repetitions are allowed."""
        fact = torch.unique(key * entities + answer)  # sorted
        queries, query, count = torch.unique_consecutive(fact // entities, return_inverse=True, return_counts=True)
        start = torch.cat([count.new_zeros(1), count.cumsum(0)])
        rank = torch.arange(len(fact), device=fact.device) - start[query]
        answer = fact % entities
        return cls(queries, query * entities + answer, start, query * (entities + 1) + answer - rank, entities)

    def holds(self, key: Tensor, entity: Tensor) -> Tensor:
        """(n, K) bool: whether `entity` (n, K) is a known answer of the query `key` (n,)."""
        if not len(self.key):
            return torch.zeros_like(entity, dtype=torch.bool)
        query = torch.searchsorted(self.key, key).clamp_(max=len(self.key) - 1)
        fact = query[:, None] * self.entities + entity
        place = torch.searchsorted(self.fact, fact).clamp_(max=len(self.fact) - 1)
        return (self.fact[place] == fact) & (self.key[query] == key)[:, None]

    def draw(self, key: Tensor, number: Tensor) -> Tensor:
        """Entities that are no known answers: `key` (n,) names queries, `number` (n, …) int64 ≥ 0 is random.

        A query that every entity answers gets any entity.
        """
        if not len(self.key):
            return number % self.entities
        query = torch.searchsorted(self.key, key).clamp_(max=len(self.key) - 1)
        known = self.key[query] == key
        start = self.start[query]
        left = self.entities - (self.start[query + 1] - start)
        known &= left > 0
        left = torch.where(known, left, self.entities)
        shape = (-1, *[1] * (number.dim() - 1))
        chosen = number % left.view(shape)
        passed = torch.searchsorted(self.gap, query.view(shape) * (self.entities + 1) + chosen, right=True)
        return torch.where(known.view(shape), chosen + passed - start.view(shape), chosen)


@dataclass(frozen=True)
class Negatives:
    """Corrupted triples: `entity` (B, K) int64 replaces the head where `head` (B, K) bool is True, else the tail."""

    entity: Tensor
    head: Tensor


class NegativeSampler:
    """Draws K corrupted triples for each positive: a side by Bernoulli's rule, an entity that makes no known triple.

    The head is replaced with probability tph / (tph + hpt) of the relation (tph: mean tails per head, hpt: mean heads
    per tail, counted on the known triples; TransH, Wang et al. 2014, section 3.2), so that the side with many right
    answers is replaced less often. `sides` "uniform" replaces both equally often, as is done for a relation without
    triples. Among the entities that make no known triple each is equally likely.
    """

    def __init__(
        self,
        triples: Tensor,
        *,
        entities: int,
        relations: int,
        sides: str = "bernoulli",
    ):
        """`triples` (n, 3) int64 are the known ones; they, and so all draws, may lie on any device."""
        if entities * relations >= 2**63 // max(entities, 1):
            raise ValueError("too many entities and relations for keys of 63 bits")
        head, relation, tail = triples.unbind(1)
        self.entities, self.relations = entities, relations
        self.tails = NegativeIndex.build(head * relations + relation, tail, entities)
        self.heads = NegativeIndex.build(tail * relations + relation, head, entities)
        if sides == "bernoulli":
            self.head_probability = bernoulli(triples, relations)
        elif sides == "uniform":
            self.head_probability = torch.full((relations,), 0.5, device=triples.device)
        else:
            raise ValueError(f"negative sides are 'bernoulli' or 'uniform', not {sides!r}")

    def __call__(
        self, positive: Tensor, count: int, generator: torch.Generator | None = None, *, pool: int = 0
    ) -> Negatives:
        """`count` (K) negatives for each of `positive` (B, 3) int64, from `generator` or the device's own.

        With a `pool`, so many entities are drawn once and all negatives come from them, which leaves each entity as
        likely as before but makes the draws of one call depend on each other; one that would make a known triple is
        replaced by a draw from all entities.
        """
        head, relation, tail = positive.unbind(1)
        shape, device = (len(positive), count), positive.device
        side = torch.rand(shape, generator=generator, device=device) < self.head_probability[relation, None]
        # 62 random bits: the remainder by a number of entities is even to 2^-31 at two billion of them.
        number = torch.randint(1 << 62, shape, generator=generator, device=device)
        answers_head, answers_tail = tail * self.relations + relation, head * self.relations + relation
        if pool:
            pooled = torch.randint(self.entities, (pool,), generator=generator, device=device)[number % pool]
            number = number // pool  # bits that the pool has not used
        free = torch.where(side, self.heads.draw(answers_head, number), self.tails.draw(answers_tail, number))
        if pool:
            known = torch.where(side, self.heads.holds(answers_head, pooled), self.tails.holds(answers_tail, pooled))
            free = torch.where(known, free, pooled)
        return Negatives(free, side)


def bernoulli(triples: Tensor, relations: int) -> Tensor:
    """(R,) float32: tph / (tph + hpt), the probability that the head is replaced; 0.5 for an unused relation."""
    head, relation, tail = triples.unbind(1)
    entities = int(triples[:, [0, 2]].max()) + 1 if len(triples) else 1
    # One number per pair: distinct numbers are found far faster than distinct rows.
    heads, tails = (
        torch.bincount(torch.unique(relation * entities + end) // entities, minlength=relations) for end in (head, tail)
    )
    # tph = n / heads and hpt = n / tails, so tph / (tph + hpt) = tails / (tails + heads).
    return torch.where(heads > 0, tails / (heads + tails).clamp(min=1), 0.5)


def self_adversarial_loss(positive: Tensor, negative: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """The two halves of the link loss, each a 0-d tensor: −½⟨log σ(f⁺)⟩ and −½⟨Σ_k softmax_k(τ f⁻_k) log σ(−f⁻_k)⟩.

    `positive` (B,) or (B, 1), `negative` (B, K) or (K,) scores; the softmax runs over the last axis and carries no
    gradient (RotatE, arXiv 1902.10197, equations 5 and 6). With temperature 0 all negatives count equally.
    """
    weight = torch.softmax(negative.detach() * temperature, dim=-1)
    hits = -torch.nn.functional.logsigmoid(positive).mean() / 2
    misses = -(weight * torch.nn.functional.logsigmoid(-negative)).sum(-1).mean() / 2
    return hits, misses


def uniform_(tensor: Tensor, bound: float, generator: torch.Generator) -> Tensor:
    """Fill in place with numbers uniform in ±bound."""
    with torch.no_grad():
        return tensor.uniform_(-bound, bound, generator=generator)


def linear_(layer: torch.nn.Linear, generator: torch.Generator) -> torch.nn.Linear:
    """Weights and bias uniform in ±1/√(inputs), torch's own start, but from `generator`."""
    bound = 1 / math.sqrt(layer.in_features)
    uniform_(layer.weight, bound, generator)
    if layer.bias is not None:
        uniform_(layer.bias, bound, generator)
    return layer
