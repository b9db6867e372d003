"""A tiny graph, settings that suit it, and a model trained on it."""

import dataclasses

import torch

from trainers.evaluation import ranking
from trainers.training import loop
from trainers.training.data import Data, Features, Tokens
from trainers.training.train import filter_index

ENTITIES, RELATIONS, CODES = 23, 3, 19


# Widths and rates that suit a tiny graph; a model takes those that it knows.
SMALL = {
    "batch_size": 16, "negatives": 8, "dimension": 16, "relation_dimension": 16, "hidden_dimension": 32,
    "learning_rate": 0.003, "feature_dimension": 16, "image_tokens": 4, "text_tokens": 3, "contrastive_rows": 8,
    "margin": 4.0, "structure_dropout": 0.0, "image_dropout": 0.0, "text_dropout": 0.0, "dropout": 0.0,
    "scorer_dropout": (0.0, 0.0, 0.0), "restart_epochs": 400,
}  # fmt: skip
# Mosaic's scorers are trained by Adagrad, whose steps become smaller.
RANKS = dict.fromkeys(("structure_ranks", "text_ranks", "image_ranks"), (16,))
OWN = {"trainers.models.mosaic": {"learning_rate": 0.1, **RANKS}}


def settings_of(module, **changes):
    """The model's settings for a tiny graph, with only the changes that it knows."""
    fields = {field.name: field for field in dataclasses.fields(module.Settings)}
    wanted = {**SMALL, **OWN.get(module.__name__, {}), **changes}
    values = {name: value for name, value in wanted.items() if name in fields}
    if isinstance(fields.get("dropout") and fields["dropout"].default, tuple):
        values["dropout"] = (0.0, 0.0, 0.0)
    return module.Settings(**values)


def tiny(seed: int = 0) -> Data:
    """A graph of 23 entities, some without a picture or a text, each picture and text with several tokens."""
    draw = torch.Generator().manual_seed(seed)
    head = torch.arange(ENTITIES)
    shifts = [1, 5, 7]  # relation r leads from an entity to the one that stands `shift` further: something to learn
    triples = torch.cat(
        [torch.stack([head, torch.full_like(head, r), (head + shift) % ENTITIES], 1) for r, shift in enumerate(shifts)]
    )
    triples = triples[torch.randperm(len(triples), generator=draw)]
    train, dev, test = triples[:55], triples[55:62], triples[62:]
    have = {"image": torch.arange(0, ENTITIES - 2), "text": torch.arange(3, ENTITIES)}
    features = {name: Features(ids, torch.randn(len(ids), 12, generator=draw)) for name, ids in have.items()}
    tokens = {}
    for name, ids in have.items():
        length = torch.randint(1, 6, (len(ids),), generator=draw)
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), length.cumsum(0)])
        values = torch.randint(0, CODES, (int(offsets[-1]),), generator=draw)
        tokens[name] = Tokens(ids, offsets, values, torch.arange(CODES), torch.randn(CODES, 12, generator=draw))
    return Data("tiny", ENTITIES, RELATIONS, train, dev, test, features, tokens)


def learner_of(module, data: Data, settings, seed: int = 0):
    model = module.build(data, settings, torch.Generator().manual_seed(seed))
    return module.Learner(model, data, settings, device=torch.device("cpu"), precision=torch.float32, seed=seed)


def fit(learner, data: Data, work, epochs: int, **changes) -> loop.Progress:
    known = filter_index(data)

    def measure(model):
        return ranking.metrics(ranking.rank(model.eval().scorer(), data.train, known, entities=ENTITIES))["mrr"]

    plan = {"evaluate_every": epochs, "patience": 0, "checkpoint_every": 0, **changes}
    return loop.fit(learner, measure, triples=len(data.train), epochs=epochs, seed=0, work=work, show=False, **plan)
