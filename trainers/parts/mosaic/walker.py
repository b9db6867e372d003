"""The walker: a scorer that learns which ways through the graph lead to answers, whoever the entities on them are.

It has no vector of an entity, so it knows as much of a new entity as that one's facts say. Per layer l and query
relation q, an edge of relation r multiplies what it carries by own_l[r] + begin[q] · by_query_l (Zhu et al. 2021, arXiv
2106.06935, section 3.3); see trainers/kernels/walker.py for the rest.

A training fact that is asked for is hidden from the walk that looks for it, in both directions: else its edge would be
the answer. So is its mark: how many edges an entity has is counted without it.

In training it alone makes a GPU wait: which edges a lot of queries hides, and where its walks lead, has sizes that the
host has to be told.
"""

import torch
from torch import Tensor, nn

from trainers.kernels import walker
from trainers.kernels.walker import Edges, Layers, Queries
from trainers.parts.mosaic.facts import Facts

SPREAD = 0.1  # of what differs between relations at the start
CLIP = 1.0  # longest gradient of a step


class Ways:
    """The training facts as the walker needs them: edges by where they lead, answers by question."""

    def __init__(self, facts: Facts, device: torch.device):
        self.facts, self.device = facts, device

        def there(array, kind: torch.dtype) -> Tensor:
            return torch.from_numpy(array).to(device, kind)

        # What leaves an entity, read backwards, is what leads to it.
        most = int(facts.degree.max(initial=0))
        self.edges = Edges(
            there(facts.first_edge, torch.int64), there(facts.target, torch.int32),
            there(facts.back(facts.relation), torch.int32), facts.relations,
            1 / (1 + torch.log1p(torch.arange(most + 1, device=device).float())),
        )  # fmt: skip
        self.target = there(facts.target, torch.int64)
        self._group_key, self._group_start = there(facts.group_key, torch.int64), there(facts.group_start, torch.int64)
        key = (facts.source * facts.relations + facts.relation) * facts.entities + facts.target
        self._key = there(key, torch.int64)

    def hidden(self, known: Tensor, relation: Tensor, answer: Tensor) -> Tensor:
        """(B, 2): the edges of facts (known, relation, answer), of which all are there, in both directions."""
        back = self.facts.back(relation)
        keys = torch.stack([self._keys(known, relation, answer), self._keys(answer, back, known)], 1)
        return torch.searchsorted(self._key, keys)

    def answers(self, known: Tensor, relation: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Entities (n,), first (B,) and last (B,): those of [first, last) answer the query, which has some."""
        group = torch.searchsorted(self._group_key, known * self.facts.relations + relation)
        return self.target, self._group_start[group], self._group_start[group + 1]

    def _keys(self, source: Tensor, relation: Tensor, target: Tensor) -> Tensor:
        return (source * self.facts.relations + relation) * self.facts.entities + target


class Walker(nn.Module):
    """`depth` layers of `width` numbers; relations below 2R."""

    def __init__(self, relations: int, depth: int, width: int, generator: torch.Generator):
        super().__init__()

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator)

        self.begin = nn.Parameter(normal(relations, width))
        self.ask = nn.Parameter(SPREAD * normal(relations, width))
        self.own = nn.Parameter(1 + SPREAD * normal(depth, relations, width))
        self.by_query = nn.Parameter(torch.zeros(depth, width, relations * width))
        bound = (3 * width) ** -0.5
        self.mix = nn.Parameter((2 * torch.rand(depth, width, 3 * width, generator=generator) - 1) * bound)
        self.bias, self.shift = (nn.Parameter(torch.zeros(depth, width)) for _ in range(2))
        self.gain = nn.Parameter(torch.ones(depth, width))

    def scores(self, ways: Ways, known: Tensor, relation: Tensor) -> Tensor:
        """(B, E) of queries (B,), (B,)."""
        nothing = torch.full((len(known), 2), -1, device=known.device)
        return walker.scores(ways.edges, self._layers(), self._queries(known, relation, nothing))

    def loss(self, ways: Ways, known: Tensor, relation: Tensor, answer: Tensor, dropout: float) -> Tensor:
        """Mean cross entropy of training facts (B,) each, 0-d; 0 of none. `dropout`: on what edges do."""
        hidden = ways.hidden(known, relation, answer)
        queries = self._queries(known, relation, hidden, dropout if self.training else 0.0)
        others = ways.answers(known, relation)
        return walker.losses(ways.edges, self._layers(), queries, answer, others).sum() / max(1, len(known))

    def _layers(self) -> Layers:
        return Layers(self.mix, self.bias, self.gain, self.shift)

    def _queries(self, known: Tensor, relation: Tensor, hidden: Tensor, dropout: float = 0.0) -> Queries:
        begin = self.begin[relation]
        depth, relations, width = self.own.shape
        varied = torch.einsum("bd,lde->ble", begin, self.by_query).view(len(known), depth, relations, width)
        weight = nn.functional.dropout(self.own + varied, dropout)
        return Queries(known, begin, self.ask[relation], weight, hidden)
