"""The work of one step of AdaMF-MAT: projection of every entity, distances to the negatives, generators, Adam."""

import torch

from benchmarks.step_cost import Work, adam, matmul, random_features_graph
from trainers.models.adamf_mat import HIDDEN, NOISE, Settings
from trainers.training.data import Data


def settings() -> Settings:
    return Settings()


def data(generator: torch.Generator) -> Data:
    return random_features_graph(generator, {"image": 4096, "text": 768})


def work(data: Data, settings: Settings) -> list[Work]:
    entities, batch, width = data.entities, settings.batch_size, 2 * settings.dimension
    pairs = batch * (1 + settings.negatives)
    features = [found.matrix.shape[1] for found in data.features.values()]
    parts = []
    for name, found in data.features.items():
        wide = found.matrix.shape[1]
        # Forward, gradient by weights, gradient by features; the table is read twice and its gradient written.
        passes = matmul(entities, wide, width, 3)
        parts.append(Work(f"{name} projection", passes, 4.0 * entities * (3 * wide + 4 * width)))
    # Three parts in, one out; backward the same the other way; tanh counts as ten operations.
    parts.append(Work("fusion", 60.0 * entities * width, 4.0 * entities * width * 10))
    # Difference, squares, root, sum forward; as much again twice backward. The fused table and its gradient once.
    parts.append(Work("distances", 30.0 * pairs * settings.dimension, 4.0 * entities * width * 3))
    if settings.adversarial_weight > 0:
        generate = matmul(2 * batch, NOISE + width, HIDDEN) + matmul(2 * batch, HIDDEN, width)
        again = sum(matmul(2 * batch, wide, width) for wide in features)
        # Two modalities: forward and to the input for the model, forward and to the weights for the generators.
        parts.append(Work("generators", len(features) * generate * 4.5 + again, 4.0 * 2 * batch * sum(features)))
    parameters = entities * width + data.relations * settings.dimension + width
    parameters += sum(entities * wide + (wide + 1) * width for wide in features)
    if settings.adversarial_weight > 0:
        parameters += len(features) * ((NOISE + width + 1) * HIDDEN + (HIDDEN + 1) * width)
    parts.append(adam(parameters))
    return parts
