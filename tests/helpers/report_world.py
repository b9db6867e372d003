"""A small finished project for the report's tests: a graph with texts and drawings, and runs with real ranks."""

import io
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from pipeline import tables
from pipeline.graph.audit import audit
from pipeline.graph.categories import categories
from pipeline.graph.filter_index import FilterIndex
from pipeline.graph.graph import Graph
from pipeline.modalities.parts import NONE, Parts, absent, row
from pipeline.modalities.pictures import clean
from trainers.evaluation import ranking, significance

ENTITIES, RELATIONS = 120, 6
MODELS = ("adamf_mat", "momok", "mygo", "rotate")
WORDS = "river city singer album village country actor film lake mountain"


class Scorer:
    """Answers like a model that knows the graph a little: noise, and a gain on true answers."""

    def __init__(self, truth: FilterIndex, seed: int, gain: float):
        generator = torch.Generator().manual_seed(seed)
        self.noise = torch.randn(RELATIONS, ENTITIES, ENTITIES, generator=generator)
        for side in ranking.DIRECTIONS:
            query = (truth.tails if side == "tail" else truth.heads).query
            known, relation = query // RELATIONS, query % RELATIONS
            at, entity = truth.answers(known, relation, side)
            place = (known[at], entity) if side == "tail" else (entity, known[at])
            self.noise[relation[at], place[0], place[1]] += gain / 2

    def score(self, known, relation, side):
        return self.noise[relation, known] if side == "tail" else self.noise[relation, :, known]


def build(
    root: Path, name: str = "DB15K", models=MODELS, *, drawn: bool = True, seed: int = 0, only_in: str | None = None
) -> dict[Path, Scorer]:
    """Write data/<name> and runs/<name>/<model> below `root`; returns each run folder's scorer.

    With `only_in` the last relation has facts in that split alone ("" for none), and so has the last entity.
    """
    generator = np.random.default_rng(seed)
    rows = _facts(generator)
    released = {"train": rows[:1000], "dev": rows[900:1000], "test": rows[1000:1200]}
    used = {"train": rows[:900], "dev": rows[900:1000], "test": rows[1000:1200]}
    if only_in is not None:
        used = {split: part if split == only_in else _without_the_last(part) for split, part in used.items()}
    keys = addresses()
    labels = [f"{WORDS.split()[one % 10].title()} {one}" for one in range(ENTITIES)]
    names = ("country", "birthPlace", "starring", "genre", "isPartOf", "nearestCity")
    relations = [f"http://dbpedia.org/ontology/{name}" for name in names]
    graph = Graph(keys, labels, relations, ["country", "born in", "starring", "genre", "part of", "next to"], released)
    folder = root / "data" / name
    _write_graph(folder, graph, used)
    _write_text(folder, labels)
    _write_pictures(folder, drawn)
    _write_encoded(folder / "encoded")
    known = FilterIndex.build(np.concatenate(list(used.values())), ENTITIES, RELATIONS)
    scorers = {}
    for place, model in enumerate(models):
        scorer = Scorer(known, place, 2.6 + 0.3 * place)
        write_run(root / "runs" / name / model, name, model, scorer, used, known, place)
        scorers[root / "runs" / name / model] = scorer
    return scorers


def addresses() -> list[str]:
    """The entities' keys."""
    return [f"http://dbpedia.org/resource/Entity_{one}" for one in range(ENTITIES)]


def _facts(generator: np.random.Generator) -> np.ndarray:
    """1,200 distinct triples whose relations are of all four categories."""
    head, tail = (generator.integers(0, ENTITIES, 9000) for _ in range(2))
    relation = generator.integers(0, RELATIONS, 9000)
    tail = np.where(relation == 0, head % 7, tail)  # N-1
    head = np.where(relation == 1, tail % 9, head)  # 1-N
    tail = np.where(relation == 2, (head + 5) % ENTITIES, tail)  # 1-1
    rows = np.unique(np.stack([head, relation, tail], axis=1), axis=0)
    return generator.permutation(rows)[:1200]


def _without_the_last(rows: np.ndarray) -> np.ndarray:
    return rows[(rows[:, 1] < RELATIONS - 1) & (rows[:, [0, 2]] < ENTITIES - 1).all(axis=1)]


def _write_graph(folder: Path, graph: Graph, used: dict[str, np.ndarray]) -> None:
    made = {"split": "clean"}
    entities = {"entity_id": range(ENTITIES), "key": graph.entity_keys, "label": graph.entity_labels}
    tables.write(folder / "graph" / "entities.parquet", "entities", _plain(entities), made)
    kinds = categories(used["train"], RELATIONS)
    relations = {"relation_id": range(RELATIONS), "key": graph.relation_keys, "label": graph.relation_labels}
    relations["category"] = kinds
    tables.write(folder / "graph" / "relations.parquet", "relations", _plain(relations), made)
    rows = np.concatenate(list(used.values()))
    split = np.repeat(list(used), [len(part) for part in used.values()])
    triples = {"head": rows[:, 0], "relation": rows[:, 1], "tail": rows[:, 2], "split": split}
    tables.write(folder / "graph" / "triples.parquet", "triples", _plain(triples), made)
    found = audit(
        graph, used, {"dev_in_train_or_test_dropped": 90, "leaking_dev_dropped": 10, "carved_dev": 100}, "clean"
    )
    tables.write_json(folder / "graph" / "audit.json", found)


def _plain(columns: dict) -> dict:
    return {name: np.asarray(column).tolist() for name, column in columns.items()}


def _write_text(folder: Path, labels: list[str]) -> None:
    rows = []
    for entity, label in enumerate(labels):
        found = entity % 7 != 0
        words = f"{label.lower()} in the north of nowhere, known for its <b>old</b> & leaning tower, {entity} bridges"
        rows.append(
            {"entity_id": entity, "label": label, "description": words if found else None, "aliases": [],
             "text": words if found else None, "source": None, "status": "ok" if found else "not in Wikidata"}
        )  # fmt: skip
    columns = {name: [one[name] for one in rows] for name in rows[0]}
    tables.write(folder / "text.parquet", "text", columns, {})


def _write_pictures(folder: Path, drawn: bool) -> None:
    with Parts(folder / "images", {"stage": "images", "source": "drawings" if drawn else "folder"}) as parts:
        for entity in range(ENTITIES):
            if entity % 5 == 0:
                parts.add(absent(entity, 0, NONE, "the source has no picture of it"))
                continue
            image = Image.new("RGB", (96, 64), (entity * 37 % 255, entity * 91 % 255, 120))
            ImageDraw.Draw(image).ellipse((20, 8, 76, 56), fill=(250, entity * 53 % 255, 80))
            out = io.BytesIO()
            image.save(out, "PNG")
            parts.add(row(entity, 0, "drawing", clean(out.getvalue())))


def _write_encoded(folder: Path) -> None:
    """Features of the entities that have a text, a picture."""
    for modality, nth in (("text", 7), ("image", 5)):
        ids = [one for one in range(ENTITIES) if one % nth]
        columns = {"entity_id": ids, "embedding": np.ones((len(ids), 4), dtype=np.float32), "count": [1] * len(ids)}
        tables.write(folder / modality / "features.parquet", "features", columns, {"encoder": "minilm"})


def write_run(folder: Path, graph: str, model: str, scorer: Scorer, used: dict, known: FilterIndex, place: int) -> None:
    """A run folder as train and evaluate leave it, without weights."""
    epochs = 40 + 10 * place
    about = {
        "model": model, "graph": graph, "split": "clean", "seed": 0, "epochs": epochs, "chosen_epoch": epochs - 10,
        "encoders": {"text": {"encoder": "minilm"}, "image": {"encoder": "patches"}}, "seconds": 12.5 * 4**place,
        "peak_memory_bytes": (700 + 400 * place) << 20, "device": "x86_64 CPU, 2 threads", "precision": "float32",
        "code_version": "0.1.0+0123456789ab",
    }  # fmt: skip
    lines = ["epoch,step,loss,link,mygo_mrr,dev_mrr,triples_per_second,seconds"]
    for epoch in range(1, epochs + 1):
        mrr = f"{0.4 * (1 - np.exp(-epoch / (12 + 4 * place))):.5f}" if epoch % 10 == 0 else ""
        lines.append(f"{epoch},{epoch * 9},{9 / epoch + 0.4:.4f},{7 / epoch + 0.3:.4f},,{mrr},9000,{epoch * 0.3:.2f}")
    tables.write_text(folder / "history.csv", "\n".join(lines) + "\n")
    tables.write_json(folder / "run.json", about)
    evaluate(folder, scorer, used, known)
    if model == MODELS[0]:
        write_completions(folder)
    if model == "mygo":  # params.yaml asked for the paper's way of measuring, too
        looks = {name: {"value": 0.4321, "epoch": 50} for name in ("mrr", "hits_at_1", "hits_at_3", "hits_at_10", "mr")}
        test = json.loads((folder / "test.json").read_text())
        protocol = {"name": "mygo", "words": "test looked at every 50 epochs", "split": "released", "reported": looks}
        tables.write_json(folder / "test.json", {**test, "reference_protocol": protocol})


def evaluate(folder: Path, scorer: object, triples: dict, known: FilterIndex) -> None:
    """What the stage evaluate adds to a run folder."""
    ranks = {one: ranking.rank(scorer.score, triples[one], known, entities=ENTITIES) for one in ("dev", "test")}
    ranking.write(folder / "ranks.parquet", ranks, {})
    for split, one in ranks.items():
        tables.write_json(folder / f"{split}.json", {**ranking.metrics(one), "intervals": significance.intervals(one)})


def write_completions(folder: Path) -> None:
    """What the stage complete adds to a run folder: a fact whose names are not to be trusted."""
    reliability = [{"probability": 0.1 + 0.2 * i, "share_right": 0.15 + 0.18 * i, "queries": 90 - i} for i in range(5)]
    side = {"expected_calibration_error": 0.0321, "queries": 440, "reliability": reliability}
    trial = {"chosen": 40, "of_test": 9, "precision": 9 / 40, "mean_probability": 0.3}
    about = {"completions": 1, "calibrated_on_dev": {"tail": side}, "test_as_if_unknown": trial, "calibration": {}}
    tables.write_json(folder / "completions.json", {**about, "provenance": {}})
    names = {"head_key": "e1", "head_label": "<b>Head</b>", "relation_key": "r", "relation_label": "part of",
             "tail_key": "e2", "tail_label": "Tail"}  # fmt: skip
    row = {"head": 1, "relation": 0, "tail": 2, "rank": 1, "score": 1.0, "probability": 0.8125, **names}
    tables.write(folder / "completions.parquet", "completions", {name: [one] for name, one in row.items()}, {})


def write_study(root: Path) -> None:
    """A study as `studies/` holds it."""
    folder = root / "studies" / "missing" / "DB15K" / "momok"
    about = {"title": "Missing pictures: MoMoK on DB15K", "protocol": "Pictures are taken from a share of entities.",
             "plot": {"x": "share", "y": "mrr", "series": "taken", "deviation": "deviation",
                      "x_label": "entities without a picture (%)", "y_label": "test MRR (%)"}}  # fmt: skip
    tables.write_text(folder / "study.json", json.dumps(about))
    shares = range(0, 101, 20)
    rows = [f"{name},{x},{30 - x / by:.2f},0.4" for by, name in ((9, "train"), (6, "both")) for x in shares]
    tables.write_text(folder / "table.csv", "\n".join(["taken,share,mrr,deviation", *rows]) + "\n")
