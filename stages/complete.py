"""Stage complete: the missing facts that a run holds for most probable, with probabilities calibrated on dev.

`dvc repro` runs it for the models of `complete.models`; by hand, options go before the keys of `complete`. `--format`
writes what completions.parquet holds as another file beside it, and computes nothing. What a probability means under
the open world is said in trainers/answers/calibration.py.
"""

import logging
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from pipeline import tables
from pipeline.errors import UserError, counted
from pipeline.graph.filter_index import FilterIndex
from stages.cli import arguments, stage
from stages.params import load_params
from stages.shown import FOLDER, summary
from trainers.answers.ask import World, world_of
from trainers.answers.calibration import FILE, SIDES, as_json, calibrate
from trainers.answers.completions import Choice, Columns, Completions, Facts, complete
from trainers.answers.export import FORMATS
from trainers.training import data, runs
from trainers.training.train import filter_index, resolve_device

log = logging.getLogger(__name__)
NAME = "completions.parquet"


def calibrated(run: runs.Run, triples: data.Data, learnt: FilterIndex, memory: int) -> dict[str, tuple]:
    """By side, a calibration and what was measured of it; empty where dev cannot say anything.

    `learnt` holds the facts of train and dev: those of test teach neither weights nor probabilities.
    """
    if run.about.get("train_on") == "train+dev":
        log.warning("%s has learnt dev, so its scores get no probabilities.", run.path)
        return {}
    found = {side: calibrate(run.score, triples.dev, learnt, side, memory_bytes=memory) for side in SIDES}
    if not all(found.values()):
        log.warning("%s has %s of dev, too few for probabilities.", triples.name, counted(len(triples.dev), "fact"))
    return {side: one for side, one in found.items() if one}


def facts_of(triples: data.Data, known: FilterIndex) -> Facts:
    """The facts by split as `complete` wants them."""
    rows = triples.test, torch.cat([triples.train, triples.dev])
    test, others = (FilterIndex.build(one, triples.entities, triples.relations) for one in rows)
    return Facts(triples.train, test, known, others)


def with_names(missing: Columns, world: World) -> dict[str, object]:
    """The columns of completions.parquet."""
    named = {"head": world.entities, "relation": world.relations, "tail": world.entities}
    columns: dict[str, object] = {name: missing[name] for name in (*named, "rank", "score")}
    columns["probability"] = pa.array(missing["probability"], mask=np.isnan(missing["probability"]))
    for name, names in named.items():
        for kind in ("key", "label"):
            columns[f"{name}_{kind}"] = [getattr(names, kind)[i] for i in missing[name]]
    return columns


def find(folder: Path, graph: Path, choice: Choice, relations: list[str], memory: int, device: torch.device) -> None:
    """Write completions.parquet and completions.json into the run's folder, and say what was found."""
    run = runs.load_run(folder, device)
    world = world_of(run, graph)
    triples = data.load(graph, graph.parent / "encoded", name=graph.parent.name)
    known = filter_index(triples)
    asked = [world.relations.find(name) for name in relations] or range(triples.relations)
    facts = facts_of(triples, known)
    found = calibrated(run, triples, facts.others, memory)
    by_side = {side: one for side, (one, _) in found.items()}
    done = complete(run.score, facts, list(dict.fromkeys(asked)), by_side.get("tail"), choice,
                    memory_bytes=memory)  # fmt: skip
    provenance = {key: run.about[key] for key in ("model", "graph", "split", "seed", "code_version")}
    provenance |= {"fingerprint": run.about.get("fingerprint")}
    measured = {
        "completions": len(done.missing["head"]),
        "choice": {**asdict(choice), "relations": relations},
        "calibrated_on_dev": {side: about for side, (_, about) in found.items()},
        "test_as_if_unknown": {
            "chosen": done.chosen, "of_test": done.of_test, "precision": done.precision,
            "mean_probability": None if np.isnan(done.expected) else done.expected,
        },
    }  # fmt: skip
    tables.write(folder / NAME, "completions", with_names(done.missing, world), {**provenance, "kind": "completions"})
    tables.write_json(folder / FILE, {**measured, "calibration": as_json(by_side), "provenance": provenance})
    print(said(folder, done, {side: about for side, (_, about) in found.items()}))


def said(folder: Path, done: Completions, measured: dict[str, dict]) -> str:
    """What was found, in lines."""
    lines = [f"{folder}: {len(done.missing['head']):,} missing facts"]
    if measured:
        errors = ", ".join(f"{one['expected_calibration_error']:.3f} ({side})" for side, one in measured.items())
        lines.append(f"expected calibration error on dev, cross-fitted: {errors}")
    if done.precision is not None:
        lines.append(
            f"of {done.chosen:,} chosen as if test were unknown {done.of_test:,} stand in test: precision at least "
            f"{done.precision:.1%}" + ("" if np.isnan(done.expected) else f" (mean probability {done.expected:.2f})")
        )
    return "\n".join(lines)


@stage
def main() -> None:
    parser = arguments(__doc__, "graph", "model")
    parser.add_argument("--format", choices=FORMATS, help="write what was found as completions.FORMAT, too")
    parser.add_argument("--relation", action="append", help="of this relation only; may be given again")
    parser.add_argument("--per-relation", type=int, help="at most so many of a relation")
    parser.add_argument("--smallest-probability", type=float, help="none below it, 0 to 1")
    parser.add_argument(
        "--types", choices=("seen", "any"), help="heads and tails that the relation has in train, or any"
    )
    options = parser.parse_args()
    folder = Path("runs") / options.graph / options.model
    if options.format is not None:
        chosen = (options.relation, options.per_relation, options.smallest_probability, options.types)
        if any(one is not None for one in chosen):
            raise UserError("--format writes what was found before; choose facts without it, then write them with it.")
        path = folder / f"completions.{options.format}"
        tables.write_text(path, FORMATS[options.format](tables.read(folder / NAME, "completions")))
        print(path)
        return
    params = load_params()
    most = params.complete.per_relation if options.per_relation is None else options.per_relation
    least = params.complete.smallest_probability
    least = least if options.smallest_probability is None else options.smallest_probability
    if most < 1 or not 0 <= least <= 1:
        raise UserError("--per-relation is at least 1, and --smallest-probability lies between 0 and 1.")
    choice = Choice(most, least, (options.types or params.complete.types) == "seen")
    relations = params.complete.relations if options.relation is None else options.relation
    find(folder, Path("data") / options.graph / "graph", choice, relations, params.evaluate.memory << 20,
         resolve_device(params.train.device))  # fmt: skip
    shown = FOLDER / options.graph / f"{options.model}.completions.txt"
    tables.write_text(shown, summary(folder, (NAME, FILE)))


if __name__ == "__main__":
    main()
