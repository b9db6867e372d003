"""Our RotatE beside PyKEEN's, trained with the same settings on the same graph: figures by seed, and time a step.

    python -m benchmarks.pykeen_rotate [--graph data/mini] [--seeds 3] [--epochs 100]

Three trainings a seed:

  tessera               trainers.models.rotate
  pykeen, same score    PyKEEN's training loop, loss, Bernoulli sampler (filtered) and Adam, around the score and tables
                        of the paper's authors: sum of complex moduli, relations as angles. Must agree within seed noise
  pykeen, as shipped    PyKEEN's own RotatE: Euclidean norm, relations as complex numbers set back to modulus 1. Another
                        score, so another figure is no fault; its time is what its users wait

All are ranked by the same evaluator (trainers.evaluation.ranking) on test after the last epoch. Needs PyKEEN, which is
in the extra `dev`.
"""

import argparse
import math
import statistics
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from pipeline.encoding import torchvision_repair  # noqa: F401
from pipeline.graph.filter_index import FilterIndex
from stages.params import load_params
from stages.params.models import model_settings
from trainers.evaluation import ranking, significance
from trainers.models import rotate
from trainers.training import data as reading
from trainers.training import loop

try:
    from pykeen.losses import NSSALoss
    from pykeen.models import ERModel, RotatE
    from pykeen.nn.modules import Interaction
    from pykeen.training import SLCWATrainingLoop
    from pykeen.triples import CoreTriplesFactory
except ImportError as error:
    raise SystemExit("PyKEEN is not installed: pip install 'tessera-mmkgc[dev]'") from error

OURS, SAME, SHIPPED = "tessera", "pykeen, same score", "pykeen, as shipped"


class Angles(Interaction):
    """-Σ |h e^{iθ} - t| with entities (…, 2D) as real and imaginary halves and relations (…, D) as scaled angles."""

    entity_shape = ("e",)
    relation_shape = ("d",)

    def __init__(self, start: float):
        super().__init__()
        self.scale = math.pi / start

    def forward(self, h: Tensor, r: Tensor, t: Tensor) -> Tensor:
        angle = r * self.scale
        (h_real, h_imaginary), (t_real, t_imaginary) = h.chunk(2, dim=-1), t.chunk(2, dim=-1)
        real = h_real * angle.cos() - h_imaginary * angle.sin() - t_real
        imaginary = h_real * angle.sin() + h_imaginary * angle.cos() - t_imaginary
        return -(real.square() + imaginary.square()).clamp_min(1e-24).sqrt().sum(-1)


def pykeens(kind: str, factory: CoreTriplesFactory, settings: rotate.Settings, seed: int) -> ERModel:
    """An untrained PyKEEN model of either kind."""
    loss = NSSALoss(margin=settings.margin, adversarial_temperature=settings.adversarial_temperature)
    common = {"triples_factory": factory, "loss": loss, "random_seed": seed}
    if kind == SHIPPED:
        return RotatE(embedding_dim=settings.dimension, **common)
    start = (settings.margin + rotate.EPSILON) / settings.dimension
    uniform = {"initializer": torch.nn.init.uniform_, "initializer_kwargs": {"a": -start, "b": start}}
    return ERModel(
        interaction=Angles(start),
        entity_representations_kwargs={"shape": 2 * settings.dimension, **uniform},
        relation_representations_kwargs={"shape": settings.dimension, **uniform},
        **common,
    )


def train_pykeens(kind: str, data: reading.Data, settings: rotate.Settings, seed: int):
    """(scorer, seconds a step)."""
    factory = CoreTriplesFactory.create(data.train, num_entities=data.entities, num_relations=data.relations)
    model = pykeens(kind, factory, settings, seed)
    training = SLCWATrainingLoop(
        model=model,
        triples_factory=factory,
        optimizer="adam",
        optimizer_kwargs={"lr": settings.learning_rate},
        negative_sampler="bernoulli" if settings.negative_sides == "bernoulli" else "basic",
        negative_sampler_kwargs={"num_negs_per_pos": settings.negatives, "filtered": True},
    )
    start = time.perf_counter()
    training.train(factory, num_epochs=settings.epochs, batch_size=settings.batch_size, use_tqdm=False)
    seconds = time.perf_counter() - start
    model.eval()

    def score(known: Tensor, relation: Tensor, side: str) -> Tensor:
        if side == "tail":
            return model.score_t(torch.stack([known, relation], dim=1))
        return model.score_h(torch.stack([relation, known], dim=1))

    return score, seconds / (settings.epochs * math.ceil(len(data.train) / settings.batch_size))


def train_ours(data: reading.Data, settings: rotate.Settings, seed: int):
    """(scorer, seconds a step)."""
    model = rotate.build(data, settings, torch.Generator().manual_seed(seed))
    device = torch.device("cpu")
    learner = rotate.Learner(model, data, settings, device=device, precision=torch.float32, seed=seed)
    start = time.perf_counter()
    for epoch in range(settings.epochs):
        loop.reseed(seed, epoch)
        for batch in learner.batches(epoch):
            learner.step(batch)
    seconds = time.perf_counter() - start
    return learner.model.eval().scorer(), seconds / (settings.epochs * learner.steps_per_epoch)


def one(kind: str, data: reading.Data, settings: rotate.Settings, seed: int) -> dict:
    """Train once and rank test."""
    train = train_ours if kind == OURS else lambda *rest: train_pykeens(kind, *rest)
    score, step = train(data, settings, seed)
    known = FilterIndex.build(torch.cat([data.train, data.dev, data.test]), data.entities, data.relations)
    # PyKEEN's scores of a batch hold (B, E, D) numbers on the way, hence the small batches.
    ranks = ranking.rank(score, data.test, known, entities=data.entities, memory_bytes=32 * 8 * data.entities)
    return {**ranking.metrics(ranks), "step": step}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graph", type=Path, default=Path("data/mini"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--negatives", type=int, default=32)
    parser.add_argument("--dimension", type=int, default=64)
    parser.add_argument("--margin", type=float, default=9.0)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--only", choices=(OURS, SAME, SHIPPED), action="append")
    given = vars(parser.parse_args())
    graph, seeds, threads, only = (given.pop(name) for name in ("graph", "seeds", "threads", "only"))
    torch.set_num_threads(threads)
    settings = replace(model_settings(load_params(), "rotate"), **given)
    data = reading.load(graph / "graph", graph / "encoded", name=graph.name)
    print(f"{data.name}: {len(data.train):,} training triples, {len(data.test):,} test triples; {settings}")
    print(f"{threads} threads, seeds 0 to {seeds - 1}\n")
    print(f"{'':20}{'MRR by seed':{9 * seeds}}   {'MRR':>17}{'Hits@10':>19}{'ms a step':>11}")
    steps = {}
    for kind in only or (OURS, SAME, SHIPPED):
        runs = [one(kind, data, settings, seed) for seed in range(seeds)]
        steps[kind] = statistics.median(run["step"] for run in runs)
        over = significance.over_seeds(runs)
        each = "".join(f"{run['mrr']:9.4f}" for run in runs)
        sums = "".join(f"   {over[m]['mean']:.4f} ± {over[m]['deviation'] or 0:.4f}" for m in ("mrr", "hits_at_10"))
        print(f"{kind:20}{each}   {sums}{steps[kind] * 1e3:11.2f}", flush=True)
    for kind in (SAME, SHIPPED):
        if OURS in steps and kind in steps:
            print(f"{kind} takes {steps[kind] / steps[OURS]:.1f} times as long a step as {OURS}")


if __name__ == "__main__":
    main()
