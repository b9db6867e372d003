"""A tiny graph, settings that suit it, and a model trained on it."""

import dataclasses
from pathlib import Path

import numpy as np
import torch
from ruamel.yaml import YAML

from pipeline import tables
from trainers.evaluation import ranking
from trainers.training import loop
from trainers.training.data import Data, Features, Tokens
from trainers.training.train import filter_index

CONFIGS = Path(__file__).parents[2] / "configs/models"
ENTITIES, RELATIONS, CODES = 23, 3, 19


# Widths and rates that suit a tiny graph; a model takes those that it knows.
SMALL = {
    "batch_size": 16, "negatives": 8, "dimension": 16, "relation_dimension": 16, "hidden_dimension": 32,
    "learning_rate": 0.003, "feature_dimension": 16, "image_tokens": 4, "text_tokens": 3, "contrastive_rows": 8,
    "margin": 4.0, "structure_dropout": 0.0, "image_dropout": 0.0, "text_dropout": 0.0, "dropout": 0.0,
    "scorer_dropout": (0.0, 0.0, 0.0), "restart_epochs": 400,
}  # fmt: skip
# What tests take where they say nothing, for models whose defaults stand in configs/ alone: negative sampling.
STRUCTURE = {
    "objective": "negative_sampling", "epochs": 500, "evaluate_every": None, "batch_size": 1024, "answers_per_row": 8,
    "candidates": None, "negatives": 128, "negative_sides": "bernoulli", "dimension": 250, "reciprocal": False,
    "margin": 12.0, "adversarial_temperature": 1.0, "label_smoothing": 0.0, "optimizer": "adam", "learning_rate": 0.001,
    "init_scale": None, "regularizer": "n3", "regularization": 0.0, "schedule": "constant", "dropout": 0.0,
    "strangers": "own", "relation_prediction": 0.0, "norm": 1,
}  # fmt: skip
PRODUCT = {**STRUCTURE, "margin": 0.0, "regularization": 0.01}
ADAGRAD = {"objective": "one_vs_all", "optimizer": "adagrad", "learning_rate": 0.1}
# Mosaic's scorers are trained by Adagrad, whose steps become smaller.
RANKS = dict.fromkeys(("structure_ranks", "text_ranks", "image_ranks"), (16,))
PLAIN = {
    "transe": STRUCTURE, "rotate": STRUCTURE, "distmult": PRODUCT, "complex": PRODUCT,
    "cp": {**PRODUCT, **ADAGRAD, "reciprocal": True, "init_scale": 1e-3},
    "rescal": {**PRODUCT, **ADAGRAD, "regularizer": "dura", "dimension": 128},
    "tucker": {"epochs": 500, "batch_size": 1024, "learning_rate": 0.0005, "dimension": 256,
               "relation_dimension": 256, "dropout": (0.3, 0.4, 0.5), "candidates": None},
    "mosaic": {"epochs": 12, "evaluate_every": 2, "batch_size": 512, "answers_per_row": 8, "learning_rate": 0.1,
               "modalities": ("structure", "text", "image"), "structure_ranks": (200, 500), "text_ranks": (200,),
               "image_ranks": (200,), "regularization": 0.04, "dropout": 0.2, "view_scale": 0.2, "candidates": None,
               "rules_per_relation": 400, "fusion_penalty": 0.5, "fusion_from": None,
               "walker_layers": 3, "walker_width": 16, "walker_queries": 8, "walker_learning_rate": 0.005,
               "walker_dropout": 0.1},
}  # fmt: skip
OWN = {"mosaic": {"learning_rate": 0.1, **RANKS}}


def plain(module, **changes):
    """The model's settings, as `PLAIN` has them (or the model itself, or its config) where nothing is said."""
    fields = {field.name for field in dataclasses.fields(module.Settings)}
    given = PLAIN.get(name_of(module)) or configured(name_of(module))
    base = {name: value for name, value in given.items() if name in fields}
    return module.Settings(**{**base, **changes})


def configured(model: str) -> dict:
    """`common` of the model's file in configs/models/."""
    values = YAML(typ="safe").load(CONFIGS / f"{model}.yaml")["common"]
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}


def name_of(module) -> str:
    return module.__name__.rpartition(".")[2]


def settings_of(module, **changes):
    """The model's settings for a tiny graph, with only the changes that it knows."""
    fields = {field.name: field for field in dataclasses.fields(module.Settings)}
    wanted = {**SMALL, **OWN.get(name_of(module), {}), **changes}
    values = {name: value for name, value in wanted.items() if name in fields}
    if "dropout" in fields and "tuple" in str(fields["dropout"].type):
        values["dropout"] = (0.0, 0.0, 0.0)
    return plain(module, **values)


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


def by_heart(model, data: Data) -> dict:
    """How well the model ranks the training triples: what `ranking.metrics` gives."""
    return ranking.metrics(ranking.rank(model.eval().scorer(), data.train, filter_index(data), entities=ENTITIES))


def fit(learner, data: Data, work, epochs: int, **changes) -> loop.Progress:
    def measure(model):
        return by_heart(model, data)["mrr"]

    plan = {"evaluate_every": epochs, "patience": 0, "checkpoint_every": 0, **changes}
    return loop.fit(learner, measure, triples=len(data.train), epochs=epochs, seed=0, work=work, show=False, **plan)


def write_tables(folder, data, order, entities=None, relations=None) -> None:
    """The tables of the tiny graph, its entities numbered by `order`; `entities`, `relations` are (keys, labels)."""
    names = [f"entity {i}" for i in np.argsort(order)]
    kinds = [f"relation {i}" for i in range(RELATIONS)]
    keys, labels = entities or (names, names)
    columns = {"entity_id": np.arange(len(keys), dtype=np.int32), "key": keys, "label": labels}
    tables.write(folder / "entities.parquet", "entities", columns, {})
    keys, labels = relations or (kinds, kinds)
    columns = {"relation_id": np.arange(RELATIONS, dtype=np.int32), "key": keys, "label": labels}
    tables.write(folder / "relations.parquet", "relations", columns | {"category": ["1-1"] * RELATIONS}, {})
    rows = np.concatenate([data.train, data.dev, data.test]).astype(np.int32)
    split = np.repeat(["train", "dev", "test"], [len(data.train), len(data.dev), len(data.test)])
    rows[:, [0, 2]] = np.asarray(order, dtype=np.int32)[rows[:, [0, 2]]]
    columns = {"head": rows[:, 0], "relation": rows[:, 1], "tail": rows[:, 2], "split": split}
    tables.write(folder / "triples.parquet", "triples", columns, {"split": "clean"})
