"""The report: read in a real browser, its figures held against the JSON files; and what it says without one."""

import base64
import hashlib
import json
import re
import xml.etree.ElementTree as ET
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
from tests.helpers import browser
from tests.helpers import report_world as world
from tests.helpers.tiny import plain
from trainers.models import distmult
from trainers.training.data import load
from trainers.training.runs import load_run
from trainers.training.train import Schedule, filter_index, train

GRAPHS = ["DB15K", "MKG-Y"]
MODELS = world.MODELS
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
    for shown in ("all", "db15k", "mkgy"):
        tab.evaluate(f"document.getElementById('tab-{shown}').click()")
        assert tab.evaluate(OVERFLOWING) == {"page": 0, "wide": [], "cut": []}, shown
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
        by_mrr = {model: json.loads((root / f"runs/{graph}/{model}/test.json").read_text())["mrr"] for model in MODELS}
        for model in sorted(MODELS, key=lambda model: -by_mrr[model]):
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
    assert set(re.findall(r"""(?:src|href)=["'](?!#|data:)(.*?)["']""", html)) <= set(world.addresses()), (
        "entities' own"
    )


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
    said = dict(re.findall(r"<li><b>([a-z])</b>(.*?)</li>", html[: html.index("<h3>MKG-Y")], flags=re.DOTALL))
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
    assert len(queries) >= 5
    marked = 0
    for query in queries:
        query = re.sub(r"</?a\b[^>]*>", "", query)
        ask = re.search(r'<span class="ask">(.*?)<small>', query, flags=re.DOTALL)[1]
        known, relation = re.search(r"<b>(.*?)</b>", ask)[1], relations[re.search(r"<em>(.*?)</em>", ask)[1]]
        wanted = re.search(r"asked: <b>(.*?)</b>", query)[1]
        columns = re.findall(r"<ol>(.*?)</ol>", query, flags=re.DOTALL)
        assert len(columns) == len(world.MODELS)
        for column in columns:
            answers = re.findall(
                r'<li class="answer( right)?"><span class="place">(.*?)</span>.*?<strong>(.*?)</strong>(.*?)</li>',
                column, flags=re.DOTALL,
            )  # fmt: skip
            assert [int(place) for _, place, *_ in answers[:5]] == [1, 2, 3, 4, 5]
            assert [label for _, _, label, _ in answers].count(wanted) == 1, "the asked answer is always there"
            assert len(answers) == 5 or (answers[5][2] == wanted and int(answers[5][1]) > 5)
            for right, _, label, rest in answers:
                badge = re.search(r"✓ ([a-z ]+)<", rest)
                assert (badge and badge[1]) == (("asked" if label == wanted else "true in test") if right else None)
                fact = (label, relation, known) if ask.startswith("?") else (known, relation, label)
                assert bool(right) == (fact in true)
                assert fact not in seen or fact in true
                marked += bool(right)
    assert marked > 8


def test_examples_are_of_three_kinds_by_their_ranks(html, project):
    root, _ = project
    runs = read_runs(root, ["DB15K"], MODELS)
    part = html[html.index('id="predictions"') : html.index('id="studies"')]
    part = part[: part.index("<h3>MKG-Y")]
    kinds = re.split(r'<h4 class="kind">', part)[1:]
    assert len(kinds) == 3
    rules = (lambda rank, reads: rank == 1, lambda rank, reads: rank == 1 if reads else rank > 10)
    for text, fits in zip(kinds, (*rules, lambda rank, reads: rank > 10), strict=True):
        for query in re.findall(r'<details class="query".*?</details>', text, flags=re.DOTALL):
            found = re.findall(r'<div data-model="(.*?)"><h4>[^<]* <span>rank ([0-9.]+)<', query)
            assert [model for model, _ in found] == list(MODELS)
            assert all(fits(float(rank), model != "rotate") for model, rank in found)
    counts = [int(re.search(r"\(([0-9,]+) test", text)[1].replace(",", "")) for text in kinds]
    ranks = np.stack([report_tables.in_order(run.ranks)["realistic"] for run in runs])
    assert counts[0] == (ranks == 1).all(axis=0).sum()
    assert counts[2] == (ranks > 10).all(axis=0).sum()


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


def test_a_figure_is_green_only_if_the_paired_test_bears_it_out(html, project):
    root, _ = project
    runs = read_runs(root, ["DB15K"], MODELS)
    winners = verdict.clear_winners(runs)
    for place, model in enumerate(MODELS):
        row = re.search(rf'<tr data-graph="DB15K" data-model="{model}">.*?</tr>', html, flags=re.DOTALL)[0]
        green = re.findall(r'class="n clear"[^>]*><span class="figure" data-metric="(.*?)"', row)
        assert green == [metric for metric in winners if winners[metric] == place]
    same = [runs[0], replace(runs[1], test=runs[0].test, ranks=runs[0].ranks)]
    assert verdict.clear_winners(same) == {}, "two that rank alike"
    far = {**runs[0].ranks, "realistic": runs[0].ranks["realistic"] + 50}
    worse = {"mrr": 0.0, "hits_at_1": 0.0, "hits_at_3": 0.0, "hits_at_10": 0.0}
    ahead = verdict.clear_winners([replace(runs[0], ranks=far, test=worse), runs[0]])
    assert ahead == {"mrr": 1, "hits_at_1": 1, "hits_at_3": 1, "hits_at_10": 1}


def test_the_page_works_its_script_and_its_tabs(tab, address):
    tab.open(address, 1280, "light")
    visible = "[...document.querySelectorAll({})].filter(one => one.offsetParent).length"
    assert tab.evaluate(visible.format("'.graph'")) == 0, "the comparison comes first"
    assert tab.evaluate(visible.format("'#compare tbody tr'")) == len(MODELS)
    tab.evaluate("document.getElementById('tab-mkgy').click()")
    assert tab.evaluate(visible.format("'.graph:not(.g-mkgy)'")) == 0 < tab.evaluate(visible.format("'.g-mkgy'"))
    rows = "[...document.querySelectorAll('.g-mkgy tr[data-graph]')].map(one => one.dataset.model)"
    head = "document.querySelectorAll('.g-mkgy table.sortable')[0].querySelectorAll('th button')[{}]"
    for column in (0, 5):
        orders = []
        for _ in range(2):
            tab.evaluate(head.format(column) + ".click()")
            orders.append(tab.evaluate(rows))
        assert orders[0] == orders[1][::-1]
        assert sorted(orders[0]) == sorted(MODELS)
    shown = (
        "[...document.querySelectorAll('.g-mkgy details[open] .answers > div')].filter(one => one.offsetParent).length"
    )
    three = tab.evaluate(shown)
    tab.evaluate("document.querySelector('.g-mkgy .chooser input:not(:checked)').click()")
    assert tab.evaluate(shown) == three > 0, "a fourth model takes the place of one"
    tab.evaluate("document.querySelector('.models input').click()")
    assert tab.evaluate(visible.format("'.g-mkgy tr[data-graph]'")) == len(MODELS) - 1
    tab.evaluate("""(() => { const one = document.querySelector('.g-mkgy .queries input');
                             one.value = 'no such word'; one.dispatchEvent(new Event('input')); })()""")
    assert tab.evaluate(visible.format("'.g-mkgy details.query'")) == 0
    assert tab.complaints() == []


def test_the_script_is_the_only_one_that_the_page_allows(html):
    (script,) = re.findall(r"<script>(.*?)</script>", html, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in html
    assert len(script) < 3000


def test_a_page_without_a_script_holds_all_the_same(tab, html, tmp_path):
    path = tmp_path / "plain.html"
    path.write_text(re.sub(r"<script>.*?</script>", "", html, flags=re.DOTALL))
    tab.open(path.as_uri(), 1280, "light")
    tab.evaluate("document.getElementById('tab-db15k').click()")
    assert tab.evaluate("[...document.querySelectorAll('.g-db15k')].every(one => one.offsetParent)")


def test_paper_gets_all_of_it(tab, address, tmp_path):
    tab.open(address, 800, "light")
    pdf = base64.b64decode(tab.call("Page.printToPDF", preferCSSPageSize=True)["data"])
    assert pdf.startswith(b"%PDF")
    assert len(pdf) > 100_000
    tab.call("Emulation.setEmulatedMedia", media="print")
    graphs = "[...document.querySelectorAll('.graph')].map(one => one.offsetHeight > 0)"
    assert all(tab.evaluate(graphs)), "the graphs that are not chosen on the screen are printed as well"
    tab.call("Emulation.setEmulatedMedia", media="")


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


def test_a_cell_is_grey_in_the_html_unless_its_lead_is_clear(html, project):
    """What the page shows, not only what the function says: a template can ask for the wrong thing."""
    root, _ = project
    leads = []
    for name in GRAPHS:
        for one in report_tables.wins(read_graph(root, name), read_runs(root, [name], world.MODELS)):
            leads += [lead.clear for row in one.best for lead in row if lead]
    cells = re.findall(r'<td( class="unclear")?><span class="mark ', html[html.index('id="wins"') :])
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
