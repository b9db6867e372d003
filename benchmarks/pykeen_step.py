"""A training step of our RotatE beside PyKEEN's, on the same random graph with the same sizes.

    python -m benchmarks.pykeen_step [--rounds 3] [--steps 6]

Batch 1,024, 128 Bernoulli negatives, 250 complex numbers, self-adversarial loss, Adam, DB15K's entities and relations,
float32 on the CPU. PyKEEN runs its own training loop. Both take turns in processes of their own, so that other work on
the machine meets both; the medians over all timed steps are compared.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from dataclasses import replace

import torch

from benchmarks.step_cost import DB15K, random_triples
from benchmarks.train_step import memory
from stages.params import load_params
from stages.params.models import model_settings

BATCH, NEGATIVES, DIMENSION, MARGIN, TEMPERATURE, RATE = 1024, 128, 250, 12.0, 1.0, 1e-3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="how often each takes its turn")
    parser.add_argument("--steps", type=int, default=6, help="timed steps a turn, after as many to warm up")
    parser.add_argument("--worker", choices=("ours", "pykeen"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        took = {"ours": ours, "pykeen": pykeen}[arguments.worker](2 * arguments.steps)
        print(json.dumps({"seconds": took[arguments.steps :], "memory": memory()}))
        return
    seconds: dict[str, list[float]] = {"ours": [], "pykeen": []}
    peak = dict.fromkeys(seconds, 0)
    for _ in range(arguments.rounds):
        for name in seconds:
            command = [
                sys.executable,
                "-m",
                "benchmarks.pykeen_step",
                "--worker",
                name,
                "--steps",
                str(arguments.steps),
            ]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                sys.exit(f"{name} failed:\n{done.stderr}")
            found = json.loads(done.stdout.splitlines()[-1])
            seconds[name] += found["seconds"]
            peak[name] = max(peak[name], found["memory"])
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name, median in medians.items():
        print(f"{name}: {median:.3f} s a step (median of {len(seconds[name])}), peak {peak[name] / 1e9:.2f} GB")
    print(f"pykeen / ours: {medians['pykeen'] / medians['ours']:.1f}")


def triples(steps: int) -> torch.Tensor:
    return random_triples(torch.Generator().manual_seed(0), DB15K["entities"], DB15K["relations"], steps * BATCH)


def ours(steps: int) -> list[float]:
    from trainers.models import rotate
    from trainers.training.data import Data

    train = triples(steps)
    data = Data("random", DB15K["entities"], DB15K["relations"], train, train[:1], train[:1], {}, {})
    settings = replace(
        model_settings(load_params(), "rotate"),
        batch_size=BATCH,
        negatives=NEGATIVES,
        dimension=DIMENSION,
        margin=MARGIN,
        adversarial_temperature=TEMPERATURE,
        learning_rate=RATE,
    )
    model = rotate.build(data, settings, torch.Generator().manual_seed(0))
    learner = rotate.Learner(model, data, settings, device=torch.device("cpu"), precision=torch.float32, seed=0)
    took, began = [], time.perf_counter()
    for batch in learner.batches(0):
        learner.step(batch)
        took.append(time.perf_counter() - began)
        began = time.perf_counter()
    return took


def pykeen(steps: int) -> list[float]:
    from pipeline.encoding import torchvision_repair  # noqa: F401, I001  before PyKEEN, which imports torchvision
    from pykeen.models import RotatE
    from pykeen.training import SLCWATrainingLoop
    from pykeen.training.callbacks import TrainingCallback
    from pykeen.triples import CoreTriplesFactory

    factory = CoreTriplesFactory(triples(steps), DB15K["entities"], DB15K["relations"])
    model = RotatE(
        triples_factory=factory,
        embedding_dim=DIMENSION,
        loss="nssa",
        loss_kwargs={"margin": MARGIN, "adversarial_temperature": TEMPERATURE},
        random_seed=0,
    )
    took = []

    class Clock(TrainingCallback):
        began = 0.0

        def post_batch(self, epoch, batch, **kwargs) -> None:
            del epoch, batch, kwargs
            took.append(time.perf_counter() - self.began)
            self.began = time.perf_counter()

    clock = Clock()
    loop = SLCWATrainingLoop(
        model=model,
        triples_factory=factory,
        optimizer=torch.optim.Adam(model.parameters(), lr=RATE),
        negative_sampler="bernoulli",
        negative_sampler_kwargs={"num_negs_per_pos": NEGATIVES},
    )
    clock.began = time.perf_counter()
    loop.train(factory, num_epochs=1, batch_size=BATCH, use_tqdm=False, callbacks=clock, drop_last=False)
    return took


if __name__ == "__main__":
    main()
