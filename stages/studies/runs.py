"""The single runs of a study: each trained once, kept under what it depends on, and asked under other conditions.

data/.work/studies/runs/<fingerprint>/    a run folder (trainers/training/runs.py), complete when its run.json is there
    asked/<condition>.{parquet,json}      test ranks and metrics under one condition, complete when the JSON is there

A run that the train stage left in runs/<graph>/<model>/ is taken as it is when its fingerprint is the wanted one.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from pipeline import tables
from pipeline.errors import UserError
from pipeline.modalities import MODALITIES
from trainers.about import about_model
from trainers.evaluation import ranking, significance
from trainers.evaluation.metrics import headline
from trainers.parts.replace_modality import replace_modality
from trainers.training import runs
from trainers.training.data import Data
from trainers.training.perturb import Change, covered, uncovered
from trainers.training.train import Schedule, filter_index, fingerprint, inputs_of, read, resolve_device, train

log = logging.getLogger(__name__)

WORK = Path("data/.work/studies")


@dataclass(frozen=True)
class Point:
    """One row of a study's table: what names it, and how its runs are made and asked."""

    columns: Mapping[str, object]
    settings: Any
    change: Change | None = None  # of what is trained on
    asked: Change | None = None  # of what the trained model is asked with
    encoded: Path | None = None  # other encoded tables than the graph's own
    reference: bool = False  # the row that the others are compared with


@dataclass
class Bench:
    """Where one graph and one model meet: trains what is not there yet, and asks it."""

    graph: str
    model: str
    schedule: Schedule
    memory_bytes: int
    seeds: Sequence[int]
    root: Path = Path(".")
    trained: int = 0  # runs trained now
    kept: int = 0  # runs found
    marks: set[str] = field(default_factory=set)  # the fingerprints of both
    _data: dict = field(default_factory=dict)

    def data(self, settings: Any, encoded: Path | None = None) -> Data:
        """The graph as the model reads it, read once."""
        key = (tuple(settings.modalities), encoded)
        if key not in self._data:
            self._data[key] = read(self.model, settings, **self._tables(encoded))
        return self._data[key]

    def row(self, point: Point) -> dict:
        """The columns of the point, its metrics over the seeds, and what only `finish` can turn into columns."""
        found = [self.ask(point, seed) for seed in self.seeds]
        metrics = significance.over_seeds([one["metrics"] for one in found])
        row = dict(point.columns)
        for name in headline():
            row[name], row[f"{name}_deviation"] = metrics[name]["mean"], metrics[name]["deviation"]
        row |= {name: float(np.mean([one["counts"][name] for one in found])) for name in counted()}
        row |= {"runs": len(found), "seconds": float(np.sum([one["seconds"] for one in found]))}
        ranks = [ranking.read(one["ranks"])["realistic"] for one in found]
        row["_reciprocal"] = np.mean([1 / rank for rank in ranks], axis=0)
        row["_reference"] = point.reference
        return row

    def ask(self, point: Point, seed: int) -> dict:
        """Metrics, counts and the path of the ranks of one run under one condition, from disk if they are there."""
        change, asked = (effective(one, seed) for one in (point.change, point.asked))
        folder, mark = self.run(point, change, seed)
        condition = "as-trained" if change == asked else _digest(asked and asdict(asked))
        kept = self.root / WORK / "runs" / mark / "asked" / f"{condition}.json"
        ranks = kept.with_suffix(".parquet")
        if kept.exists() and ranks.exists():
            return json.loads(kept.read_text(encoding="utf-8")) | {"ranks": ranks}
        device = resolve_device(self.schedule.device)
        run = runs.load_run(folder, device)
        given = self.data(point.settings, point.encoded)
        before, after = (one(given) if one else given for one in (change, asked))
        score = run.score
        if change != asked:
            (reads,) = about_model(self.model).reads  # the studies that ask otherwise are of such models
            model: Any = replace_modality(run.model, before, after, reads).eval()
            score = model.scorer()
        found = ranking.rank(
            score,
            given.test,
            filter_index(given),
            entities=given.entities,
            memory_bytes=self.memory_bytes,
            device=device,
        )
        about = {
            "metrics": ranking.metrics(found),
            "counts": {
                "train_triples": len(before.train),
                "unseen_entities": uncovered(before),
                **{f"with_{name}": covered(before, name) for name in MODALITIES},
                **{f"asked_with_{name}": covered(after, name) for name in MODALITIES},
            },
            "seconds": run.about["seconds"],
            "fingerprint": mark,
            "change": change and asdict(change),
            "asked": asked and asdict(asked),
        }
        ranking.write(ranks, {"test": found}, {"kind": "ranks", "fingerprint": mark, "asked": about["asked"]})
        tables.write_json(kept, about)
        return about | {"ranks": ranks}

    def run(self, point: Point, change: Change | None, seed: int) -> tuple[Path, str]:
        """The folder of a complete run, trained if there is none, and its fingerprint."""
        where = self._tables(point.encoded)
        inputs = inputs_of(self.model, point.settings, **where)
        mark = fingerprint(self.model, point.settings, self.schedule, seed=seed, inputs=inputs, change=change)
        self.marks.add(mark)
        folder = self.root / WORK / "runs" / mark
        with alone(folder.with_suffix(".lock")):  # another study may be training the same run: then wait for it
            for found in (folder, self.root / "runs" / self.graph / self.model):
                if (found / "run.json").exists() and runs.read_about(found).get("fingerprint") == mark:
                    self.kept += 1
                    return found, mark
            train(
                self.model,
                point.settings,
                self.schedule,
                run=folder,
                work=self.root / WORK / "unfinished",
                seed=seed,
                change=change,
                graph=where["graph"],
                encoded=where["encoded"],
            )
        self.trained += 1
        return folder, mark

    def _tables(self, encoded: Path | None) -> dict[str, Path]:
        folder = self.root / "data" / self.graph
        return {"graph": folder / "graph", "encoded": encoded or folder / "encoded"}


def counted() -> list[str]:
    """The columns that say what a run was trained on and asked with."""
    asked = [f"{when}_{name}" for when in ("with", "asked_with") for name in MODALITIES]
    return ["train_triples", "unseen_entities", *asked]


def effective(change: Change | None, seed: int) -> Change | None:
    """The change as this seed draws it; None if it changes nothing, so that such runs are one run."""
    return replace(change, seed=seed) if change and change.strength else None


def rows(bench: Bench, points: Sequence[Point], tell: Callable[[str], None] = log.info) -> list[dict]:
    """All rows of a study, told one by one as they are done, with their comparison to the reference row.

    Raises UserError if no point is there or a run cannot be made.
    """
    if not points:
        raise UserError(f"There is nothing to study of {bench.model} on {bench.graph} with these settings.")
    found = []
    for place, point in enumerate(points, start=1):
        before = bench.trained
        row = bench.row(point)
        found.append(row)
        fresh = bench.trained - before
        what = ", ".join(f"{name} {value}" for name, value in point.columns.items())
        spread = "" if row["mrr_deviation"] is None else f" ± {row['mrr_deviation']:.4f}"
        runs_ = f"{row['runs']} runs, {fresh} trained now"
        tell(f"{place}/{len(points)} {what}: test MRR {row['mrr']:.4f}{spread} ({runs_})")
    return [finish(row, found) for row in found]


def finish(row: dict, every: Sequence[dict]) -> dict:
    """The row as the table shows it: intervals over queries, its difference from the reference row with a p value.

    Counts that are the same in every row say nothing and are left out.
    """
    low, high = significance.percentile_interval(significance.bootstrap_means(row["_reciprocal"]))
    shown = {name: value for name, value in row.items() if not name.startswith("_") and name not in counted()}
    shown |= {"mrr_low": float(low[0, 0]), "mrr_high": float(high[0, 0])}
    reference = next((one for one in every if one["_reference"]), None)
    if reference is not None and reference is not row:
        gap = row["_reciprocal"] - reference["_reciprocal"]
        shown |= {"difference": float(gap.mean()), "p": float(significance.permutation_test(gap, samples=2000)[0])}
    elif reference is not None:
        shown |= {"difference": None, "p": None}
    return shown | {name: row[name] for name in counted() if len({one[name] for one in every}) > 1}


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold a lock on this machine until the end of the block, or of the process."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path):
        yield


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]
