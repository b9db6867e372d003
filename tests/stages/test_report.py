"""The report: read in a real browser, its figures held against the JSON files; and what it says without one."""

import base64
import hashlib
import json
import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pytest

from pipeline import tables
from stages.report import tables as report_tables
from stages.report import verdict
from stages.report.inputs import read_graph, read_runs
from stages.report.page import page
from tests.helpers import report_world as world

GRAPHS = ["DB15K", "MKG-Y"]
MODELS = world.MODELS
WIDTHS = (360, 768, 1280)


@pytest.fixture(scope="module")
def html(project):
    root, scorers = project
    return page(root, GRAPHS, world.MODELS, load=scorers.__getitem__)


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


def test_letters_in_figures_can_be_read_on_a_phone_and_are_no_larger_than_the_page_on_a_screen(tab, address):
    letters = """[...document.querySelectorAll("figure svg text")].filter(one => one.textContent.trim()).map(one => {
      const m = one.getScreenCTM();
      return parseFloat(getComputedStyle(one).fontSize) * Math.hypot(m.a, m.b);
    }).filter(size => size > 0)"""
    tab.open(address, 390, "light")
    assert min(tab.evaluate(letters)) >= 11
    tab.open(address, 1400, "light")
    assert max(tab.evaluate(letters)) <= 17


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


def test_the_same_files_give_the_same_page(project):
    root, scorers = project
    once, twice = (page(root, ["DB15K"], ["rotate"], load=scorers.__getitem__) for _ in range(2))
    assert once == twice


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


def test_drawings_are_called_drawings_and_pictures_pictures(html):
    part = html[html.index('id="predictions"') : html.index('id="studies"')]
    drawn, photographed = part[: part.index("<h3>MKG-Y")], part[part.index("<h3>MKG-Y") :]
    assert 'aria-label="Drawing of' in drawn
    assert 'aria-label="Picture of' not in drawn
    assert 'aria-label="Picture of' in photographed
    assert "drawing" not in photographed.lower()


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
