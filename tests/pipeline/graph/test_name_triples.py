"""Files of triples as people have them: read rightly, or refused with the line; no name is split in two."""

import pytest

from pipeline.errors import UserError
from pipeline.graph.formats import read_graph
from pipeline.graph.name_triples import TripleLines

FACTS = [("n0", "p", "n1"), ("n0", "p", "n2"), ("n1", "q", "n2"), ("n2", "p", "n3")]


def tabbed(rows=FACTS, order=(0, 1, 2), header=None) -> str:
    lines = ["\t".join(row[place] for place in order) for row in rows]
    return "\n".join(([header] if header else []) + lines) + "\n"


def read(path):
    """The triples as names, and the notes."""
    entities, relations = {}, {}
    reader = TripleLines(entities, relations)
    rows = reader.read(path)
    names, kinds = list(entities), list(relations)
    return [(names[h], kinds[r], names[t]) for h, r, t in rows.tolist()], reader.notes


@pytest.mark.parametrize(
    ("header", "order"),
    [
        ("head\trelation\ttail", (0, 1, 2)),
        ("Subject\tPredicate\tObject", (0, 1, 2)),
        ("h\tr\tt", (0, 1, 2)),
        ('"head"\t"relation"\t"tail"', (0, 1, 2)),
        ("head\ttail\trelation", (0, 2, 1)),
        ("relation\thead\ttail", (1, 0, 2)),
        ("source\ttarget\tedge_type", (0, 2, 1)),
    ],
)
def test_a_header_is_left_out_said_and_orders_the_columns(tmp_path, header, order):
    path = tmp_path / "train.txt"
    path.write_text(tabbed(order=order, header=header))
    rows, notes = read(path)
    assert rows == FACTS
    assert len(notes) == 1
    assert "line 1 is a header" in notes[0]


def test_a_header_in_each_file_is_no_fact_and_the_users_dev_stays(tmp_path):
    for name in ("train", "valid", "test"):
        (tmp_path / f"{name}.txt").write_text(tabbed(header="head\trelation\ttail"))
    graph = read_graph(tmp_path, "names")
    assert graph.entity_keys == ["n0", "n1", "n2", "n3"]
    assert graph.relation_keys == ["p", "q"]
    assert len(graph.notes) == 3


def test_names_like_a_headers_within_the_file_are_names(tmp_path):
    path = tmp_path / "train.txt"
    rows = [*FACTS, ("source", "p", "target"), ("head", "relation", "n0")]
    path.write_text(tabbed(rows))
    assert read(path) == (rows, [])


STATEMENT = "<http://x/{}>{}<http://x/{}>{}<http://x/{}>{}.\n"


@pytest.mark.parametrize(("gap", "end"), [("\t", " "), (" ", " "), (" ", ""), ("\t", "\t")], ids=repr)
def test_n_triples_are_read_as_what_they_are(tmp_path, gap, end):
    path = tmp_path / "triples.tsv"
    path.write_text("".join(STATEMENT.format(h, gap, r, gap, t, end) for h, r, t in FACTS))
    rows, notes = read(path)
    assert rows == [tuple(f"http://x/{name}" for name in fact) for fact in FACTS]
    assert "4 lines of N-Triples" in notes[0]


def test_a_uri_with_and_without_brackets_is_one_entity(tmp_path):
    first = "<http://x/a>\t<http://x/p>\thttp://x/b\n"
    (tmp_path / "triples.tsv").write_text(first + "http://x/b\thttp://x/p\t<http://x/a>\n")
    (tmp_path / "entities.tsv").write_text("<http://x/b>\tBee\n")
    graph = read_graph(tmp_path, "names")
    assert graph.entity_keys == ["http://x/b", "http://x/a"]
    assert graph.relation_keys == ["http://x/p"]
    assert graph.entity_labels[0] == "Bee"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("<http://x/a>\t<http://x/p>\tb .", r"line 2 ends in ` \.` like N-Triples"),
        ('<http://x/a> <http://x/p> "a value"@en .', "line 2 says a value, not a fact"),
        ('_:b <http://x/p> "3"^^<http://x/int> .', "line 2 says a value, not a fact"),
        ("a b c", "line 2 has 1 tab-separated fields"),
    ],
)
def test_what_could_be_meant_in_two_ways_is_refused_with_its_line(tmp_path, line, said):
    path = tmp_path / "train.txt"
    path.write_text(f"a\tp\tb\n{line}\n")
    with pytest.raises(UserError, match=said):
        read(path)


@pytest.mark.parametrize(("order", "said"), [((0, 2, 1), "head, tail, relation"), ((1, 0, 2), "relation, head, tail")])
def test_columns_in_another_order_are_refused(tmp_path, order, said):
    path = tmp_path / "train.txt"
    path.write_text(tabbed(order=order))
    with pytest.raises(UserError, match=f"seems to have the order {said}"):
        read(path)


def test_a_graph_from_people_to_things_is_not_mistaken_for_another_order(tmp_path):
    path = tmp_path / "train.txt"
    rows = [("ann", "likes", "tea"), ("ben", "likes", "milk"), ("ann", "drinks", "milk"), ("cy", "drinks", "tea")]
    path.write_text(tabbed(rows))
    assert read(path)[0] == rows


@pytest.mark.parametrize("name", ["test2id.txt", "entity2id.txt"])
@pytest.mark.parametrize("line", [1, 2])
def test_a_number_of_thousands_of_digits_is_a_sentence(tmp_path, name, line):
    files = {
        "entity2id.txt": "2\na 0\nb 1\n", "relation2id.txt": "1\nr 0\n", "train2id.txt": "1\n0 1 0\n",
        "valid2id.txt": "1\n0 1 0\n", "test2id.txt": "1\n0 1 0\n",
    }  # fmt: skip
    lines = files[name].split("\n")
    lines[line - 1] = "9" * 5000 if line == 1 else f"{lines[1].rsplit(' ', 1)[0]} {'9' * 5000}"
    for one, content in {**files, name: "\n".join(lines)}.items():
        (tmp_path / one).write_text(content)
    with pytest.raises(UserError, match=f"{name}, line {line} "):
        read_graph(tmp_path, "openke")
