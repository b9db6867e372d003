"""The work of one step of MoMoK: experts, fusion, TuckER's matrices, scores, mutual information, Adam."""

import statistics
from dataclasses import replace

import torch

from benchmarks.db15k import triples
from benchmarks.step_cost import Work, adam, matmul, random_features_graph
from trainers.models.momok import HEADS, Settings
from trainers.parts.features import GRIDS
from trainers.training.data import Data
from trainers.training.kvsall import Queries

WIDTHS = {"image": 4096, "text": 768}


def settings() -> Settings:
    return Settings()


def data(generator: torch.Generator) -> Data:
    """DB15K's own triples if they are at hand (the skew of the relations matters here), and random features."""
    train, _, _ = triples()
    return replace(random_features_graph(generator, WIDTHS), train=torch.from_numpy(train.copy()))


def work(data: Data, settings: Settings) -> list[Work]:
    batch, width, r_width = settings.batch_size, settings.dimension, settings.relation_dimension
    compared = data.entities if settings.candidates is None else settings.candidates
    widths = [_width(data, name, settings) for name in settings.modalities]
    fused = len(widths) > 1
    scorers = [(each, r_width, distinct_relations(data, settings)) for each in widths]
    if fused:  # the fusion's dropout gives each query a joint relation of its own
        scorers.append((width, width, batch))
    rows, parts = compared + batch, []
    experts = sum(matmul(rows, each, settings.experts * each, 3) for each in widths)
    parts.append(Work("experts", experts, 4.0 * rows * sum(widths) * (4 * settings.experts + 6)))
    if fused:
        fusion = HEADS * sum(matmul(rows, each, width, 3) + matmul(batch, r_width, width, 3) for each in widths)
        parts.append(Work("fusion", fusion, 4.0 * rows * HEADS * len(widths) * 6 * width))
    for name, chosen in (("TuckER", scorers[: len(widths)]), ("TuckER joint", scorers[len(widths) :])):
        # Forward, to the relation and to W; then one masked product a query each way.
        flops = sum(matmul(u, r, d * d, 3) + 16.0 * batch * d * d for d, r, u in chosen)
        parts.append(Work(name, flops, sum(4.0 * (2 * u + 3 * r) * d * d for d, r, u in chosen)))
    scores = sum((6.0 * d + 8) * batch * compared for d, _, _ in scorers)
    parts.append(Work("scores", scores, sum(4.0 * 5 * compared * d for d, _, _ in scorers)))
    if settings.information_weight and settings.experts > 1:
        estimators = sum(matmul(batch, each, each // 2, 2 * 2 * 5) + matmul(batch, each, 2 * each) for each in widths)
        parts.append(Work("mutual information", estimators, 0.0))
    parts.append(adam(_parameters(data, settings, widths)))
    return parts


def distinct_relations(data: Data, settings: Settings) -> int:
    """How many a batch has on average."""
    batches = Queries(data.train, data.entities, data.relations).batches(
        settings.batch_size, (0, 0), torch.device("cpu")
    )
    return round(statistics.fmean(len(batch.distinct) for batch in batches))


def _width(data: Data, name: str, settings: Settings) -> int:
    if name == "structure":
        return settings.dimension
    wide = data.features[name].matrix.shape[1]
    pooled = GRIDS.get((wide, settings.feature_dimension))
    return settings.feature_dimension if pooled or 0 < settings.feature_dimension < wide else wide


def _parameters(data: Data, settings: Settings, widths: list[int]) -> int:
    width, r_width, rows = settings.dimension, settings.relation_dimension, 2 * data.relations
    count = data.entities * sum(widths) + rows * (r_width * len(widths) + 1)
    count += sum(settings.experts * each * (each + 3) + r_width * each * each + 4 * each for each in widths)
    if len(widths) > 1:
        count += width**3 + 4 * width + HEADS * width * (sum(widths) + len(widths) * (r_width + 2)) + 2 * width
    if settings.information_weight and settings.experts > 1:
        count += sum(2 * each * each + 3 * each for each in widths)
    return count
