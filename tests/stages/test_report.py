"""The report: read in a real browser, its figures held against the JSON files; and what it says without one."""

import json
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import torch

from pipeline import tables
from pipeline.errors import UserError
from stages.ops.summary import table
from stages.report import page as report_page
from stages.report import tables as report_tables
from stages.report import words
from stages.report.inputs import read_completions, read_graph, read_history, read_json, read_run, read_runs
from stages.report.page import page
from stages.report.predictions import Thumbnails, choose
from tests.helpers import browser
from tests.helpers import report_world as world
from tests.helpers.tiny import plain
from trainers.models import distmult
from trainers.training.data import load
from trainers.training.runs import load_run
from trainers.training.train import Schedule, filter_index, train

GRAPHS = ["DB15K", "MKG-Y"]
WIDTHS = (360, 768, 1280)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    root = tmp_path_factory.mktemp("project")
    scorers = world.build(root, "DB15K", drawn=True) | world.build(root, "MKG-Y", drawn=False, seed=1)
    world.write_study(root)
    return root, scorers


@pytest.fixture(scope="module")
def html(project):
    root, scorers = project
    return page(root, GRAPHS, world.MODELS, load=scorers.__getitem__)


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    program = browser.find()
    if program is None:
        pytest.skip("no chromium on the PATH (Debian: apt install chromium)")
    with browser.Browser(program, tmp_path_factory.mktemp("profile")) as one:
        yield one


@pytest.fixture(scope="module")
def address(html, tmp_path_factory):
    path = tmp_path_factory.mktemp("reports") / "index.html"
    tables.write_text(path, html)
    return path.as_uri()


OVERFLOWING = """
(() => {
  document.querySelectorAll("details").forEach(one => one.open = true);
  const width = document.documentElement.clientWidth;
  const wide = [...document.body.querySelectorAll("*")].filter(one => {
    const box = one.getBoundingClientRect();
    return box.width && (box.right > width + 1 || box.left < -1) && !one.closest("thead");
  });
  const cut = [...document.querySelectorAll("td, th, summary, li, p, pre")].filter(
    one => one.scrollWidth > one.clientWidth + 1 && one.clientWidth && !one.closest("thead"));
  const name = one => one.tagName + "." + one.getAttribute("class") + " " + one.textContent.trim().slice(0, 40);
  return {page: document.documentElement.scrollWidth - width, wide: wide.map(name), cut: cut.map(name)};
})()
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_overflows_nothing_complains_and_nothing_is_asked_of_the_network(tab, address, width, scheme):
    tab.open(address, width, scheme)
    found = tab.evaluate(OVERFLOWING)
    assert found == {"page": 0, "wide": [], "cut": []}
    assert tab.complaints() == []
    assert tab.requests() == []


def test_the_browser_checks_can_fail(tab, tmp_path):
    """A page that does all that the report must not do is caught at each of it."""
    bad = tmp_path / "bad.html"
    bad.write_text(
        "<!doctype html><body><p style='width:2000px'>wide</p><img src='http://127.0.0.1:9/x.png'>"
        "<script>console.error('told')</script>"
    )
    tab.open(bad.as_uri(), 360, "light")
    assert tab.evaluate(OVERFLOWING)["wide"] != []
    assert any("told" in text for text in tab.complaints())
    assert tab.requests() == ["http://127.0.0.1:9/x.png"]


def figures_of_the_json_files(root):
    """[graph, model, metric, figure as shown] of every cell of the results tables, in their order."""
    expected = []
    for graph in GRAPHS:
        for model in world.MODELS:
            test, dev = (json.loads((root / f"runs/{graph}/{model}/{one}.json").read_text()) for one in ("test", "dev"))
            for metric in ("mrr", "hits_at_1", "hits_at_3", "hits_at_10"):
                expected.append([graph, model, metric, f"{100 * test[metric]:.2f}"])
            expected.append([graph, model, "mr", f"{test['mr']:.1f}"])
            expected.append([graph, model, "amri", f"{100 * test['amri']:.2f}"])
            expected.append([graph, model, "dev_mrr", f"{100 * dev['mrr']:.2f}"])
    return expected


def test_the_tables_figures_as_the_browser_shows_them_are_those_of_the_json_files(tab, address, project):
    tab.open(address, 1280, "light")
    shown = tab.evaluate(
        """[...document.querySelectorAll("#results tr[data-model]")].flatMap(row =>
             [...row.querySelectorAll("[data-metric]")].map(cell =>
               [row.dataset.graph, row.dataset.model, cell.dataset.metric, cell.innerText]))"""
    )
    assert shown == figures_of_the_json_files(project[0])


def test_the_tables_figures_are_those_of_the_json_files(html, project):
    shown = []
    for graph, model, row in re.findall(r'<tr data-graph="(.*?)" data-model="(.*?)">(.*?)</tr>', html, flags=re.DOTALL):
        shown += [[graph, model, *cell] for cell in re.findall(r'data-metric="(.*?)">(.*?)</span>', row)]
    assert shown == figures_of_the_json_files(project[0])


def test_dark_and_light_differ_and_text_can_be_read_in_both(tab, address):
    contrasts = {}
    for scheme in ("light", "dark"):
        tab.open(address, 768, scheme)
        contrasts[scheme] = tab.evaluate(
            """(() => {
              const light = colour => colour.match(/[0-9.]+/g).slice(0, 3).map(one => one / 255)
                .map(one => one <= 0.03928 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4)
                .reduce((sum, one, at) => sum + one * [0.2126, 0.7152, 0.0722][at], 0);
              const against = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
              const panel = light(getComputedStyle(document.querySelector("section")).backgroundColor);
              const low = [...document.querySelectorAll("section :is(p, td, th, small, text, summary, figcaption)")]
                .map(one => [getComputedStyle(one)[one.tagName == "text" ? "fill" : "color"], one.textContent])
                .filter(([colour]) => against(light(colour), panel) < 4.5)
                .filter(([colour]) => !["rgb(255, 255, 255)", "rgb(17, 17, 17)"].includes(colour));
              return {panel, low: low.slice(0, 5)};
            })()"""
        )
    assert contrasts["light"]["panel"] > 0.8 > 0.1 > contrasts["dark"]["panel"]
    assert contrasts["light"]["low"] == contrasts["dark"]["low"] == []


def test_the_same_files_give_the_same_page(html, project):
    root, scorers = project
    assert page(root, GRAPHS, world.MODELS, load=scorers.__getitem__) == html


def test_every_section_stands_and_every_id_once(html):
    ids = re.findall(r'\sid="([^"]+)"', html)
    assert [one for one in ids if ids.count(one) > 1] == []
    sections = ["results", "audits", "coverage", "training", "wins", "predictions", "studies", "cost", "cite"]
    assert [one for one in ids if one in sections] == sections
    assert set(re.findall(r'href="#([^"]+)"', html)) <= set(ids)
    assert not re.search(r"""(?:src|href)=["'](?!#|data:)""", html)


def test_every_figure_is_whole_and_names_its_axes_with_units(html):
    figures = re.findall(r"<svg .*?</svg>", html, flags=re.DOTALL)
    assert len(figures) > 20
    for svg in figures:
        texts = [one.text or "" for one in ET.fromstring(svg).iter() if one.tag.endswith("text")]
        units = ("(%)", "(nats)", "(T text")
        assert any(unit in text for text in texts for unit in units), texts
        assert "#0a0" not in svg, "a stand-in colour was left in"


def test_published_figures_stand_beside_ours_with_reasons(html, project):
    row = re.search(r'<tr data-graph="DB15K" data-model="adamf_mat">.*?</tr>', html, flags=re.DOTALL)[0]
    assert "published 35.14" in row
    letters = re.search(r"published 35\.14<sup>([a-z ]+)</sup>", row)[1].split()
    said = dict(re.findall(r"<li><b>([a-z])</b>(.*?)</li>", html[: html.index('data-graph="MKG-Y"')], flags=re.DOTALL))
    reasons = " ".join(said[letter] for letter in letters)
    for word in ("Split:", "Encoders:", "VGG16", "minilm", "favour", "1000 epochs; this run took 40"):
        assert word in reasons
    assert "KGT" in html
    assert "arXiv 2602.22698" in html


def test_intervals_and_the_papers_way_of_measuring_come_from_the_json_file(html, project):
    root, _ = project
    row = re.search(r'<tr data-graph="DB15K" data-model="mygo">.*?</tr>', html, flags=re.DOTALL)[0]
    test = json.loads((root / "runs/DB15K/mygo/test.json").read_text())
    for metric in ("mrr", "hits_at_1", "hits_at_3", "hits_at_10"):
        low, high = test["intervals"][metric]
        assert f"[{100 * low:.1f}, {100 * high:.1f}]" in row
    assert row.count("as MyGO measures 43.21") == 4
    assert "would print of this training, for comparison only: test looked at every 50 epochs" in html
    curves = html[html.index('id="training"') : html.index('id="wins"')]
    assert "mygo mrr" not in curves, "a look at test is no term of the loss"


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


def test_predictions_mark_right_answers_and_only_these(html, project):
    root, _ = project
    triples = tables.read(root / "data/DB15K/graph/triples.parquet", "triples").to_pylist()
    labels = tables.read(root / "data/DB15K/text.parquet", "text")["label"].to_pylist()
    true, seen = set(), set()
    relations = {"country": 0, "born in": 1, "starring": 2, "genre": 3, "part of": 4, "next to": 5}
    for one in triples:
        fact = (labels[one["head"]], one["relation"], labels[one["tail"]])
        (true if one["split"] == "test" else seen).add(fact)
    part = html[html.index('id="predictions"') : html.index('id="studies"')]
    part = part[: part.index("<h3>MKG-Y")]
    queries = re.findall(r'<details class="query".*?</details>', part, flags=re.DOTALL)
    assert len(queries) == 12
    marked = 0
    for query in queries:
        ask = re.search(r'<span class="ask">(.*?)<small>', query, flags=re.DOTALL)[1]
        known, relation = re.search(r"<b>(.*?)</b>", ask)[1], relations[re.search(r"<em>(.*?)</em>", ask)[1]]
        wanted = re.search(r"asked: <b>(.*?)</b>", query)[1]
        answers = re.findall(r'<li class="answer( right)?">.*?<strong>(.*?)</strong>(.*?)</li>', query, flags=re.DOTALL)
        assert len(answers) == 5 * len(world.MODELS)
        for right, label, rest in answers:
            badge = re.search(r"✓ ([a-z ]+)<", rest)
            assert (badge and badge[1]) == (("asked" if label == wanted else "true in test") if right else None)
            fact = (label, relation, known) if ask.startswith("?") else (known, relation, label)
            assert bool(right) == (fact in true)
            assert fact not in seen or fact in true
            marked += bool(right)
    assert marked > 12


def test_drawings_are_called_drawings_and_pictures_pictures(html):
    part = html[html.index('id="predictions"') : html.index('id="studies"')]
    drawn, photographed = part[: part.index("<h3>MKG-Y")], part[part.index("<h3>MKG-Y") :]
    assert 'aria-label="Drawing of' in drawn
    assert 'aria-label="Picture of' not in drawn
    assert 'aria-label="Picture of' in photographed
    assert "drawing" not in photographed.lower()


def test_thumbnails_are_small_and_bounded(project):
    graph = read_graph(project[0], "DB15K")
    some = Thumbnails(limit=7)
    some.read(graph, range(world.ENTITIES))
    assert len(some.uris) == 7
    assert 0 not in some.uris  # it has no picture
    assert max(map(len, some.uris.values())) < 4000
    assert all(uri.startswith("data:image/webp;base64,") for uri in some.uris.values())


def test_queries_are_drawn_by_seed_and_ask_both_sides():
    triples = np.stack([np.arange(40), np.arange(40) % 5, np.arange(40)], axis=1)
    chosen = choose(triples, 0)
    assert [side for _, side in chosen] == ["tail", "head"] * 6
    assert len({int(triple[1]) for triple, _ in chosen[:5]}) == 5
    assert [list(triple) for triple, _ in chosen] == [list(triple) for triple, _ in choose(triples, 0)]
    assert [list(triple) for triple, _ in chosen] != [list(triple) for triple, _ in choose(triples, 1)]


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


def test_a_cell_is_grey_in_the_html_unless_its_lead_is_clear(html, project):
    """What the page shows, not only what the function says: a template can ask for the wrong thing."""
    root, _ = project
    leads = []
    for name in GRAPHS:
        for one in report_tables.wins(read_graph(root, name), read_runs(root, [name], world.MODELS)):
            leads += [lead.clear for row in one.best for lead in row if lead]
    cells = re.findall(r'<td( class="unclear")?><span class="dot"', html[html.index('id="wins"') :])
    assert [not grey for grey in cells] == leads
    assert 0 < sum(leads) < len(leads) / 2, "most leads of this world are noise, and some are not"


def test_a_template_may_not_ask_a_dict_for_an_attribute():
    template = report_page.Environment().from_string("{{ best.clear }}")
    with pytest.raises(TypeError, match="attribute 'clear'"):
        template.render(best={"clear": False})


def test_a_relation_that_train_lacks_is_reported_as_unseen(tmp_path):
    scorers = world.build(tmp_path, "DB15K", models=("rotate",))
    path = tmp_path / "data/DB15K/graph/relations.parquet"
    columns = tables.read(path, "relations").to_pydict()
    tables.write(path, "relations", {**columns, "category": ["unseen", *columns["category"][1:]]}, {})
    assert "Where each model wins" in page(tmp_path, ["DB15K"], ["rotate"], load=scorers.__getitem__)
    wins = report_tables.wins(read_graph(tmp_path, "DB15K"), read_runs(tmp_path, ["DB15K"], ["rotate"]))
    assert "unseen" in wins[0].rows


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

    first, side = choose(np.unique(triples.test.numpy(), axis=0), 0)[0]
    head, relation, _ = map(int, first)
    scores = run.score(torch.tensor([head]), torch.tensor([relation]), side)[0].clone()
    told = torch.cat([triples.train, triples.dev])
    scores[told[(told[:, 0] == head) & (told[:, 1] == relation)][:, 2]] = -torch.inf
    labels = tables.read(data / "text.parquet", "text")["label"].to_pylist()
    best = [labels[one] for one in scores.topk(5).indices.tolist()]
    shown = re.search(r'<details class="query".*?</details>', text, flags=re.DOTALL)[0]
    assert re.findall(r"<strong>(.*?)</strong>", shown) == best


def test_missing_facts_are_shown_with_what_is_known_of_their_probabilities(html, project):
    section = html.split('id="completions-')[1].split("</section>")[0]
    assert "0.032" in section
    assert "22.5 %" in section
    assert "9 of 40" in section
    assert "&lt;b&gt;Head&lt;/b&gt;" in section
    assert "0.81" in section
    assert "<svg" in section
    root, _ = project
    folder = root / "runs/DB15K" / world.MODELS[0]
    stale = json.loads((folder / "run.json").read_text()) | {"fingerprint": "of a later training"}
    assert report_tables.completed([read_run(folder, "DB15K", world.MODELS[0])]) != []
    assert read_completions(folder, stale) == ({}, [])
