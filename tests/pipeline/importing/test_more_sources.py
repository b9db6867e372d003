"""What an import takes beside triples in files: labels, tokens made of features, archives, public graphs by a word."""

import re
import shutil
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from pipeline import tables
from pipeline.errors import UserError
from pipeline.graph.formats import read_graph
from pipeline.graph.matching import Names, q_id
from pipeline.importing.graph import import_graph
from pipeline.importing.located import located
from pipeline.importing.public import PUBLIC, labels_in, public
from pipeline.modalities import released
from pipeline.retry import RetryPolicy
from stages import import_graph as stage
from stages.params import load_params
from tests.helpers import wiki_server

ROOT = Path(__file__).parents[3]
PEOPLE = [f"person {n}" for n in range(60)]
ROWS = [(one, ("knows", "likes")[n % 2], PEOPLE[(n * 7 + 1) % 60]) for n, one in enumerate(PEOPLE)]
FRAME = pd.DataFrame(ROWS, columns=["h", "r", "t"])
LINES = "".join("\t".join(row) + "\n" for row in ROWS)


@pytest.fixture
def world(tmp_path, monkeypatch) -> Path:
    (tmp_path / "configs" / "graphs").mkdir(parents=True)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_outside_a_project_nothing_is_written(tmp_path, monkeypatch, capsys):
    (tmp_path / "facts.tsv").write_text(LINES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["import_graph", "--name", "g", "--triples", "facts.tsv"])
    with pytest.raises(SystemExit):
        stage.main()
    assert "params.yaml is not there" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["facts.tsv"]


def test_tokens_are_made_of_features_and_stand_for_them(world):
    draw = np.random.default_rng(0)
    centres = draw.normal(size=(3, 5)) * 10
    vectors = {one: (centres[n % 3] + draw.normal(size=5)).astype(np.float16) for n, one in enumerate(PEOPLE)}
    imported = import_graph("g", FRAME, features=vectors, tokens=3)
    assert any("3 tokens an entity were made" in note for note in imported.notes)
    given = yaml.safe_load(Path("configs/graphs/g.yaml").read_text())["released"]["image"]
    named = {name: Path(given[name]) for name in ("features", "tokens", "codebook")}
    graph = read_graph("data/g/source", "names")
    names = Names(graph.entity_keys, graph.entity_labels)
    released.import_released(released.Files(**named, padding_rows=0), names, 60, Path("out"), {})
    book = np.stack(tables.read("out/codebook.parquet", "codebook")["embedding"].to_pylist())
    for row in tables.read("out/tokens.parquet", "tokens").to_pylist():
        assert len(row["token_ids"]) == 3
        whole = book[row["token_ids"]].sum(0)
        assert np.abs(whole - vectors[graph.entity_keys[row["entity_id"]]]).max() < 2
    with pytest.raises(UserError, match="Tokens are made from features"):
        import_graph("h", FRAME, tokens=3)


def test_labels_of_entities_and_relations_come_from_tables(world):
    Path("names.tsv").write_text("".join(f"{one}\tMx {one[7:]}\n" for one in PEOPLE))
    Path("relations.csv").write_text("key,label\nknows,is acquainted with\nnone,nothing\n")
    imported = import_graph("g", FRAME, labels="names.tsv", relations="relations.csv")
    assert imported.matched["labels"].entities == 60
    assert "1 of 2 relations have a label." in imported.notes
    graph = read_graph("data/g/source", "names")
    assert graph.entity_labels[graph.entity_keys.index("person 3")] == "Mx 3"
    assert graph.relation_labels[graph.relation_keys.index("knows")] == "is acquainted with"
    assert graph.relation_labels[graph.relation_keys.index("likes")] == "likes"


def test_prefixed_names_of_relations_become_readable(world):
    import_graph("g", FRAME.replace({"knows": "dbo:bandMember", "likes": "ex:Odd"}))
    assert read_graph("data/g/source", "names").relation_labels == ["band member", "ex:Odd"]


def test_an_archive_of_triples_is_read_as_its_files(world):
    with zipfile.ZipFile("one.zip", "w") as file:
        file.writestr("deep/er/facts.tsv", LINES)
        file.writestr("deep/readme.md", "words")
    import_graph("g", located("one.zip", Path("data/.work")))
    assert len(read_graph("data/g/source", "names").splits["train"]) == 60
    with zipfile.ZipFile("escape.zip", "w") as file:
        file.writestr("../../train.tsv", LINES)
    with pytest.raises(UserError, match="no file of triples"):
        located("escape.zip", Path("data/.work"))
    assert not list(world.glob("train.tsv"))


def test_a_public_graph_is_fetched_by_its_word_and_checked(world):
    for one in PUBLIC.values():
        assert "triples" in one.files
        assert set(one.sha256) <= set(one.files.values())
        assert all(re.search("/[0-9a-f]{40}/", address) for address in one.files.values())
    place = world / "mirror" / PUBLIC["YAGO15K"].files["triples"].removeprefix("https://")
    place.parent.mkdir(parents=True)
    rows = [[word.replace(" ", "_") for word in row] for row in ROWS]
    place.write_text("".join(f"<{h}>\t<{r}>\t<{t}>\t.\n" for h, r, t in rows))
    found = public("YAGO15K", Path("data/.work"), mirror=str(world / "mirror"))
    import_graph("y", found["triples"])  # names in brackets that are no IRIs, as YAGO has them
    assert read_graph("data/y/source", "names").entity_keys[0] == "person_0"
    assert found["triples"].read_bytes() == place.read_bytes()
    assert public("YAGO15K", Path("elsewhere"), without=["triples"], mirror=str(world / "none")) == {}
    other = world / "mirror" / PUBLIC["KVC16K"].files["triples"].removeprefix("https://")
    other.parent.mkdir(parents=True)
    other.write_text("not what it was\n")
    with pytest.raises(UserError):
        public("KVC16K", Path("data/.work"), mirror=str(world / "mirror"), retry=RetryPolicy(1, 0))
    with pytest.raises(UserError, match="WN18RR"):
        public("WN18", Path("data/.work"))


def test_a_public_graph_whose_texts_begin_with_the_name_has_these_as_labels(world, monkeypatch, capsys):
    Path("facts.tsv").write_text(LINES)
    Path("texts.txt").write_text("".join(f"{one}\tMx {one[7:]}, somebody\n" for one in PEOPLE))
    files = {"triples": Path("facts.tsv"), "texts": Path("texts.txt")}
    monkeypatch.setattr(stage, "public", lambda *_, without, **__: {k: v for k, v in files.items() if k not in without})
    monkeypatch.setattr(stage, "load_params", lambda: load_params(ROOT / "params.yaml"))
    monkeypatch.setattr("sys.argv", ["import_graph", "--from", "WN18RR"])
    stage.main()
    assert read_graph("data/WN18RR/source", "names").entity_labels[0] == "Mx 0"
    assert "entities with texts" in capsys.readouterr().out


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c"], ids=ascii)
def test_only_the_end_of_a_line_ends_a_label(world, mark):
    """Python's splitlines would end it at each of these."""
    Path("texts.txt").write_text(f"/m/1\tAlpha{mark}Beta, a letter\n/m/2\tGamma, another\r\n/m/3\n", newline="")
    found = labels_in(Path("texts.txt"), ", ")
    assert found.to_numpy().tolist() == [["/m/1", f"Alpha{mark}Beta"], ["/m/2", "Gamma"]]


def test_texts_and_pictures_may_be_asked_of_wikidata(world):
    import_graph("g", FRAME, texts="wikidata", pictures="commons")
    config = yaml.safe_load(Path("configs/graphs/g.yaml").read_text())
    assert config["text"] == {"source": "wikidata"}
    assert config["images"] == {"source": "commons"}


def test_separators_in_names_of_pictures_are_one():
    names = Names(["/m/027rn", "/m/06cx9", "a.b", "a_b", "http://x.org/resource/AC/DC"], [None] * 5)
    matched = names.match(["m.027rn", "_m_06cx9", "a b", "a/b", "AC_DC", "a.b"])
    assert matched.entity == {"m.027rn": 0, "_m_06cx9": 1, "AC_DC": 4, "a.b": 2, "a b": 3}
    assert matched.ambiguous == ["a/b"]


def test_two_archives_of_one_name_are_two_sources(world):
    for folder in ("a", "b"):
        Path(folder).mkdir()
        with zipfile.ZipFile(f"{folder}/data.zip", "w") as archive:
            archive.writestr("facts.tsv", f"{folder}\tr\tx\n")
    first, second = (located(f"{folder}/data.zip", Path("data/.work")) for folder in ("a", "b"))
    assert (first.read_text(), second.read_text()) == ("a\tr\tx\n", "b\tr\tx\n")


def test_wikidata_is_asked_for_what_it_calls_keys_that_are_its_ids(world, capsys, monkeypatch):
    """By the command, of a stand-in; what it does not know keeps its name, and nothing is asked twice."""
    named = {"P31": {"label": "instance of"}, "Q7": {"label": None}}
    known = {one: {"description": None, "title": one, "aliases": [], "pictures": [], **of} for one, of in named.items()}
    rows = [
        (f"http://www.wikidata.org/entity/Q{n % 5 + 1}", ("wdt:P31", "wdt:P99")[n % 2], f"Q{n % 3 + 6}")
        for n in range(30)
    ]
    Path("facts.tsv").write_text("".join("\t".join(row) + "\n" for row in dict.fromkeys(rows)))
    monkeypatch.setattr("sys.argv", ["import_graph", "--name", "g", "--triples", "facts.tsv", "--header", "no",
                                     "--labels", "wikidata", "--relations", "wikidata"])  # fmt: skip
    with wiki_server.Server({**wiki_server.ENTITIES, **known}) as server:
        params = load_params(ROOT / "params.yaml")
        web = params.web.model_copy(update={"contact": "a@example.org", "wikidata": server.address, "rate": 100})
        monkeypatch.setattr(stage, "load_params", lambda: params.model_copy(update={"web": web}))
        stage.main()
        asked = len(server.seen)
        monkeypatch.setattr("sys.argv", [*sys.argv, "--replace"])
        stage.main()
        assert len(server.seen) == asked
    graph = read_graph("data/g/source", "names")
    called = {q_id(key): label for key, label in zip(graph.entity_keys, graph.entity_labels, strict=True)}
    assert (called["Q1"], called["Q5"], called["Q7"], called["Q4"]) == ("Universe", "human", "Q7", "Q4")
    assert dict(zip(graph.relation_keys, graph.relation_labels, strict=True)) == {
        "wdt:P31": "instance of",
        "wdt:P99": "wdt:P99",
    }
    assert "Wikidata: 1 of 2 relations have a label there." in capsys.readouterr().out
    with pytest.raises(UserError, match="ends in a P-id of Wikidata"):
        import_graph("h", FRAME, relations=lambda ids: {})


def test_tables_may_be_json_by_key_or_a_list_of_objects(world):
    Path("texts.json").write_text('{"person 1": {"label": "One", "description": "the first", "wiki": null, "born": 3}}')
    Path("relations.json").write_text('{"knows": {"label": "is acquainted with"}, "likes": {"label": "is fond of"}}')
    Path("labels.json").write_text('[{"key": "person 2", "label": "Two"}]')
    import_graph("g", FRAME, texts="texts.json", labels="labels.json", relations="relations.json")
    graph = read_graph("data/g/source", "names")
    called = dict(zip(graph.entity_keys, graph.entity_labels, strict=True))
    assert (called["person 1"], called["person 2"]) == ("One", "Two")
    assert set(graph.relation_labels) == {"is acquainted with", "is fond of"}
    assert "the first" in Path("data/g/source/text.tsv").read_text()
    for content, said in {"[1, 2]": "holds no table", "{": "is not JSON", "{}": "holds no table"}.items():
        Path("broken.json").write_text(content)
        with pytest.raises(UserError, match=said):
            import_graph("h", FRAME, texts="broken.json")


def test_nothing_is_near_a_number(world):
    rows = [(str(n), "knows", str(n + 1)) for n in range(40)]
    frame = pd.DataFrame([("Plato", "knows", "Crito"), *rows], columns=["h", "r", "t"])
    texts = pd.DataFrame([("7", "a"), ("4711", "b"), ("Q17", "c"), ("Platon", "d")], columns=["key", "description"])
    found = import_graph("g", frame, texts=texts).matched["texts"]
    assert found.strangers == [("4711", ""), ("Q17", ""), ("Platon", "Plato")]
    assert [line for line in stage._strangers("texts", found) if "4711" in line] == ["    '4711'"]
