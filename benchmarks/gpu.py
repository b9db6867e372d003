"""What a GPU makes of it, in one command of less than ten minutes: docs/gpu.md.

    python -m benchmarks.gpu [--device cuda] [--reduced] [--out docs/gpu.md]

On DB15K's sizes at the papers' settings (benchmarks/step_cost), random data, for AdaMF-MAT, MoMoK and MyGO, in float32,
float32 with TF32 products, and bfloat16: seconds a step and an epoch, its share of the ceilings that were measured on
the spot, peak memory, and the minutes of the papers' 1,000 / 2,000 / 1,500 epochs against the goal of 20. Then the
forward pass of a vision and of a language Transformer of the size of BERT base, rows a second (random weights: nothing
is downloaded). Needs torch, numpy and pyarrow, and for the last two timm and transformers; what is missing is left out,
and so is what no longer fits in `--minutes`. `--reduced` is small and quick, for machines without a GPU and for tests.
"""

import argparse
import importlib
import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch

from benchmarks.step_cost import random_features_graph, random_triples
from benchmarks.train_step import fastest, measure_ceilings, timed
from pipeline import tables
from trainers import matmul
from trainers.about import module_of
from trainers.training.data import Data, Features, Tokens

EPOCHS = {"adamf_mat": 1000, "momok": 2000, "mygo": 1500}
GOAL = 20  # minutes
WAYS = {"float32": ("plain", torch.float32), "tf32": ("tf32", torch.float32), "bfloat16": ("plain", torch.bfloat16)}
SMALL = {"adamf_mat": {"batch_size": 64, "negatives": 8, "dimension": 16},
         "momok": {"batch_size": 64, "dimension": 32, "relation_dimension": 16, "feature_dimension": 32},
         "mygo": {"batch_size": 64, "dimension": 32, "hidden_dimension": 64, "contrastive_rows": 16}}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    model: str
    way: str
    step: float  # seconds, the median
    steps: int  # of an epoch
    share: float  # of the step's time that the ceilings alone ask for
    peak: int  # bytes

    def minutes(self) -> float:
        return self.step * self.steps * EPOCHS[self.model] / 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--reduced", action="store_true")
    parser.add_argument("--minutes", type=float, default=9)
    parser.add_argument("--out", type=Path, default=Path("docs/gpu.md"))
    arguments = parser.parse_args()
    device, until = torch.device(arguments.device), time.monotonic() + 60 * arguments.minutes
    limits = {way: ceilings(way, device, arguments.reduced) for way in ways(device, arguments.reduced)}
    rows, left_out = [], []
    for model in EPOCHS:
        for way in ways(device, arguments.reduced):
            if time.monotonic() > until:
                left_out.append(f"{model} in {way}")
                continue
            rows.append(measure(model, way, device, limits[way], arguments.reduced))
            print(line(rows[-1]), flush=True)
    encoders = {} if time.monotonic() > until else encode(device, arguments.reduced)
    tables.write_text(arguments.out, page(device, limits, rows, encoders, left_out, arguments.reduced))


def ways(device: torch.device, reduced: bool) -> list[str]:
    """TF32 is a GPU's, and the small form is for whether it runs."""
    return ["float32"] if reduced else [way for way in WAYS if device.type == "cuda" or way != "tf32"]


def ceilings(way: str, device: torch.device, reduced: bool) -> dict[str, float]:
    """Operations a second of a large product in this way, and bytes a second."""
    choice, dtype = WAYS[way]
    matmul.use(choice, device)
    if reduced:
        left, right = (torch.randn(256, 256, device=device, dtype=dtype) for _ in range(2))
        moved = 2 * left.nbytes / fastest(lambda: right.copy_(left), device)  # read once, written once
        return {"flops": 2.0 * 256**3 / fastest(lambda: left @ right, device), "bytes": moved}
    precision = {torch.float32: "float32", torch.bfloat16: "bfloat16"}[dtype]
    return measure_ceilings(SimpleNamespace(device=str(device), precision=precision))


def problem(model: str, reduced: bool) -> tuple[Data, Any, ModuleType]:
    """The data, the settings and the cost of a model's step."""
    cost, generator = importlib.import_module(f"benchmarks.step_cost.{model}"), torch.Generator().manual_seed(0)
    if reduced:
        return small(generator), replace(cost.settings(), **SMALL[model]), cost
    # MoMoK's own data has DB15K's triples, which are a download.
    data = random_features_graph(generator, cost.WIDTHS) if model == "momok" else cost.data(generator)
    return data, cost.settings(), cost


def small(generator: torch.Generator) -> Data:
    """A random graph of 300 entities with features and tokens."""
    entities, relations, width, codes, length = 300, 5, 48, 40, 12
    train, every = random_triples(generator, entities, relations, 512), torch.arange(entities)
    features, tokens = {}, {}
    for name in ("image", "text"):
        features[name] = Features(every, torch.randn(entities, width, generator=generator))
        chosen = torch.rand(entities, codes, generator=generator).topk(length).indices.flatten()
        book = torch.randn(codes, width, generator=generator)
        tokens[name] = Tokens(every, torch.arange(entities + 1) * length, chosen, torch.arange(codes), book)
    return Data("small", entities, relations, train, train[:10], train[:10], features, tokens)


def measure(model: str, way: str, device: torch.device, limits: dict[str, float], reduced: bool) -> Row:
    """Steps of one model in one way of computing."""
    choice, precision = WAYS[way]
    matmul.use(choice, device)
    data, settings, cost = problem(model, reduced)
    module, torch_seed = module_of(model), torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    learner = module.Learner(
        module.build(data, settings, torch_seed).to(device), data, settings, device=device, precision=precision, seed=0
    )
    learner.model.train()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds: list[float] = []
    batches = iter(learner.batches(0))
    for _ in range(min(learner.steps_per_epoch, 3 if reduced else 25)):
        seconds.append(timed(lambda: learner.step(next(batches)), device))
    step = statistics.median(seconds[1:] if reduced else seconds[5:])
    parts = cost.work(data, settings)
    floor = sum(max(part.flops / limits["flops"], part.bytes / limits["bytes"]) for part in parts)
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else 0
    return Row(model, way, step, learner.steps_per_epoch, floor / step, peak)


def encode(device: torch.device, reduced: bool) -> dict[str, float]:
    """Rows a second of the two kinds of encoders, in bfloat16 on a GPU."""
    found: dict[str, float] = {}
    number, dtype = (2 if reduced else 256), torch.bfloat16 if device.type == "cuda" else torch.float32
    try:
        from pipeline.encoding import torchvision_repair  # noqa: F401, I001  before timm, which imports torchvision
        import timm

        name = "vit_tiny_patch16_224" if reduced else "vit_base_patch16_224"
        vision = timm.create_model(name, pretrained=False).to(device, dtype).eval()
        pictures = torch.randn(number, 3, 224, 224, device=device, dtype=dtype)
        with torch.inference_mode():
            found[f"{name}, pictures of 224"] = number / fastest(lambda: vision(pictures), device, times=2)
    except ImportError:
        pass
    try:
        from transformers import BertConfig, BertModel

        shape = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2} if reduced else {}
        language = BertModel(BertConfig(**shape)).to(device, dtype).eval()
        words = torch.randint(1000, (number, 64), device=device)
        name = f"BERT of {language.config.num_hidden_layers} layers" if reduced else "BERT base"
        with torch.inference_mode():
            found[f"{name}, texts of 64 tokens"] = number / fastest(lambda: language(words), device, times=2)
    except ImportError:
        pass
    return found


def line(row: Row) -> str:
    return (
        f"| {row.model} | {row.way} | {row.step * 1000:.1f} | {row.step * row.steps:.2f} | {row.share:.2f} | "
        f"{row.peak / 1e9:.1f} | {EPOCHS[row.model]:,} | {row.minutes():.1f} | {GOAL} |"
    )


def page(device, limits, rows, encoders, left_out, reduced: bool) -> str:
    """The table as Markdown."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "the CPU"
    out = ["# On a GPU", "", f"Written by `python -m benchmarks.gpu` on {name}, torch {torch.__version__}."]
    out += ["Reduced sizes: these numbers say that it runs, and nothing else."] if reduced else []
    out += ["", "| products in | TFLOP/s | GB/s |", "|---|---|---|"]
    out += [f"| {way} | {one['flops'] / 1e12:.1f} | {one['bytes'] / 1e9:.0f} |" for way, one in limits.items()]
    head = "| model | products | ms a step | s an epoch | share of the ceilings | peak GB | epochs | minutes | goal |"
    out += ["", head, "|---" * 9 + "|", *map(line, rows), ""]
    out += [f"- {what}: {rate:,.0f} a second" for what, rate in encoders.items()]
    out += [f"Left out, since the time was over: {', '.join(left_out)}."] if left_out else []
    return "\n".join(out).rstrip() + "\n"


if __name__ == "__main__":
    main()
