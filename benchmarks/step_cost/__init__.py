"""What one training step of each model must at least compute and move. One file a model, named as the model is:

    settings() -> the trainer's Settings at the paper's sizes
    data(generator) -> a random graph of those sizes
    work(data, settings) -> list[Work]

`benchmarks.train_step` turns the work into a floor in seconds with the ceilings that it measures.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from trainers.training.data import Data, Features

DB15K = {"entities": 12842, "relations": 279, "triples": 79222}


@dataclass(frozen=True)
class Work:
    """One part of a step that must be finished before the next can start.

    `flops` counts a multiply-add as two; `bytes` are those that must go through memory once: what does not fit in cache
    and is read or written by this part.
    """

    name: str
    flops: float
    bytes: float


def matmul(rows: int, inner: int, columns: int, passes: int = 1) -> float:
    """Floating-point operations of `passes` products (rows, inner) · (inner, columns)."""
    return 2.0 * rows * inner * columns * passes


def adam(parameters: int) -> Work:
    """Adam reads a parameter, its gradient and two moments, and writes three of them: 28 bytes, about 15 operations."""
    return Work("Adam", 15.0 * parameters, 28.0 * parameters)


def random_triples(generator: torch.Generator, entities: int, relations: int, triples: int) -> Tensor:
    """(triples, 3) int64."""
    columns = [torch.randint(size, (triples,), generator=generator) for size in (entities, relations, entities)]
    return torch.stack(columns, dim=1)


def random_features_graph(generator: torch.Generator, widths: dict[str, int]) -> Data:
    """A random graph of DB15K's sizes in which every entity has features of these widths."""
    train = random_triples(generator, **DB15K)
    every = torch.arange(DB15K["entities"])
    return Data(
        name="random",
        entities=DB15K["entities"],
        relations=DB15K["relations"],
        train=train,
        dev=train[:10],
        test=train[:10],
        features={
            name: Features(every, torch.randn(len(every), width, generator=generator)) for name, width in widths.items()
        },
        tokens={},
    )
