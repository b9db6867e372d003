"""What a GPU makes of it, in one command of less than ten minutes: docs/gpu.md, benchmarks/results/gpu.json.

    python -m benchmarks.gpu [--device cuda] [--reduced] [--out docs/gpu.md] [--json benchmarks/results/gpu.json]

On DB15K's sizes at the papers' settings (benchmarks/step_cost), random data, for AdaMF-MAT, MoMoK and MyGO: whether the
GPU's losses and ranks are the CPU's (benchmarks/gpu_golden.py); then in float32, float32 with TF32 products, and
bfloat16, as it is and with its step under torch.compile: seconds a step, its share of the ceilings that were measured
on the spot, peak memory, queries ranked a second, and seconds of a whole epoch as the training loop runs it, batches
and all, with the minutes of the papers' 1,000 / 2,000 / 1,500 of them against the goal of 20. Last the forward pass of
a vision and of a language Transformer of the size of BERT base, rows a second (random weights: nothing is downloaded).

Both files are written anew after each row. A row for which memory runs out, or that fails in another way, says so; what
no longer fits in `--minutes` is named. Needs torch, numpy and pyarrow, and for the encoders timm and transformers,
without which they are left out. `--reduced` is small and quick, for machines without a GPU and for tests.
"""

import argparse
import gc
import importlib
import statistics
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from tqdm import tqdm

from benchmarks import bare  # noqa: F401  before anything of ours
from benchmarks.conditions import as_trained
from benchmarks.gpu_golden import compared, ranked
from benchmarks.step_cost import random_features_graph, random_triples
from benchmarks.train_step import fastest, measure_ceilings, timed
from pipeline import tables
from trainers import matmul
from trainers.about import module_of
from trainers.room import constant_when_compiled
from trainers.training import loop
from trainers.training.data import Data, Features, Tokens
from trainers.training.runs import peak_memory
from trainers.training.train import filter_index

EPOCHS = {"adamf_mat": 1000, "momok": 2000, "mygo": 1500}
GOAL = 20  # minutes
WAYS = {"float32": ("plain", torch.float32), "tf32": ("tf32", torch.float32), "bfloat16": ("plain", torch.bfloat16)}
SMALL = {"adamf_mat": {"batch_size": 64, "negatives": 8, "dimension": 16},
         "momok": {"batch_size": 64, "dimension": 32, "relation_dimension": 16, "feature_dimension": 32},
         "mygo": {"batch_size": 64, "dimension": 32, "hidden_dimension": 64, "contrastive_rows": 16}}  # fmt: skip


AGREE = 1e-3  # a term of the loss may differ by this share of the largest


@dataclass(frozen=True)
class Row:
    """One line of the table; None: not measured, and `failed` says why."""

    model: str
    way: str
    compiled: bool
    step: float | None = None  # seconds, the median
    epoch: float | None = None  # seconds of a whole one
    share: float | None = None  # of the step's time that the ceilings alone ask for
    peak: int | None = None  # bytes
    ranked: float | None = None  # queries a second
    failed: str = ""


class Report:
    """The figures so far, and the two files that they are written to after each."""

    def __init__(self, device: torch.device, reduced: bool, page: Path, figures: Path):
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else "the CPU"
        self.page, self.path = page, figures
        self.figures: dict[str, Any] = {
            "device": name, "torch": torch.__version__, "reduced": reduced, "ceilings": {}, "golden": {}, "rows": [],
            "encoders": {}, "left_out": [],
        }  # fmt: skip

    def write(self) -> None:
        tables.write_json(self.path, self.figures)
        tables.write_text(self.page, page(tables.read_json(self.path)))  # in the order in which the file has them


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--reduced", action="store_true")
    parser.add_argument("--minutes", type=float, default=9)
    parser.add_argument("--out", type=Path, default=Path("docs/gpu.md"))
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/gpu.json"))
    arguments = parser.parse_args()
    device, until = torch.device(arguments.device), time.monotonic() + 60 * arguments.minutes
    report = Report(device, arguments.reduced, arguments.out, arguments.json)
    for name, work in tasks(report.figures, device, arguments.reduced, until):
        if time.monotonic() > until:
            report.figures["left_out"].append(f"{name} (no time)")
        else:
            try:
                work()
            except torch.OutOfMemoryError:
                report.figures["left_out"].append(f"{name} (out of memory)")
            clean(device)
        report.write()


def tasks(
    figures: dict[str, Any], device: torch.device, reduced: bool, until: float
) -> Iterator[tuple[str, Callable[[], object]]]:
    """(what it is, what adds its figures) in the order of their worth, should the time not do for all."""
    which = ways(device, reduced)

    def row(model: str, way: str, compiled: bool) -> None:
        if way not in figures["ceilings"]:
            figures["ceilings"][way] = ceilings(way, device, reduced)
        limits = figures["ceilings"][way]
        figures["rows"].append(asdict(attempted(model, way, compiled, device, limits, reduced, until)))
        print(line(figures["rows"][-1]), flush=True)

    for model in EPOCHS:
        yield (
            f"whether {model} computes what it does on the CPU",
            lambda model=model: golden(figures["golden"], model, device, reduced),
        )
    for compiled in (False, True):
        for way in sorted(which, key=lambda way: way != "bfloat16"):  # which a run takes on a GPU unless told otherwise
            for model in ["adamf_mat"] if compiled and reduced else EPOCHS:  # to follow all would take minutes
                yield (
                    f"{model} in {way}{', compiled' if compiled else ''}",
                    lambda model=model, way=way, compiled=compiled: row(model, way, compiled),
                )
        if not compiled:
            yield "encoders", lambda: encode(figures["encoders"], device, reduced)


def clean(device: torch.device) -> None:
    """Give back what a row has left, of memory and of compiled steps."""
    torch.compiler.reset()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


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


def golden(found: dict[str, Any], model: str, device: torch.device, reduced: bool) -> None:
    """Add a model's losses and ranks on the CPU and on the device."""
    data, settings, _ = problem(model, reduced)
    found[model] = compared(module_of(model), data, settings, device)


def attempted(
    model: str, way: str, compiled: bool, device: torch.device, limits: dict[str, float], reduced: bool, until: float
) -> Row:
    """The row, or one that says why there is none."""
    try:
        return measure(model, way, compiled, device, limits, reduced, until)
    except torch.OutOfMemoryError:
        return Row(model, way, compiled, failed="out of memory")
    except Exception as error:  # above all of torch's compiler; the other rows are worth having all the same
        traceback.print_exc()
        return Row(model, way, compiled, failed=f"{type(error).__name__}: {first_line(error):.120}")


def first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0]


def measure(
    model: str, way: str, compiled: bool, device: torch.device, limits: dict[str, float], reduced: bool, until: float
) -> Row:
    """Steps of one model in one way of computing, and an epoch if one fits in what is left of the time."""
    choice, precision = WAYS[way]
    data, settings, cost = problem(model, reduced)
    module, torch_seed = module_of(model), torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    with as_trained(device, choice):
        built = module.build(data, settings, torch_seed).to(device)
        learner = module.Learner(built, data, settings, device=device, precision=precision, seed=0)
        if compiled:
            # The small form follows the step's operations, but makes no code of them.
            constant_when_compiled()
            learner.step = torch.compile(learner.step, backend="eager" if reduced else "inductor")
        learner.model.train()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        seconds: list[float] = []
        warm, wanted = (1, 3) if reduced else (5, 25)
        batches = iter(learner.batches(0))
        for _ in range(min(learner.steps_per_epoch, wanted)):
            seconds.append(timed(lambda: learner.step(next(batches)), device))
            if len(seconds) > warm and time.monotonic() > until:  # compiled anew for other shapes, steps take minutes
                break
        step = statistics.median(seconds[warm:])
        fits = time.monotonic() + 1.2 * step * learner.steps_per_epoch < until
        epoch = timed(lambda: one_epoch(learner), device) if fits else None
        peak = peak_memory(device)
        rate = None if compiled else queries_a_second(learner.model, data, 50 if reduced else 2000, device)
    parts = cost.work(data, settings)
    floor = sum(max(part.flops / limits["flops"], part.bytes / limits["bytes"]) for part in parts)
    return Row(model, way, compiled, step, epoch, floor / step, peak, rate)


def queries_a_second(model: Any, data: Data, facts: int, device: torch.device) -> float:
    """How fast the first facts are ranked in both directions, what a scorer prepares once included."""
    known = filter_index(data)
    ranked(model, data, 10, known, device)
    return 2 * facts / timed(lambda: ranked(model, data, facts, known, device), device)


def one_epoch(learner: Any) -> None:
    """The second epoch, as the training loop runs it; nothing waits for the device but what the loop itself does."""
    with tqdm(disable=True) as bar:
        loop._one_epoch(learner, loop.Progress(epoch=1), 0, bar, None)


def encode(found: dict[str, float], device: torch.device, reduced: bool) -> None:
    """Add the rows a second of the two kinds of encoders, in bfloat16 on a GPU."""
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


def line(row: dict[str, Any]) -> str:
    """A row of the table of steps."""
    name = f"| {row['model']} | {row['way']} | {'yes' if row['compiled'] else 'no'} |"
    if row["failed"]:
        return f"{name} {row['failed'].replace('|', '/')} |" + " |" * 7
    epochs, epoch = EPOCHS[row["model"]], row["epoch"]
    minutes = None if epoch is None else epoch * epochs / 60
    return (
        f"{name} {row['step'] * 1000:.1f} | {shown(epoch, '.2f')} | {row['share']:.2f} | {row['peak'] / 1e9:.1f} | "
        f"{shown(row['ranked'], ',.0f')} | {epochs:,} | {shown(minutes, '.1f')} | {GOAL} |"
    )


def shown(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def golden_line(model: str, found: dict[str, Any]) -> str:
    """A row of the table that compares with the CPU."""
    terms = ", ".join(f"{name} {value:.5g}" for name, value in found["cpu"]["losses"][0].items())
    same = "yes" if found["apart"] <= AGREE else "NO"
    gaps = " | ".join(f"{found[name]:.1e}" for name in ("apart", "apart_later", "apart_mrr"))
    return f"| {model} | {terms} | {gaps} | {same} |"


def page(figures: dict[str, Any]) -> str:
    """The figures as Markdown."""
    out = ["# On a GPU", "", f"Written by `python -m benchmarks.gpu` on {figures['device']}, torch {figures['torch']}."]
    out += ["Reduced sizes: these numbers say that it runs, and nothing else."] if figures["reduced"] else []
    out += ["", "The same weights, batches and draws in float32 without dropout, beside the CPU:", ""]
    out += ["| model | loss on the CPU | apart at first | later | MRR apart | agrees |", "|---" * 6 + "|"]
    out += [golden_line(model, found) for model, found in figures["golden"].items()]
    out += ["", "| products in | TFLOP/s | GB/s |", "|---|---|---|"]
    out += [
        f"| {way} | {one['flops'] / 1e12:.1f} | {one['bytes'] / 1e9:.0f} |" for way, one in figures["ceilings"].items()
    ]
    head = "| model | products | compiled | ms a step | s an epoch | share of the ceilings | peak GB | "
    head += "queries ranked a second | epochs | minutes | goal |"
    out += ["", head, "|---" * 11 + "|", *map(line, figures["rows"]), ""]
    out += [f"- {what}: {rate:,.0f} a second" for what, rate in figures["encoders"].items()]
    left_out = figures["left_out"]
    out += ["", f"Left out: {'; '.join(left_out)}."] if left_out else []
    return "\n".join(out).rstrip() + "\n"


if __name__ == "__main__":
    main()
