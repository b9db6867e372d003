"""Words for entities: from Wikidata's table by link, Q-id and title, from one's own table; counted, not guessed."""

import csv
import json
from pathlib import Path

import pandas
import pytest

from pipeline import tables
from pipeline.errors import UserError
from pipeline.graph.formats import read_graph
from pipeline.modalities import texts

BENCHMARKS = "raw.githubusercontent.com/zjukg/AdaMF-MAT/50930e9b28aed57133bedfc281391185ac9b68a4/benchmarks"
ROW = {"label": "Denton", "description": "city in Texas", "alternatives": ["Denton, Texas"], "wikidata_id": "Q1"}
ROW |= {"wikipedia": "https://en.wikipedia.org/wiki/Denton,_Texas"}


@pytest.fixture
def table(tmp_path) -> dict[str, texts.Wikidata]:
    rows = {
        "/m/1": ROW,
        "/m/2": {
            **ROW,
            "label": "Bare",
            "description": None,
            "wikidata_id": "Q2",
            "alternatives": [],
            "wikipedia": None,
        },
        "/m/3": {**ROW, "label": "Café", "wikidata_id": "Q3", "wikipedia": "https://en.wikipedia.org/wiki/Caf%C3%A9"},
    }
    (tmp_path / "table.json").write_text(json.dumps(rows))
    return texts.read_wikidata(tmp_path / "table.json")


def labels(found: list) -> list[str | None]:
    return [one and one.label for one in found]


def test_links_prefer_a_row_with_a_description(tmp_path, table):
    (tmp_path / "links.txt").write_text(
        "/m/2 <SameAs> <http://d/A> .\n/m/1 <SameAs> <http://d/A> .\n"
        "/m/2 <SameAs> <http://d/B> .\n/m/9 <SameAs> <http://d/C> .\n"
    )
    links = texts.read_links(tmp_path / "links.txt")
    assert labels(texts.by_links(["http://d/A", "http://d/B", "http://d/C", "http://d/D"], links, table)) == [
        "Denton", "Bare", None, None,
    ]  # fmt: skip


def test_ids_and_titles_are_looked_up_as_they_are_written(table):
    assert labels(texts.by_qid(["Q3", "Q1", "Q7"], table)) == ["Café", "Denton", None]
    assert labels(texts.by_title(["Café", "Denton,_Texas", "Denton, Texas", "Bare"], table)) == [
        "Café", "Denton", "Denton", None,
    ]  # fmt: skip


def test_a_table_of_ones_own(tmp_path):
    (tmp_path / "text.tsv").write_text(
        "key\tlabel\tdescription\taliases\na\tAye\tfirst letter\tA | Alpha\nb\tBee\t\t\n"
    )
    (first, second, third), _ = texts.by_table(["a", "b", "c"], tmp_path)
    assert (first.description, first.aliases) == ("first letter", ("A", "Alpha"))
    assert (second.label, second.description, second.aliases) == ("Bee", None, ())
    assert third is None
    (tmp_path / "text.tsv").write_text("key\tlabel\na\tAye\n")
    assert texts.by_table(["a"], tmp_path)[0][0].label == "Aye"


HERE = "n_1\tOne\tfirst\n"
OTHERS = {
    "one before": ("z\tZed\tnot here\n" + HERE, 1),
    "one behind": (HERE + "z\tZed\tnot here\n", 1),
    "one twice": ("z\tZed\tnot here\n" + HERE + "z\tZed\tnot here\n", 2),
    "one too long for a graph of ours": (HERE + "z\tZed\t" + "x" * 30_000 + "\n", 1),
    "one without a label": (HERE + "z\t\tnot here\n", 1),
    "a graph's more": (HERE + "".join(f"z{n}\tZ\td\n" for n in range(500)), 500),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_one_table_may_serve_several_graphs(kind, tmp_path):
    rows, others = OTHERS[kind]
    (tmp_path / "text.tsv").write_text("key\tlabel\tdescription\n" + rows)
    (one, two), odd = texts.by_table(["n_1", "n2"], tmp_path)
    assert (one.label, one.description, two) == ("One", "first", None)
    assert odd == {"other_entities": others, "without_label": 0}


@pytest.mark.parametrize(
    ("key", "label"),
    [("n_1", "n 1"), ("http://dbpedia.org/resource/Red_Hot_(band)", "Red Hot (band)"), ("<http://x.org/Bee>", "Bee"),
     ("Q42", "Q42")],
)  # fmt: skip
@pytest.mark.parametrize("empty", ["", " ", '""'])
def test_a_row_without_a_label_has_the_one_that_its_key_reads_as(key, label, empty, tmp_path):
    (tmp_path / "text.tsv").write_text(f"key\tlabel\tdescription\n{key}\t{empty}\tonly a description\n")
    ((one,), odd) = texts.by_table([key.strip("<>")], tmp_path)
    assert (one.label, one.description) == (label, "only a description")
    assert odd == {"other_entities": 0, "without_label": 1}


def test_a_table_is_read_as_pandas_writes_it(tmp_path):
    rows = [["a", "Aye", 'the "first" letter'], ["b", "Bee", "tab\there"], ["c", '"See"', "over\ntwo lines"]]
    frame = pandas.DataFrame(rows, columns=["key", "label", "description"])
    for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL):
        frame.to_csv(tmp_path / "text.tsv", sep="\t", index=False, quoting=quoting)
        found, _ = texts.by_table(["a", "b", "c"], tmp_path)
        assert [(one.label, one.description) for one in found] == [(label, text) for _, label, text in rows]


def test_quotes_that_are_not_csvs_stay(tmp_path):
    (tmp_path / "text.tsv").write_text('key\tlabel\tdescription\na\t"Heroes" (album)\t12" single\nb\t"\tone mark\n')
    found, _ = texts.by_table(["a", "b"], tmp_path)
    assert [(one.label, one.description) for one in found] == [('"Heroes" (album)', '12" single'), ('"', "one mark")]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("a\tAye\n", r"line 1 should name the tab-separated columns"),
        ("key\tlabel\tdescription\na\tAye\n", r"line 2 has 2 fields under 3 columns"),
        ("key\tlabel\na\tAye\na\tAye\n", r"line 3 describes 'a' a second time"),
        ("key\tlabel\na\t" + "x" * 1_000_000 + "\n", r"line 2 is longer than"),
        ("key\tlabel\tdescription\na\tAye\t" + "x" * 30_000 + "\n", r"a description of 30000 characters"),
    ],
)
def test_a_damaged_table_is_refused_by_line(tmp_path, content, complaint):
    (tmp_path / "text.tsv").write_text(content)
    with pytest.raises(UserError, match=complaint):
        texts.by_table(["a"], tmp_path)


def test_what_is_no_table_at_all_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"holds no text\.tsv"):
        texts.by_table(["a"], tmp_path)
    with pytest.raises(UserError, match="run the download stage"):
        texts.read_wikidata(tmp_path / "absent.json")
    for content in ("{", "[]", '{"/m/1": {}}', '{"/m/1": 3}'):
        (tmp_path / "bad.json").write_text(content)
        with pytest.raises(UserError, match="is not a table of Wikidata's descriptions"):
            texts.read_wikidata(tmp_path / "bad.json")
    (tmp_path / "links.txt").write_text("/m/1 <http://d/A>\n")
    with pytest.raises(UserError, match=r"links\.txt, line 1 is no"):
        texts.read_links(tmp_path / "links.txt")


def test_what_is_encoded_leaves_out_what_is_not_known():
    whole = texts.Described("Denton", "city in\n Texas", ("D", "Denton, TX"), "here")
    bare = texts.Described("Bare", None, (), "here")
    assert texts.compose(whole, ["label", "description"], ": ") == "Denton: city in Texas"
    assert texts.compose(whole, ["aliases", "label"], " | ") == "D, Denton, TX | Denton"
    assert texts.compose(bare, ["label", "description"], ": ") == "Bare"
    assert texts.compose(bare, ["description"], ": ") is None


def test_every_entity_has_a_row_that_says_what_was_found(tmp_path):
    found = [texts.Described("A", "letter", ("a",), "here"), texts.Described("B", None, (), "here"), None]
    columns, counts = texts.rows(
        ["a", "b", "c c"], found, fields=["label", "description"], separator=": ", fallback="none"
    )
    assert columns["status"] == ["found", "no_description", "absent"]
    assert columns["text"] == ["A: letter", "B", None]
    assert columns["label"] == ["A", "B", None]
    assert counts == {
        "entities": 3, "found": 2, "with_description": 1, "with_aliases": 1, "label_only": 0, "absent": 1,
        "with_text": 2, "coverage": 0.666667,
    }  # fmt: skip
    tables.write(tmp_path / "text.parquet", "text", columns, {})
    assert tables.read(tmp_path / "text.parquet", "text").to_pylist()[2]["text"] is None
    columns, counts = texts.rows(["a", "b", "c c"], found, fields=["label"], separator=": ", fallback="label")
    assert (columns["status"][2], columns["text"][2], columns["source"][2]) == ("label_only", "c c", "key")
    assert (counts["label_only"], counts["absent"], counts["with_text"]) == (1, 0, 3)


@pytest.mark.parametrize(
    ("name", "expected"), {"DB15K": (12652, 12303), "MKG-W": (2289, 2270), "MKG-Y": (1564, 1562)}.items()
)
def test_the_published_graphs_are_told_as_far_as_the_files_go(mirror, name, expected):
    keys = read_graph(mirror / BENCHMARKS / name, "openke").entity_keys
    known = texts.read_wikidata(next(mirror.rglob("entity2wikidata.json")))
    if name == "DB15K":
        found = texts.by_links(keys, texts.read_links(next(mirror.rglob("DB15K_SameAsLink.txt"))), known)
    else:
        found = (texts.by_qid if name == "MKG-W" else texts.by_title)(keys, known)
    _, counts = texts.rows(keys, found, fields=["label", "description"], separator=": ", fallback="none")
    assert (counts["found"], counts["with_description"]) == expected
    assert counts["found"] + counts["absent"] == counts["entities"] == len(keys)


def test_mini_has_texts_and_entities_without(tmp_path):
    source = Path(__file__).resolve().parents[3] / "data/mini/source"
    found, odd = texts.by_table(read_graph(source, "names").entity_keys, source)
    assert odd == {"other_entities": 0, "without_label": 0}
    assert (sum(one is not None for one in found), sum(bool(one and one.description) for one in found)) == (952, 941)
