"""The run folder: what one training run leaves, complete enough to be judged and to be loaded again with one call.

weights.safetensors   the weights that were best on dev, with every table they need, but for frozen features that stay
                      on disk (trainers/training/memmap.py): run.json names their tables
run.json              settings, inputs, seed, epochs, chosen epoch, seconds, peak memory, device, code version
history.csv           one row per epoch
dev.json, test.json, ranks.parquet     from the evaluate stage
"""

import csv
import functools
import json
import platform
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from importlib import import_module, metadata
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pipeline import tables
from pipeline.errors import UserError, counted
from pipeline.settings import Misfit, build
from trainers.about import module_of
from trainers.training.checkpoint import load_tensors, save_tensors
from trainers.training.data import Data, Features, Tokens
from trainers.training.memmap import reopen
from trainers.training.version import run_version

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class Run:
    """A trained model that answers queries. `about` is run.json."""

    path: Path
    model: nn.Module
    about: dict
    score: Callable[[Tensor, Tensor, str], Tensor]  # (known (B,), relation (B,), "tail" | "head") -> (B, E)

    def ask(self, *names: object, **options: object) -> "DataFrame":
        """Names in, answers out: `ask("Red Hot Chili Peppers", "band member", k=10)`; see trainers/answers/ask.py."""
        # Loaded by name: how answers are shown changes no run, so that code is none of what a run's version counts.
        return import_module("trainers.answers.ask").ask(self, *names, **options)

    def explain(self, *names: object, **options: object) -> Any:
        """Why it answers so: `explain("Queen", "band member", "Brian May")`; see trainers/answers/explain.py."""
        return import_module("trainers.answers.explain").explain(self, *names, **options)

    def embeddings(self, **options: object) -> Any:
        """Its vectors of entities and relations, with their keys; see trainers/answers/embeddings.py."""
        return import_module("trainers.answers.embeddings").embeddings(self, **options)


def save_run(path: Path, model: nn.Module, about: dict, history: list[dict]) -> None:
    """Write weights, history and, last, run.json: a folder with a run.json is complete."""
    save_tensors(path / "weights.safetensors", model.state_dict())
    write_history(path, history)
    tables.write_json(path / "run.json", about)


def write_history(path: Path, history: list[dict]) -> None:
    """Write history.csv, also of a run that still trains."""
    tables.write_text(path / "history.csv", _csv(history))


def load_run(path: str | Path, device: str | torch.device = "cpu") -> Run:
    """Load a trained run; `run.score(known, relation, side)` then scores all entities as answers.

    Raises UserError if the folder lacks a file, a file is damaged, or the weights are of another model.
    """
    path = Path(path)
    about = read_about(path)
    module = module_of(about["model"])
    known = {field.name for field in fields(module.Settings)}
    if unknown := sorted(set(about["settings"]) - known):
        raise UserError(
            f"{path} was made by an older version ({', '.join(unknown)} are no settings now); train it again."
        )
    try:
        settings: Any = build(module.Settings, about["settings"])
    except Misfit as error:
        raise UserError(f"{path} was made by an older version ({error.said().rstrip('.')}); train it again.") from error
    data = blank(about["shapes"], memmaps_again(about.get("memmap", {}), path))
    model = module.build(data, settings, torch.Generator().manual_seed(0))
    _fill(model, load_tensors(path / "weights.safetensors"), path)
    model = model.to(torch.device(device)).eval()
    return Run(path, model, about, model.scorer())


def read_about(path: Path) -> dict:
    """run.json of a run folder. Raises UserError if it is missing, damaged, or no run's."""
    try:
        about = json.loads((path / "run.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path} holds no run.json: no finished run lies there; train it first (dvc repro).") from error
    except ValueError as error:
        raise UserError(f"{path / 'run.json'} is damaged ({error}); delete it and train again.") from error
    wanted = ("model", "graph", "settings", "shapes")
    if not isinstance(about, dict) or (lacking := [name for name in wanted if name not in about]):
        lacking = list(wanted) if not isinstance(about, dict) else lacking
        raise UserError(f"{path / 'run.json'} is of no run (it has no {', '.join(lacking)}); name another folder.")
    return about


def shapes(data: Data) -> dict:
    """The sizes from which `blank` makes data of the same shapes."""
    return {
        "name": data.name,
        "entities": data.entities,
        "relations": data.relations,
        "features": {name: list(one.matrix.shape) for name, one in data.features.items()},
        "tokens": {name: [len(one.entity), *one.codebook.shape] for name, one in data.tokens.items()},
    }


def blank(sizes: dict, features: dict[str, Features] | None = None) -> Data:
    """Data without content but the `features` given, for building a model whose weights are then loaded."""
    none = torch.empty(0, 3, dtype=torch.int64)
    given = features or {}
    features = {
        name: given.get(name) or Features(torch.arange(rows) % sizes["entities"], torch.zeros(rows, width))
        for name, (rows, width) in sizes["features"].items()
    }
    tokens = {
        name: Tokens(torch.arange(lists) % sizes["entities"], torch.zeros(lists + 1, dtype=torch.int64),
                     torch.empty(0, dtype=torch.int64), torch.arange(codes), torch.zeros(codes, width))
        for name, (lists, codes, width) in sizes["tokens"].items()
    }  # fmt: skip
    return Data(sizes["name"], sizes["entities"], sizes["relations"], none, none, none, features, tokens)


def memmaps(data: Data) -> dict:
    """What run.json says of the features that stay on disk, from which `memmaps_again` finds them."""
    return {
        name: {"table": str(one.memmap.table), "sha256": one.memmap.sha256, "folder": str(one.memmap.folder)}
        for name, one in data.features.items()
        if one.memmap is not None
    }


def memmaps_again(found: dict, path: Path) -> dict[str, Features]:
    """The features that `memmaps` named, mapped from disk again; `path` is the folder runs/<graph>/<model>.

    Raises UserError if a table is gone or has changed.
    """
    project = Path(path, "../../..").resolve()
    return {name: Features(*reopen(**one, base=project)) for name, one in found.items()}


def describe(data: Data, *, model: str, settings: Any, split: str, encoders: dict, seed: int, device: torch.device,
             precision: torch.dtype, progress) -> dict:  # fmt: skip
    """What run.json says: all that DESIGN.md asks a number to carry."""
    return {
        "model": model,
        "graph": data.name,
        "split": split,
        "encoders": encoders,
        "settings": asdict(settings),
        "shapes": shapes(data),
        "memmap": memmaps(data),
        "seed": seed,
        "epochs": progress.epoch,
        "chosen_epoch": progress.best_epoch,
        "dev_mrr": progress.best_mrr,
        "steps": progress.step,
        "triples_seen": progress.epoch * len(data.train),
        "seconds": progress.seconds,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "peak_memory_bytes": peak_memory(device),
        "device": device_name(device),
        "precision": str(precision).removeprefix("torch."),
        "code_version": code_version(model),
        **progress.finished,
    }


def comparable_dev_mrr(about: dict, measured: float) -> float:
    """MRR on dev by which a run may be compared: of a model that is fitted on dev the one found by cross-validation.

    `about` is run.json, `measured` what the weights as they are reach on dev.
    """
    return about.get("dev_mrr_by_cross_validation", measured)


def peak_memory(device: torch.device) -> int:
    """Bytes this process took at most: on a GPU what torch took there, else the resident set."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def device_name(device: torch.device) -> str:
    """The GPU's name, or the processor's architecture and the threads in use."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, {counted(torch.get_num_threads(), 'thread')}"


@functools.cache
def code_version(model: str) -> str:
    """The project's version and that of the code which trains `model`, as this process first found it."""
    return f"{metadata.version('tessera-mmkgc')}+{run_version(model)}"


def _fill(model: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Load `state`; tables whose length depends on the data (tokens in use, say) first take the saved length."""
    own = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for name, tensor in state.items():
        if name in own and own[name].shape != tensor.shape:
            own[name].data = torch.empty_like(tensor)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(f"{path / 'weights.safetensors'} does not fit its run.json; train again. ({error})") from error


def _csv(rows: list[dict]) -> str:
    first = ["epoch", "step", "loss"]
    last = ["dev_mrr", "triples_per_second", "seconds"]
    names = first + [name for name in rows[0] if name not in first + last] + last
    text = StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
