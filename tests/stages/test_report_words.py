"""What the report says, without a browser: words, verdicts, examples, and sentences where something is wrong."""

import base64
import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline import tables
from pipeline.errors import UserError
from stages.ops.summary import table
from stages.report import page as report_page
from stages.report import tables as report_tables
from stages.report import verdict, words
from stages.report.inputs import read_graph, read_history, read_json, read_run, read_runs
from stages.report.page import page
from stages.report.predictions import Thumbnails, choose, entities, predictions
from tests.helpers import report_world as world
from tests.helpers.tiny import plain
from trainers.models import distmult
from trainers.training.data import load
from trainers.training.runs import load_run
from trainers.training.train import Schedule, filter_index, train

GRAPHS = ["DB15K", "MKG-Y"]
MODELS = world.MODELS


def test_a_figure_is_not_called_uncomparable_for_its_split_when_the_split_does_not_leak(project):
    root, _ = project
    run = read_run(root / "runs/DB15K/rotate", "DB15K", "rotate")
    assert any("Split:" in one for one in report_tables.why_not_comparable(run, "it leaks"))
    assert not any("Split:" in one for one in report_tables.why_not_comparable(run, ""))


def test_the_audit_is_told_in_words_and_leaks_are_flagged(project):
    root, _ = project
    audit = json.loads((root / "data/DB15K/graph/audit.json").read_text())
    said = words.findings(audit)
    leaks = [one.text for one in said if one.leak == "yes"]
    assert any("As released, 100 of the 100 dev rows (100.0\u00a0%) also stand in train" in one for one in leaks)
    assert any("In use, no triple stands in two" in one.text for one in said if one.leak == "no")
    audit["used"]["overlaps"]["test_in_train"] = 3
    assert any("In use, 3 of the" in one.text for one in words.findings(audit) if one.leak == "yes")
    assert "100 stand in train, 0 in test" in words.released_dev(audit)


def test_no_example_shows_an_entity_that_is_two_things(project):
    root, scorers = project
    graph, runs = read_graph(root, "DB15K"), read_runs(root, ["DB15K"], MODELS)
    shown = {one for query in predictions(graph, runs, load=scorers.__getitem__)[0] for one in entities([query])}
    some = sorted(shown)[::9]
    audit = {**graph.audit, "fused": {"rows": {}, "entities": [{"entity": graph.keys[one]} for one in some]}}
    queries, _ = predictions(replace(graph, audit=audit), runs, load=scorers.__getitem__)
    assert queries
    assert not set(some) & set(entities(queries))


def test_the_first_sentence_says_what_the_paired_test_bears_out(project):
    root, _ = project
    runs = read_runs(root, ["DB15K"], MODELS)
    found = verdict.differences(runs)
    mrr = [run.test["mrr"] for run in runs]
    best = mrr.index(max(mrr))
    assert found[best] is None
    others = [one for one in found if one]
    assert [one.difference for one in others] == pytest.approx([one - max(mrr) for one in mrr if one < max(mrr)])
    assert all(one.low <= one.difference <= one.high for one in others)
    names = {model: model for model in MODELS}
    told = verdict.sentence(runs, names, "some encoders", found)
    second = sorted(range(len(runs)), key=lambda place: -mrr[place])[1]
    points = f"{100 * (mrr[best] - mrr[second]):.1f} points of MRR (95 %: "
    clear, level = replace_p(found, second, 0.004), replace_p(found, second, 0.3)
    assert points in told
    assert f"{MODELS[best]} beats {MODELS[second]} on DB15K by " in verdict.sentence(runs, names, "x", clear)
    assert f"Nothing separates {MODELS[best]} from {MODELS[second]}" in verdict.sentence(runs, names, "x", level)
    assert "p = 0.004; 1 seed (0); clean split; x)." in verdict.sentence(runs, names, "x", clear)


def replace_p(found, place, p):
    """The same differences with another p value at a place."""
    return [replace(one, p=p) if at == place else one for at, one in enumerate(found)]


def test_entities_that_are_two_things_are_listed_and_can_be_downloaded(project):
    root, scorers = project
    graph = read_graph(root, "DB15K")
    path = root / "data/DB15K/graph/audit.json"
    audit = json.loads(path.read_text())
    two = {
        "entity": graph.keys[3],
        "one": ["http://a/genre", "http://a/home"],
        "other": ["x:capital", "x:currency"],
    }
    try:
        path.write_text(json.dumps({**audit, "fused": {"rows": {"train": 90, "dev": 1, "test": 2}, "entities": [two]}}))
        text = page(root, ["DB15K"], ["rotate"], load=scorers.__getitem__)
    finally:
        path.write_text(json.dumps(audit))
    assert "1 entity seems to be two things under one name; facts with one at an end are 10.0\u00a0% of train" in text
    table = base64.b64decode(re.search(r'href="data:text/csv;base64,(.*?)"', text)[1]).decode()
    assert f"{graph.keys[3]},http://a/genre http://a/home,x:capital x:currency" in table
    assert "genre, home" in text
    assert "two things under one name: head or tail" in text, "MRR with and without them"


def test_thumbnails_are_small_and_bounded(project):
    graph = read_graph(project[0], "DB15K")
    some = Thumbnails(limit=7)
    some.read(graph, range(world.ENTITIES))
    assert len(some.uris) == 7
    assert 0 not in some.uris  # it has no picture
    assert max(map(len, some.uris.values())) < 4000
    assert all(uri.startswith("data:image/webp;base64,") for uri in some.uris.values())


def test_queries_are_drawn_by_seed_among_those_that_fit():
    ranks = {"head": np.arange(40), "tail": np.arange(40) + 50, "relation": np.arange(40) % 5}
    of = np.arange(40) % 2 == 0
    chosen = choose(ranks, of, frozenset({2, 54}), 0)
    assert set(chosen) <= set(range(0, 40, 2)) - {2, 4}
    assert len({row % 5 for row in chosen[:5]}) == 5, "no relation twice while there are others"
    assert chosen == choose(ranks, of, frozenset({2, 54}), 0) != choose(ranks, of, frozenset({2, 54}), 1)


def test_where_a_model_wins_is_counted_over_the_cells_queries(project):
    root, _ = project
    graph, runs = read_graph(root, "DB15K"), read_runs(root, ["DB15K"], world.MODELS)
    known, answer = report_tables.wins(graph, runs)
    for wins in (known, answer):
        assert wins.queries[-1, -1] == len(runs[0].ranks["head"]) == wins.queries[:-1, :-1].sum()
        for place, run in enumerate(runs):
            assert wins.cells[place, -1, -1] == pytest.approx(run.test["mrr"])
    best = known.best[-1][-1]
    mrr = sorted((run.test["mrr"] for run in runs), reverse=True)
    assert runs[best.place].test["mrr"] == mrr[0]
    assert best.lead == pytest.approx(mrr[0] - mrr[1])


def test_a_template_may_not_ask_a_dict_for_an_attribute():
    template = report_page.Environment().from_string("{{ best.clear }}")
    with pytest.raises(TypeError, match="attribute 'clear'"):
        template.render(best={"clear": False})


@pytest.mark.parametrize("only_in", ["test", "dev", ""])
def test_a_relation_that_train_lacks_is_reported_as_unseen(tmp_path, only_in):
    """And an entity; `only_in` is the split that has them, "" if none has."""
    scorers = world.build(tmp_path, "DB15K", models=("rotate",), only_in=only_in)
    graph, runs = read_graph(tmp_path, "DB15K"), read_runs(tmp_path, ["DB15K"], ["rotate"])
    assert graph.categories[-1] == "unseen"
    asked = int((graph.triples[graph.split == "test"][:, 1] == world.RELATIONS - 1).sum())
    assert bool(asked) == (only_in == "test")
    html = page(tmp_path, ["DB15K"], ["rotate"], load=scorers.__getitem__)
    assert "Where each model wins" in html
    (wins, *_) = report_tables.wins(graph, runs)
    assert ("unseen" in wins.rows) == (only_in == "test")
    if asked:
        assert wins.queries[wins.rows.index("unseen"), -1] == 2 * asked


def test_a_lead_is_clear_only_if_the_bootstrap_bears_it_out():
    draw = np.random.default_rng(0)
    base = draw.random(400)
    assert report_tables._best(np.stack([base, base + 0.1])).clear
    noise = report_tables._best(np.stack([base, base + 0.001 + draw.normal(0, 0.5, 400)]))
    assert not noise.clear


def test_citations_follow_what_was_used(project):
    root, _ = project
    keys = {one.key for one in report_tables.citations(["DB15K"], read_runs(root, ["DB15K"], ["momok"]))}
    assert {"zhang2025momok", "liu2019mmkg", "wang2020minilm"} <= keys
    assert not {"zhang2025mygo", "xu2022mmrns", "peng2022beitv2"} & keys


def test_a_missing_run_is_one_sentence(project):
    root, scorers = project
    with pytest.raises(UserError, match=r"runs/DB15K/tucker/run\.json is not there"):
        page(root, ["DB15K"], ["tucker"], load=scorers.__getitem__)


def test_a_damaged_file_is_one_sentence(tmp_path):
    broken = tmp_path / "test.json"
    broken.write_text('{"mrr": 0.')
    with pytest.raises(UserError, match=r"test\.json is not JSON"):
        read_json(broken)
    history = tmp_path / "history.csv"
    history.write_text("epoch,step,loss\n1,9,lots\n")
    with pytest.raises(UserError, match=r"history\.csv is damaged"):
        read_history(history)


def test_a_study_whose_plot_cannot_be_drawn_is_one_sentence(project, tmp_path):
    world.write_study(tmp_path)
    path = next(tmp_path.rglob("study.json"))
    path.write_text(path.read_text().replace('"x": "share"', '"x": "missing"'))
    with pytest.raises(UserError, match=r"study\.json names a plot that its table\.csv cannot fill \('missing'\)"):
        report_page._studies(tmp_path)


def test_without_models_the_data_is_still_reported(project):
    text = page(project[0], ["DB15K"], [])
    assert "No model was trained" in text
    assert "As released, 100 of the 100 dev rows" in text


def test_without_models_the_summary_has_its_heading_and_no_line(project):
    (line,) = table(project[0], GRAPHS, []).splitlines()
    assert line.split()[:3] == ["graph", "model", "MRR"]


def test_without_models_texts_and_pictures_the_graph_is_still_reported(tmp_path):
    world.build(tmp_path, "DB15K", models=())
    shutil.rmtree(tmp_path / "data/DB15K/encoded")
    shutil.rmtree(tmp_path / "data/DB15K/images")
    (tmp_path / "data/DB15K/text.parquet").unlink()
    text = page(tmp_path, ["DB15K"], [])
    assert "No model was trained" in text
    assert "As released, 100 of the 100 dev rows" in text


def test_the_summary_prints_the_figures_of_the_json_files(project):
    root, _ = project
    lines = [line.split() for line in table(root, GRAPHS, world.MODELS).splitlines()]
    assert lines[0] == ["graph", "model", "MRR", "Hits@1", "Hits@3", "Hits@10", "seconds"]
    test = json.loads((root / "runs/MKG-Y/mygo/test.json").read_text())
    figures = [f"{100 * test[one]:.2f}" for one in ("mrr", "hits_at_1", "hits_at_3", "hits_at_10")]
    assert ["MKG-Y", "mygo", *figures, "200.0"] in lines
    assert len(lines) == 1 + len(GRAPHS) * len(world.MODELS)


def test_a_real_run_is_loaded_and_answers(tmp_path):
    """Weights of a real model, trained, ranked and read back by the report itself."""
    world.build(tmp_path, "DB15K", models=())
    folder, data = tmp_path / "runs/DB15K/distmult", tmp_path / "data/DB15K"
    schedule = Schedule(device="cpu", precision="float32", evaluate_every=1, checkpoint_every=0)
    settings = plain(distmult, dimension=8, epochs=2, batch_size=256, negatives=4)
    places = {"graph": data / "graph", "encoded": data / "encoded", "run": folder, "work": tmp_path / "work"}
    train("distmult", settings, schedule, **places, seed=0)
    run, triples = load_run(folder), load(data / "graph", data / "encoded", name="DB15K")
    world.evaluate(folder, run, {"dev": triples.dev, "test": triples.test}, filter_index(triples))
    text = page(tmp_path, ["DB15K"], ["distmult"])

    graph, (ranked,) = read_graph(tmp_path, "DB15K"), read_runs(tmp_path, ["DB15K"], ["distmult"])
    query = predictions(graph, [ranked])[0][0]
    known, relation = torch.tensor([query.known.id]), torch.tensor([graph.relations.index(query.relation)])
    scores = run.score(known, relation, query.side)[0].clone()
    told, (ours, theirs) = torch.cat([triples.train, triples.dev]), (0, 2) if query.side == "tail" else (2, 0)
    scores[told[(told[:, ours] == known) & (told[:, 1] == relation)][:, theirs]] = -torch.inf
    labels = tables.read(data / "text.parquet", "text")["label"].to_pylist()
    best = [labels[one] for one in scores.topk(5).indices.tolist()]
    shown = re.sub(r"</?a\b[^>]*>", "", re.search(r'<details class="query".*?</details>', text, flags=re.DOTALL)[0])
    assert re.findall(r"<strong>(.*?)</strong>", shown)[:5] == best
