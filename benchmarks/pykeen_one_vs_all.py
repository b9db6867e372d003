"""Our ComplEx and DistMult by 1-vs-all beside PyKEEN's, with the same settings on the same graph.

    python -m benchmarks.pykeen_one_vs_all [--graph data/mini] [--seeds 3] [--epochs 30]

PyKEEN's SymmetricLCWATrainingLoop with its CrossEntropyLoss is the same objective: each training triple's tail among
all entities, and its head. Its interactions start like our models, from normal numbers of the same deviation, and
Adagrad with the same rate moves them; neither has a regulariser or reciprocal relations. All are ranked by the same
evaluator (trainers.evaluation.ranking) on test after the last epoch, and must agree within seed noise. The seconds are
of training. Needs PyKEEN (the extra `dev`).
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

from pipeline.encoding import torchvision_repair  # noqa: F401
from stages.params import load_params
from stages.params.models import model_settings
from trainers.evaluation import ranking, significance
from trainers.models import complex, distmult
from trainers.training import data as reading
from trainers.training import loop
from trainers.training.train import filter_index

try:
    from pykeen.losses import CrossEntropyLoss
    from pykeen.models import ERModel
    from pykeen.nn.modules import ComplExInteraction, DistMultInteraction
    from pykeen.training import SymmetricLCWATrainingLoop
    from pykeen.triples import CoreTriplesFactory
except ImportError as error:
    raise SystemExit("PyKEEN is not installed: pip install 'tessera-mmkgc[dev]'") from error

# What PyKEEN does as it comes, whatever configs/models has found better.
THEIRS = {
    "objective": "one_vs_all", "optimizer": "adagrad", "schedule": "constant", "evaluate_every": None,
    "candidates": None, "reciprocal": False, "regularization": 0.0, "dropout": 0.0, "label_smoothing": 0.0,
    "relation_prediction": 0.0, "strangers": "own",
}  # fmt: skip
MODELS = {"complex": (complex, ComplExInteraction), "distmult": (distmult, DistMultInteraction)}


def train_pykeens(kind: type, data: reading.Data, settings: object, seed: int):
    """The scorer of PyKEEN's model after training."""
    torch.manual_seed(seed)
    factory = CoreTriplesFactory.create(data.train, num_entities=data.entities, num_relations=data.relations)
    shape = {"shape": settings.dimension, "dtype": torch.cfloat if kind is ComplExInteraction else torch.float}
    model = ERModel(
        triples_factory=factory, interaction=kind, entity_representations_kwargs=shape, loss=CrossEntropyLoss(),
        relation_representations_kwargs=shape, random_seed=seed,
    )  # fmt: skip
    with torch.no_grad():
        for parameter in model.parameters():
            (torch.view_as_real(parameter) if parameter.is_complex() else parameter).normal_(0, settings.init_scale)
    training = SymmetricLCWATrainingLoop(
        model=model, triples_factory=factory, optimizer="adagrad", optimizer_kwargs={"lr": settings.learning_rate}
    )
    training.train(factory, num_epochs=settings.epochs, batch_size=settings.batch_size, use_tqdm=False)
    model.eval()

    def score(known: Tensor, relation: Tensor, side: str) -> Tensor:
        if side == "tail":
            return model.score_t(torch.stack([known, relation], dim=1))
        return model.score_h(torch.stack([relation, known], dim=1))

    return score


def train_ours(module: ModuleType, data: reading.Data, settings: object, seed: int):
    """The scorer of our model after training."""
    model = module.build(data, settings, torch.Generator().manual_seed(seed))
    device = torch.device("cpu")
    learner = module.Learner(model, data, settings, device=device, precision=torch.float32, seed=seed)
    for epoch in range(settings.epochs):
        loop.reseed(seed, epoch)
        for batch in learner.batches(epoch):
            learner.step(batch)
    return learner.model.eval().scorer()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graph", type=Path, default=Path("data/mini"))
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--dimension", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=0.1)
    parser.add_argument("--init-scale", type=float, default=0.1)
    given = vars(parser.parse_args())
    graph, models, seeds = (given.pop(name) for name in ("graph", "models", "seeds"))
    data = reading.load(graph / "graph", graph / "encoded", name=graph.name)
    print(f"{data.name}: {len(data.train):,} training triples, {len(data.test):,} test triples; {given}")
    print(f"{'':20}{'MRR by seed':{9 * seeds}}{'MRR':>10}{'Hits@10':>19}{'seconds':>10}")
    for name in models:
        module, theirs = MODELS[name]
        their = replace(model_settings(load_params(), name), **given, **THEIRS)
        # Their batch is of triples, each in both directions; ours of rows, which here have one answer like theirs.
        settings = replace(their, batch_size=2 * their.batch_size, answers_per_row=1)
        ways = {f"{name}, tessera": (train_ours, module, settings), f"{name}, pykeen": (train_pykeens, theirs, their)}
        for title, (train, what, how) in ways.items():
            began, runs, seconds = time.perf_counter(), [], 0.0
            for seed in range(seeds):
                began = time.perf_counter()
                score = train(what, data, how, seed)
                seconds += (time.perf_counter() - began) / seeds
                ranks = ranking.rank(score, data.test, filter_index(data), entities=data.entities,
                                     memory_bytes=32 * 8 * data.entities)  # fmt: skip
                runs.append(ranking.metrics(ranks))
            over = significance.over_seeds(runs)
            each = "".join(f"{run['mrr']:9.4f}" for run in runs)
            sums = "".join(f"   {over[m]['mean']:.4f} ± {over[m]['deviation'] or 0:.4f}" for m in ("mrr", "hits_at_10"))
            print(f"{title:20}{each}{sums}{seconds:10.1f}", flush=True)


if __name__ == "__main__":
    main()
