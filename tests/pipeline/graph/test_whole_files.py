"""Files read at once: the same graph, notes and refusals as line by line, and no odd line read quickly."""

import numpy as np
import pytest

from pipeline.errors import UserError
from pipeline.graph import whole_files
from pipeline.graph.name_triples import TripleLines

PLAIN = "a\tr\tb\nb\ts\tc\na\tr\tb\nd é\tr\ta\n"
ODD = {
    "blanks around a name": "a\tr\tb \nb\ts\tc\na\tr\td\n",
    "brackets": "<a>\tr\tb\nb\ts\ta\na\tr\td\n",
    "N-Triples": "<a> <r> <b> .\n<b> <s> <c> .\n",
    "a quote": 'a\tr\t"b"\n"b"\ts\tc\na\tr\td\n',
    "a blank line": "a\tr\tb\n \nb\ts\tc\n",
    "a mark of byte order": "\ufeffa\tr\tb\nb\ts\tc\n",
    "a control character": "a\tr\tb\x01\nb\ts\tc\n",
    "a lone return": "a\tr\tb\rb\ts\tc\nb\ts\tc\n",
    "two fields": "a\tr\nb\ts\tc\n",
    "an empty name": "a\t\tb\nb\ts\tc\n",
    "a full stop": "a\tr\tb .\nb\ts\tc\n",
    "another order": "r\ta\tb\nr\tb\tc\ns\ta\tc\ns\tc\ta\n",
}


def read(path) -> object:
    """Ids, names and notes; or the refusal."""
    entities, relations = {"known": 0}, {}
    reader = TripleLines(entities, relations)
    try:
        return reader.read(path).tolist(), list(entities), list(relations), reader.notes
    except UserError as error:
        return str(error)


@pytest.mark.parametrize("text", [PLAIN, "head\trelation\ttail\n" + PLAIN, "t\ts\tp\n" + PLAIN,
                                  PLAIN.replace("\n", "\r\n"), "\n\n" + PLAIN, *ODD.values()])  # fmt: skip
def test_names_read_at_once_are_those_read_line_by_line(tmp_path, monkeypatch, text):
    path = tmp_path / "train.txt"
    path.write_text(text, encoding="utf-8", newline="")
    quick = read(path)
    monkeypatch.setattr(whole_files, "names", lambda *_: None)
    assert quick == read(path)


def test_plain_files_are_read_at_once_and_odd_ones_are_not(tmp_path):
    path = tmp_path / "train.txt"
    path.write_text(PLAIN, encoding="utf-8")
    heads = whole_files.names(path, 0)[0]
    assert [heads[1][place] for place in heads[0]] == ["a", "b", "a", "d é"]
    for text in list(ODD.values())[:-1]:  # the order is looked at afterwards
        path.write_text(text, encoding="utf-8", newline="")
        assert whole_files.names(path, 0) is None, text


@pytest.mark.parametrize("text", ["2\n0 1 2\n3 4 5\n", "2\n0\t1\t2\n3\t4\t5\n"])
def test_ids_are_read_at_once(tmp_path, text):
    path = tmp_path / "train2id.txt"
    path.write_text(text)
    np.testing.assert_array_equal(whole_files.ids(path, 3), [[0, 1, 2], [3, 4, 5]])


@pytest.mark.parametrize("text", ["1\n0 1 0x2\n", "1\n0 -1 2\n", "1\n0 1\n", "1\n0  1 2\n", "\n1\n0 1 2\n", "1\n",
                                  "2\n0 1 2\n0 1 2 3\n", "1\n0 1 99999999999999999999\n"])  # fmt: skip
def test_ids_that_are_not_plain_are_left_to_who_can_say_why(tmp_path, text):
    path = tmp_path / "train2id.txt"
    path.write_text(text)
    assert whole_files.ids(path, 3) is None
