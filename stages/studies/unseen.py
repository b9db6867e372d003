"""The study of unseen entities: how well a model, not trained again, asks and answers with entities it never saw.

A share of the entities is held out whole (trainers/training/held_out.py); the model is trained without them and then
asked, as `run.ask` would, about their facts that join them with an entity it knows. Beside it stand what needs no
training: popularity, and the likeness of texts. What is chosen (the stand-in for the structure, the sharpness of the
likeness) is chosen on one half of the entities held out; the table is of the other half.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import tables
from pipeline.errors import UserError
from pipeline.modalities import MODALITIES, used
from stages.studies import baselines, figures
from stages.studies.protocols import Subject
from stages.studies.runs import WORK, Bench, alone
from stages.studies.tables import about, csv_of
from trainers.about import about_model
from trainers.evaluation import ranking, significance
from trainers.evaluation.metrics import MRR, headline, per_query
from trainers.parts.unseen import STAND_INS, takes, with_entities
from trainers.training import data as reading
from trainers.training import runs
from trainers.training.data import Data
from trainers.training.held_out import Cut, hold_out, write
from trainers.training.train import encoders, filter_index, fingerprint, inputs_of, resolve_device, train

log = logging.getLogger(__name__)

SHARPNESS = (5.0, 15.0, 40.0)  # of the likeness of texts, of which one is chosen
FACTS = "nearest facts by text"
ASKED = ("both", "asked about it", "it is the answer")
PROTOCOL = (
    "A share of the entities is held out: none of their facts, texts and pictures is trained on, and the others are "
    "numbered anew. The trained model then gets their texts and pictures through its projections, and in place of the "
    "structure's vector a stand-in. Ranked are the facts, of all splits, that join one of them with an entity that was "
    "trained on, in both directions, over all entities, all known facts filtered. Stand-in and sharpness are chosen "
    "on one half of the entities held out, the table is of the other. Pictures drawn from the graph's own facts, which "
    "would show what is asked, are left out."
)


@dataclass(frozen=True)
class Answered:
    """One way to score, on one seed's facts: reciprocal ranks to choose by, and ranks to tell."""

    name: str
    stand_in: str
    chosen_by: float
    ranks: Mapping[str, np.ndarray]
    known_unseen: np.ndarray  # of each query, whether the entity held out is the known one


def run(subject: Subject, bench: Bench, folder: Path) -> None:
    """Train without the entities held out, ask about them, and write table, figure and words."""
    subject = _without_drawings(subject, bench)
    found = [list(_of_seed(subject, bench, seed)) for seed in bench.seeds]
    rows = list(_rows(found))
    plot = {
        "title": f"Unseen entities: {subject.model} on {subject.graph}", "x": "scores", "x_label": "",
        "y": MRR.name, "y_label": f"test {MRR.label} (%)", "scale": 100, "series": "direction", "panel": None,
        "deviation": f"{MRR.name}_deviation",
    }  # fmt: skip
    tables.write_text(folder / "table.csv", csv_of(rows))
    figures.save(figures.draw(rows, plot), folder / "figure")
    title = "Unseen entities"
    tables.write_json(folder / "study.json", about(title, PROTOCOL, subject, bench) | {"plot": plot})
    for row in rows:
        if row["direction"] == "both":
            log.info("%s: MRR %.4f, Hits@10 %.4f", row["scores"], row["mrr"], row["hits_at_10"])


def _without_drawings(subject: Subject, bench: Bench) -> Subject:
    """The subject without the modalities that code has drawn from the facts, of which those held out are some."""
    folder = bench.root / "data" / subject.graph
    drawn = {name for name, one in MODALITIES.items() if one.drawn and one.called(folder) == one.drawn}
    left = tuple(name for name in subject.settings.modalities if name not in drawn)
    if len(left) == len(subject.settings.modalities):
        return subject
    if not used(left):
        raise UserError(f"{subject.model} reads nothing of an entity of {subject.graph} but drawings of its facts.")
    settings = replace(subject.settings, modalities=left)
    return replace(subject, settings=settings, data=lambda: bench.data(settings))


def _of_seed(subject: Subject, bench: Bench, seed: int) -> Iterator[Answered]:
    data = subject.data()
    cut = hold_out(data, subject.values.held_out, seed)
    trained = _trained(subject, bench, cut, seed)
    if not takes(trained.model):
        raise UserError(f"{subject.model} has no place for entities that it was not trained with.")
    reads = about_model(subject.model).reads
    entities, known = cut.whole.entities, filter_index(cut.whole)
    device = resolve_device(bench.schedule.device)

    def answered(name: str, stand_in: str, score: Any) -> Answered:
        ranked = [
            ranking.rank(score, facts, known, entities=entities, memory_bytes=bench.memory_bytes, device=device)
            for facts in (cut.choose_on, cut.measure_on)
        ]
        ranks = ranked[1]
        of = np.where(ranks["direction"] == "tail", ranks["head"], ranks["tail"])
        chosen_by = float((1 / ranked[0]["realistic"]).mean())
        return Answered(name, stand_in, chosen_by, ranks, of >= cut.seen.entities)

    for stand_in in STAND_INS:
        model = with_entities(trained.model, cut.seen, cut.whole, reads, stand_in)
        yield answered(f"{subject.model}, {stand_in}", stand_in, model.scorer())
    train_rows = cut.seen.train
    yield answered("popularity", "", baselines.popularity(train_rows, entities, data.relations))
    unit = baselines.text_directions(_texts(bench, data, seed, subject), cut.seen.entities)
    yield answered("likeness of texts", "", baselines.likeness(unit))
    tried = [answered(FACTS, "", baselines.nearest_facts(unit, train_rows, one)) for one in SHARPNESS]
    yield max(tried, key=lambda one: one.chosen_by)


def _texts(bench: Bench, data: Data, seed: int, subject: Subject) -> Data:
    """The graph with the texts' features, whatever the model reads, numbered as the model's is."""
    folder = bench.root / "data" / bench.graph
    text = reading.load(folder / "graph", folder / "encoded", name=data.name, features=("text",))
    return hold_out(text, subject.values.held_out, seed).whole


def _trained(subject: Subject, bench: Bench, cut: Cut, seed: int) -> runs.Run:
    """The run on what is left, trained if there is none."""
    folder = bench.root / WORK / "unseen" / f"{subject.graph}-{subject.values.held_out:g}-{seed}" / subject.model
    graph, encoded = folder / "graph", folder / "encoded"
    whole = bench.root / "data" / subject.graph
    made = encoders(whole / "encoded", about_model(subject.model).reads, list(subject.modalities))
    with alone(folder.with_suffix(".lock")):
        write(cut.seen, graph, encoded, {"triples": tables.provenance(whole / "graph/triples.parquet"), **made})
        inputs = inputs_of(subject.model, subject.settings, graph=graph, encoded=encoded)
        mark = fingerprint(subject.model, subject.settings, bench.schedule, seed=seed, inputs=inputs)
        bench.marks.add(mark)
        place = bench.root / WORK / "runs" / mark
        if (place / "run.json").exists():
            bench.kept += 1
        else:
            train(
                subject.model, subject.settings, bench.schedule, graph=graph, encoded=encoded, run=place,
                work=bench.root / WORK / "unfinished", seed=seed,
            )  # fmt: skip
            bench.trained += 1
    return runs.load_run(place, resolve_device(bench.schedule.device))


def _rows(found: Sequence[Sequence[Answered]]) -> Iterator[dict]:
    """A row for each way to score and each direction: means over the seeds, intervals over all their queries."""
    ways = list(zip(*found, strict=True))
    best = max((way for way in ways if way[0].stand_in), key=lambda way: np.mean([one.chosen_by for one in way]))
    reference = next(way for way in ways if way[0].name == FACTS)
    for way in ways:
        for asked in ASKED:
            ranks = [_part(one, asked) for one in way]
            metrics = significance.over_seeds([ranking.metrics(one) for one in ranks])
            row: dict[str, Any] = {"scores": way[0].name, "direction": asked}
            row["chosen"] = "yes" if way is best else ""
            for name in headline():
                row[name], row[f"{name}_deviation"] = metrics[name]["mean"], metrics[name]["deviation"]
            reciprocal = _reciprocal(ranks)
            low, high = significance.percentile_interval(significance.bootstrap_means(reciprocal))
            row |= {"mrr_low": float(low[0, 0]), "mrr_high": float(high[0, 0])}
            gap = reciprocal - _reciprocal([_part(one, asked) for one in reference])
            told = way is not reference
            row["difference"] = float(gap.mean()) if told else None
            row["p"] = float(significance.permutation_test(gap, samples=2000)[0]) if told else None
            yield row | {"queries": len(reciprocal), "runs": len(way)}


def _part(one: Answered, asked: str) -> dict[str, np.ndarray]:
    """The ranks of one direction."""
    if asked == "both":
        return dict(one.ranks)
    rows = one.known_unseen if asked == "asked about it" else ~one.known_unseen
    return {name: values[rows] for name, values in one.ranks.items()}


def _reciprocal(ranks: Sequence[Mapping[str, np.ndarray]]) -> np.ndarray:
    return np.concatenate([per_query(one["realistic"], MRR.name) for one in ranks])
