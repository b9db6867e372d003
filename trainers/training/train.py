"""One training run from Parquet to a run folder: what the train stage and the studies both call."""

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from pipeline import tables
from pipeline.errors import UserError
from pipeline.graph.filter_index import FilterIndex
from pipeline.modalities import used
from trainers import matmul, room
from trainers.about import PaperProtocol, about_model, module_of
from trainers.evaluation import ranking
from trainers.evaluation.metrics import MRR
from trainers.evaluation.protocols import TestProbe
from trainers.matmul import Choice
from trainers.training import data as reading
from trainers.training import loop, processes, runs, watch
from trainers.training.checkpoint import file_lock
from trainers.training.data import Data, Features, Tokens
from trainers.training.memmap import digest
from trainers.training.perturb import Change
from trainers.training.version import run_version

log = logging.getLogger(__name__)

# What of a Schedule says where and how safely a run is trained, not what; its other fields decide the numbers.
NO_NUMBER = ("device", "processes", "checkpoint_every", "keep_memory", "tensorboard")


@dataclass(frozen=True)
class Schedule:
    """When to measure, when to stop, when to save. The keys of `train:` in params.yaml."""

    device: str = "auto"
    precision: str = "auto"
    evaluate_every: int = 10
    patience: int = 5
    checkpoint_every: int = 10
    dev_sample: int | None = None
    train_on: Literal["train", "train+dev"] = "train"
    matmul: Choice = "auto"
    keep_memory: int | None = None  # MiB; None: a quarter of what is free
    tensorboard: bool = False  # write what TensorBoard shows into the folder `tensorboard` beside the work
    processes: int = 1  # of one machine; who starts them has read it, the run itself does not


def train(
    model: str,
    settings: Any,
    schedule: Schedule,
    *,
    graph: Path,
    encoded: Path,
    run: Path,
    work: Path,
    seed: int,
    protocol: PaperProtocol | None = None,
    change: Change | None = None,
) -> dict:
    """Train `model` on the tables in `graph` and `encoded`, write the run folder `run`, return its run.json.

    `settings` is the trainer's own `Settings`. What an interrupted run resumes from lies in `work`, in a folder named
    after everything that the run depends on; it is deleted when the run is complete. What `protocol` would report, if
    one is given, is kept in run.json under "reference_protocol". `change` (see perturb.py) is made to what is trained
    on; the facts that ranking filters by stay the graph's.

    Raises UserError if a table cannot be used, the loss stops being finite, or memory or disk run out.
    """
    module = module_of(model)
    device, precision = processes.join(resolve_device(schedule.device)), resolve_precision(schedule)
    multiplied = matmul.use(schedule.matmul, device)
    room.keep_at_most(schedule.keep_memory)
    given = _read_in_turn(model, settings, graph, encoded, None if change else work / "tables")
    check(given)
    settings = without_absent(settings, given)
    modalities = modalities_of(settings)
    data = replace(change(given), facts=torch.cat([given.train, given.dev, given.test])) if change else given
    evaluate_every = getattr(settings, "evaluate_every", None) or schedule.evaluate_every
    if schedule.train_on == "train+dev":  # nothing is chosen any more: the weights are those after the last epoch
        data = replace(data, train=torch.cat([data.train, data.dev]))
        evaluate_every = settings.epochs
    inputs = inputs_of(model, settings, graph=graph, encoded=encoded)
    mark = fingerprint(model, settings, schedule, seed=seed, inputs=inputs, protocol=protocol, change=change)
    folder = work / mark

    built = module.build(data, settings, torch.Generator().manual_seed(seed))
    learner = module.Learner(built.to(device), data, settings, device=device, precision=precision, seed=seed)
    probe = TestProbe(protocol, test_ranks(given, device), settings.epochs, evaluate_every) if protocol else None
    with file_lock(folder, processes.is_first()):
        progress = loop.fit(
            learner,
            dev_measure(given, device, schedule.dev_sample, seed),
            triples=len(data.train),
            epochs=settings.epochs,
            evaluate_every=evaluate_every,
            patience=schedule.patience,
            checkpoint_every=min(schedule.checkpoint_every, evaluate_every),
            seed=seed,
            work=folder,
            probe=probe,
            each=_watched(run, work.parent / "tensorboard" if schedule.tensorboard else None),
        )
    about = runs.describe(
        data,
        model=model,
        settings=settings,
        split=split_of(graph),
        encoders=encoders(encoded, module.ABOUT.reads, modalities),
        seed=seed,
        device=device,
        precision=precision,
        progress=progress,
    )
    about |= {
        "matmul": multiplied,
        "train_on": schedule.train_on,
        "inputs": inputs,
        "fingerprint": mark,
        **({"change": asdict(change)} if change else {}),
    }
    if probe:
        about["reference_protocol"] = probe.summary(progress.history)
    about["processes"] = processes.count()
    if processes.is_first():
        runs.save_run(run, learner.model, about, progress.history)
        shutil.rmtree(folder, ignore_errors=True)
    return about


def _watched(run: Path, board: Path | None) -> Callable[[list[dict]], None]:
    """What is written after each epoch for those who watch: history.csv, at most once a second, and TensorBoard's."""
    write = watch.tensorboard(board / run.parent.name / run.name) if board and processes.is_first() else None
    last = 0.0

    def each(history: list[dict]) -> None:
        nonlocal last
        if write:
            write(history[-1])
        # A folder with a run.json holds a run that is whole: its history goes when the new one takes its place.
        if not (run / "run.json").exists() and time.monotonic() - last > 1:
            runs.write_history(run, history)
            last = time.monotonic()

    return each


def modalities_of(settings: object) -> list[str]:
    """Those of its settings' modalities that a model reads from tables."""
    return used(getattr(settings, "modalities", ()))


def without_absent(settings: Any, data: Data) -> Any:
    """The settings without the modalities that no entity of the graph has.

    Raises UserError if nothing is left to learn from.
    """
    tables_read: dict[str, Features | Tokens] = {**data.features, **data.tokens}
    absent = [name for name in modalities_of(settings) if name in tables_read and not len(tables_read[name].entity)]
    if not absent:
        return settings
    left = tuple(name for name in settings.modalities if name not in absent)
    what = " or ".join(absent)
    if not left:
        raise UserError(f"No entity of {data.name} has an encoded {what}, and the model is to read nothing else.")
    log.warning("No entity of %s has an encoded %s: training without.", data.name, what)
    return replace(settings, modalities=left)


def read(model: str, settings: object, *, graph: Path, encoded: Path, memmap: Path | None = None) -> Data:
    """The data as this model reads it. Raises UserError if a table cannot be used.

    With a folder `memmap`, features that the settings freeze (`feature_table: frozen`) stay on disk there.
    """
    reads, modalities = about_model(model).reads, modalities_of(settings)
    return reading.load(
        graph,
        encoded,
        name=graph.parent.name,
        features=modalities if "features" in reads else (),
        tokens=modalities if "tokens" in reads else (),
        memmap=memmap if getattr(settings, "feature_table", None) == "frozen" else None,
    )


def _read_in_turn(model: str, settings: object, graph: Path, encoded: Path, memmap: Path | None) -> Data:
    """`read`, the first process before the others, so that tables are unpacked once."""
    if not processes.is_first():
        processes.wait()
    data = read(model, settings, graph=graph, encoded=encoded, memmap=memmap)
    if processes.is_first():
        processes.wait()
    return data


def inputs_of(model: str, settings: object, *, graph: Path, encoded: Path) -> dict[str, str]:
    """The tables that this model reads, each path with the sha256 of its file."""
    paths = _tables_read(graph, encoded, about_model(model).reads, modalities_of(settings))
    return {str(path): digest(path) for path in paths}


def check_inputs(run: Path, about: Mapping, graph: Path) -> None:
    """Raise UserError if a run was trained on other tables than those that lie in and beside `graph` now.

    `about` is its run.json. Ids are places in these tables: of others, the model's scores would be of other entities.
    """
    for name, trained_on in about.get("inputs", {}).items():
        parts = Path(name).parts  # …/graph/triples.parquet, or …/encoded/<modality>/<table>.parquet, as it lay there
        path = graph.parent.joinpath(*parts[-3:]) if "encoded" in parts[-3:] else graph / parts[-1]
        if not path.exists() or digest(path) != trained_on:
            raise UserError(
                f"{run} was trained on another {path} than the one that lies there now; train it again (dvc repro), or "
                "name the folder of its own tables."
            )


def fingerprint(
    model: str,
    settings: Any,
    schedule: Schedule,
    *,
    seed: int,
    inputs: dict[str, str],
    protocol: PaperProtocol | None = None,
    change: Change | None = None,
) -> str:
    """16 hexadecimal digits for all that a run depends on: equal ones mean that there is nothing to train again.

    Where, by how many processes and how safely it is trained is left out, so that a run which was interrupted goes on
    from its checkpoint on another device, as it does in other processes or at another interval.
    """
    counted = {key: value for key, value in asdict(schedule).items() if key not in NO_NUMBER}
    mark = {"model": model, "settings": asdict(settings), "schedule": counted, "seed": seed,
            "inputs": sorted(inputs.values()), "code": run_version(model),
            "protocol": protocol and protocol.name, "change": change and asdict(change)}  # fmt: skip
    return hashlib.sha256(json.dumps(mark, sort_keys=True).encode()).hexdigest()[:16]


def resolve_device(name: str) -> torch.device:
    """`auto` is the GPU if there is one, else the CPU. Raises UserError if the named device is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(
            f"train.device is {name!r}: no such kind of device; use auto, cpu, cuda or cuda:<n>."
        ) from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"train.device is {name!r}, but torch finds no GPU here; use auto or cpu.")
    return device


def resolve_precision(schedule: Schedule) -> torch.dtype:
    """`auto` is bfloat16 on a GPU, else float32."""
    if schedule.precision == "auto":
        return torch.bfloat16 if resolve_device(schedule.device).type == "cuda" else torch.float32
    return getattr(torch, schedule.precision)


def check(data: Data) -> None:
    """Raise UserError if there is nothing to learn from or to choose on."""
    for name in ("train", "dev"):
        if not len(getattr(data, name)):
            raise UserError(
                f"The graph {data.name} has no {name} triples; look at `split` in its file below configs/graphs."
            )


def filter_index(data: Data) -> FilterIndex:
    """All facts of all splits: what filtered ranking leaves out."""
    facts = torch.cat([data.train, data.dev, data.test]) if data.facts is None else data.facts
    return FilterIndex.build(facts, data.entities, data.relations)


def dev_measure(data: Data, device: torch.device, sample: int | None, seed: int, of: Tensor | None = None):
    """A function of the model that gives its filtered realistic MRR on dev, or on a seeded sample of dev.

    With `of` (n, 3), these of dev's facts alone are measured on.
    """
    known = filter_index(data)
    dev = data.dev if of is None else of
    if sample is not None and sample < len(dev):
        dev = dev[np.sort(np.random.default_rng(seed).choice(len(dev), sample, replace=False))]

    def measure(model: Any) -> float:
        model.eval()
        ranks = ranking.rank(model.scorer(), dev, known, entities=data.entities, device=device)
        return ranking.metrics(ranks)[MRR.name]

    return measure


def test_ranks(data: Data, device: torch.device) -> Callable[[nn.Module], ranking.Ranks]:
    """A function of the model that ranks test, for the papers' protocols only."""
    known = filter_index(data)

    def ranks(model: Any) -> ranking.Ranks:
        model.eval()
        return ranking.rank(model.scorer(), data.test, known, entities=data.entities, device=device)

    return ranks


def encoders(encoded: Path, reads: Sequence[str], modalities: list[str]) -> dict:
    """What made each modality's table, from the table itself."""
    return {name: tables.provenance(encoded / name / f"{reads[0]}.parquet") for name in modalities if reads}


def split_of(graph: Path) -> str:
    """`clean` or `released`, as the triples' table says."""
    return str(tables.provenance(graph / "triples.parquet").get("split", "unknown"))


def _tables_read(graph: Path, encoded: Path, reads: Sequence[str], modalities: list[str]) -> list[Path]:
    kinds = [*reads, "codebook"] if "tokens" in reads else reads
    return [graph / "triples.parquet"] + [encoded / name / f"{kind}.parquet" for name in modalities for kind in kinds]
