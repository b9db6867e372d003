"""Score tables, facts and test triples for trying the evaluator."""

import torch

from pipeline.graph.filter_index import FilterIndex
from trainers.evaluation import ranking

ENTITIES, RELATIONS = 37, 4


def random_triples(count, seed, entities=ENTITIES):
    generator = torch.Generator().manual_seed(seed)
    bounds = torch.tensor([entities, RELATIONS, entities])
    return (torch.rand((count, 3), generator=generator, dtype=torch.float64) * bounds).long().unique(dim=0)


class Table:
    """A scorer that looks its scores up: (2, E, R, E) by side, known entity, relation, candidate."""

    def __init__(self, values):
        self.values = values
        self.asked = []

    def __call__(self, known, relation, side):
        self.asked += [(side, *query) for query in zip(known.tolist(), relation.tolist(), strict=True)]
        return self.values[int(side == "head"), known, relation]


def table_of(make, entities=ENTITIES):
    return Table(make((2, entities, RELATIONS, entities)).float())


def coarse_scores(seed=0, levels=5):
    generator = torch.Generator().manual_seed(seed)
    return table_of(lambda shape: torch.randint(0, levels, shape, generator=generator))


def facts_and_test(seed=1, entities=ENTITIES):
    facts = random_triples(900, seed, entities)
    order = torch.randperm(len(facts), generator=torch.Generator().manual_seed(seed))
    return facts, facts[order[:150]]


def ranked(score, test, facts, entities=ENTITIES, **options):
    return ranking.rank(score, test, FilterIndex.build(facts, entities, RELATIONS), entities=entities, **options)
