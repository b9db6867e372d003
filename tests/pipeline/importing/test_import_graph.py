"""Graphs in the files that people have, brought in as they are meant; or refused with a sentence, nothing written."""

import json
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from PIL import Image

from pipeline import tables
from pipeline.errors import UserError
from pipeline.graph.formats import read_graph
from pipeline.graph.matching import Names
from pipeline.importing.delimited import Guess
from pipeline.importing.graph import WRITTEN, import_graph
from pipeline.modalities import released

PEOPLE = [f"person {n}" for n in range(12)]
ROWS = [(PEOPLE[n], ("knows", "likes")[n % 2], PEOPLE[(n * 5 + 1) % 12]) for n in range(12)]
ROWS += [(PEOPLE[n], "works with", PEOPLE[(n + 3) % 12]) for n in range(12)]


@pytest.fixture
def world(tmp_path, monkeypatch) -> Path:
    (tmp_path / "configs" / "graphs").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def facts(name: str = "g", split: str = "train") -> set[tuple[str, str, str]]:
    graph = read_graph(Path("data") / name / "source", "names")
    keys, relations = graph.entity_keys, graph.relation_keys
    return {(keys[h], relations[r], keys[t]) for h, r, t in graph.splits[split].tolist()}


def written() -> list[str]:
    """Every file that an import could have left."""
    return [str(path) for folder in ("data", "configs") for path in Path(folder).rglob("*") if path.is_file()]


def lines(rows, parted: str = "\t", header: str = "") -> str:
    return header + "".join(parted.join(row) + "\n" for row in rows)


def turned(rows):
    return [(head, tail, relation) for head, relation, tail in rows]


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("t.tsv", lines(ROWS), "parted by a tab"),
        ("t.txt", lines(ROWS, header="s\tp\to\n"), "line 1 is a header (s, p, o)"),
        ("t.csv", lines(ROWS, ","), "parted by a comma"),
        ("t.csv", lines([[f'"{word}"' for word in row] for row in ROWS], ", ".strip()), "with quotes"),
        ("t.csv", lines(turned(ROWS), ";", "Subject;Object;Predicate\n"), "columns are head, tail, relation"),
        ("t.csv", lines(ROWS, ",", "from whom,kind of link,to whom\n"), "line 1 is a header (from whom"),
        ("t.tsv", "\ufeff\n" + lines(turned(ROWS)), "(from line 2)"),
        ("t.tsv", lines(turned(ROWS)), "columns are head, tail, relation; --columns"),
        ("t.tsv", lines([(*row, "0.5") for row in ROWS], "|", "h|r|t|weight\n"), "of 4 columns"),
    ],
)
def test_tables_are_understood_and_it_is_said_how(world, file, text, said):
    Path(file).write_text(text)
    imported = import_graph("g", file)
    assert facts() == set(ROWS)
    assert any(said in note for note in imported.notes), imported.notes
    assert (imported.entities, imported.relations) == (12, 3)


def test_names_with_quotes_and_commas_stay_whole(world):
    rows = [*ROWS, ('"Weird Al" Yankovic', "knows", "Tyler, the Creator"), ('a "b"', "knows", "person 1")]
    Path("plain.tsv").write_text(lines(rows))
    import_graph("g", "plain.tsv")
    assert facts() == set(rows)
    pd.DataFrame(rows).to_csv("quoted.csv", index=False, header=["head", "relation", "tail"])
    import_graph("h", "quoted.csv")
    assert facts("h") == set(rows)


def test_wrong_guesses_are_corrected(world):
    Path("t.tsv").write_text(lines([("s", "p", "o"), *ROWS]))
    import_graph("g", "t.tsv", guess=Guess(header=False))
    assert facts() == {("s", "p", "o"), *ROWS}
    rows = [(f"a{n}", f"r{n % 2}", f"b{m}") for n in range(4) for m in range(4)]
    Path("w.tsv").write_text(lines([(relation, head, "seen", tail) for head, relation, tail in rows], "#"))
    columns = ("relation", "head", "note", "tail")
    import_graph("w", "w.tsv", guess=Guess(delimiter="#", columns=columns))
    assert facts("w") == set(rows)


def test_parquet_and_dataframes(world):
    frame = pd.DataFrame(turned(ROWS), columns=["subject", "object", "predicate"])
    frame.to_parquet("t.parquet")
    import_graph("g", "t.parquet")
    import_graph("h", frame, valid=frame[:3], test=[frame[3:5]])
    assert facts() == facts("h") == set(ROWS)
    assert facts("h", "dev") == set(ROWS[:3])
    numbered = pd.DataFrame({"h": [*range(6)] * 4, "r": ["x", "y"] * 12, "t": [n % 7 for n in range(24)]})
    import_graph("n", numbered)
    assert ("0", "x", "0") in facts("n")


TURTLE = """@prefix : <http://example.org/> . @prefix rdfs: <http://www.w3.org/2000/01/rdf-schema#> .
:Ada :knows :Bob, :Cid ; rdfs:label "Ada"@en ; :age 36 .
:Bob :knows :Cid . :Cid :likes [ :knows :Ada ] . :Cid :knows :Bob . :Bob :likes :Ada, :Cid, :Eve .
:Eve :likes :Ada, :Bob ; :knows :Ada, :Bob, :Cid .
"""


def test_rdf_leaves_literals_out_and_counts_them(world):
    Path("g.ttl").write_text(TURTLE)
    imported = import_graph("g", "g.ttl")
    base = "http://example.org/"
    assert (base + "Ada", base + "knows", base + "Cid") in facts()
    assert len(facts()) == 14
    assert any("2 literals left out" in note for note in imported.notes)
    statements = [f"<http://x/A{n}> <http://x/{r}> <http://x/B{m}> ." for n in range(5) for m in range(4) for r in "ab"]
    Path("g.txt").write_text("\n".join([*statements, '<http://x/A1> <http://x/name> "one, \\"two\\"" .']) + "\n")
    imported = import_graph("n", "g.txt")
    assert len(facts("n")) == 40
    assert any("1 literal left out, of http://x/name" in note for note in imported.notes)


def test_folders_of_openke(world):
    folder = Path("openke")
    folder.mkdir()
    entity, relation = {name: n for n, name in enumerate(PEOPLE)}, {"knows": 0, "likes": 1, "works with": 2}
    for name, ids in (("entity", entity), ("relation", relation)):
        (folder / f"{name}2id.txt").write_text(
            f"{len(ids)}\n" + "".join(f"{key}\t{number}\n" for key, number in ids.items())
        )
    for name, rows in (("train", ROWS[:20]), ("valid", ROWS[20:22]), ("test", ROWS[22:])):
        text = "".join(f"{entity[h]} {entity[t]} {relation[r]}\n" for h, r, t in rows)
        (folder / f"{name}2id.txt").write_text(f"{len(rows)}\n{text}")
    import_graph("g", folder)
    assert (facts(), facts(split="dev"), facts(split="test")) == (set(ROWS[:20]), set(ROWS[20:22]), set(ROWS[22:]))


def test_texts_and_pictures_find_their_entities_and_strangers_are_named(world):
    Path("t.tsv").write_text(lines(ROWS))
    Path("texts.csv").write_text(
        'id,name,abstract\nperson_1,One,"first, of ""all"""\nperson 2,,second\nperson 22,X,nobody\nzzz,Y,nobody\n'
    )
    for name in ("a/person_3", "a/person 4", "a/nobody"):
        Path("pictures", name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(Path("pictures", name, "1.png"))
    imported = import_graph("g", "t.tsv", texts="texts.csv", pictures="pictures")
    texts, pictures = imported.matched["texts"], imported.matched["pictures"]
    assert (texts.entities, texts.unmatched) == (2, 2)
    assert texts.strangers == [("person 22", "person 2"), ("zzz", None)]
    assert (pictures.entities, [name for name, _ in pictures.strangers]) == (2, ["nobody"])
    assert 'person 1\tOne\t"first, of ""all"""\t' in Path("data/g/source/text.tsv").read_text()
    config = Path("configs/graphs/g.yaml").read_text()
    assert config.startswith(WRITTEN)
    assert yaml.safe_load(config) == {
        "form": "names", "folder": "data/g/source", "text": {"source": "table"},
        "images": {"source": "folder", "path": "pictures"},
    }  # fmt: skip


# --------------------------------------------------------------------------------------------------- features
def odd_rows() -> tuple[list[str], np.ndarray]:
    """Ten of the twelve entities and a stranger, in no order, as float16."""
    dice = np.random.default_rng(0)
    keys = [*dice.permutation(PEOPLE)[:10].tolist(), "stranger"]
    return keys, dice.normal(size=(11, 4)).astype(np.float16)


def save(kind: str, keys: list[str], rows: np.ndarray) -> tuple[object, dict]:
    """The features in one form: what to give to import_graph as `features`, and further arguments."""
    if kind == "npz of a matrix":
        np.savez("f.npz", keys=np.array(keys), embeddings=rows)
    elif kind == "npz of vectors":
        np.savez("f.npz", **dict(zip(keys, rows, strict=True)))
    elif kind == "parquet":
        pd.DataFrame({"embedding": list(rows.astype(np.float32)), "key": keys}).to_parquet("f.parquet")
    elif kind == "npy":
        np.save("f.npy", rows)
        Path("order.txt").write_text("key\n" + "".join(f"{key}\n" for key in keys))
        return "f.npy", {"order": "order.txt"}
    elif kind == "pth":
        torch.save({key: torch.from_numpy(row) for key, row in zip(keys, rows, strict=True)}, "f.pth")
    elif kind == "h5":
        with h5py.File("f.h5", "w") as file:
            for key, row in zip(keys, rows, strict=True):
                file[key] = row
    elif kind == "DataFrame":
        return pd.DataFrame({"key": keys, "embedding": list(rows)}), {}
    return f"f.{kind.split()[0]}", {}


@pytest.mark.parametrize("kind", ["npz of a matrix", "npz of vectors", "parquet", "npy", "pth", "h5", "DataFrame"])
def test_float16_features_in_an_odd_order_end_at_the_right_entities(world, kind):
    keys, rows = odd_rows()
    given, more = save(kind, keys, rows)
    imported = import_graph("g", pd.DataFrame(ROWS, columns=["h", "r", "t"]), features=given, **more)
    found = imported.matched["features (image)"]
    assert (found.entities, [name for name, _ in found.strangers]) == (10, ["stranger"])
    config = yaml.safe_load(Path("configs/graphs/g.yaml").read_text())
    assert config["encoded"] == "released"
    graph = read_graph("data/g/source", "names")
    files = released.Files(features=Path(config["released"]["image"]["features"]))
    names = Names(graph.entity_keys, graph.entity_labels)
    released.import_released(files, names, len(graph.entity_keys), Path("out"), {})
    ids, matrix = tables.features("out/features.parquet")
    assert {graph.entity_keys[one] for one in ids} == set(keys) - {"stranger"}
    for one, row in zip(ids, matrix, strict=True):
        assert np.array_equal(row, rows[keys.index(graph.entity_keys[one])].astype(np.float32))


def test_rows_that_are_no_numbers_are_left_out_and_not_counted_as_found(world):
    keys, rows = odd_rows()
    mine = rows.astype(np.float64)
    mine[0, 1], mine[1, 0], mine[2, 0] = np.nan, np.inf, 1e300  # the last one is no float32
    frame = pd.DataFrame(ROWS, columns=["h", "r", "t"])
    imported = import_graph("g", frame, features=dict(zip(keys, mine, strict=True)))
    found = imported.matched["features (image)"]
    left = [key for key in keys[3:] if key != "stranger"]
    assert found.entities == len(left)
    assert f"the features: 3 rows with a NaN or an infinity left out, such as {keys[0]!r}." in imported.notes
    table = pq.read_table("data/g/source/image-features.parquet")
    assert sorted(table.column("key").to_pylist()) == sorted(left)
    with h5py.File("several.h5", "w") as file:
        file["person 1"] = [[1.0, np.nan], [2.0, 4.0], [4.0, 8.0]]
        file["person 2"] = [[np.nan, 1.0]]
    imported = import_graph("h", frame, features="several.h5")
    table = pq.read_table("data/h/source/image-features.parquet").to_pydict()
    assert table == {"key": ["person 1"], "embedding": [[3.0, 6.0]]}


def test_features_that_do_not_say_whose_they_are_are_refused(world):
    frame = pd.DataFrame(ROWS, columns=["h", "r", "t"])
    _, rows = odd_rows()
    np.save("f.npy", rows)
    np.savez("f.npz", embeddings=rows)
    torch.save(torch.from_numpy(rows), "f.pth")
    np.save("pickled.npy", np.array([{}, {}], dtype=object))
    Path("few.txt").write_text("person 1\n")
    for given, more, said in (
        ("f.npy", {}, "--order"), ("f.npz", {}, "one matrix without keys"), ("f.pth", {}, "--order"),
        ("f.npy", {"order": "few.txt"}, "few.txt lists 1 keys"), ("pickled.npy", {}, "pickled.npy"),
        (dict(zip(["a", "b"], rows, strict=False)), {}, "none of its 2 keys is an entity"),
        (pd.DataFrame({"key": ["person 1"] * 2, "embedding": list(rows[:2])}), {}, "twice"),
        ({"person 1": rows[0], "person_1": rows[1]}, {}, "two rows for one entity"),
        ({"person 1": rows[0], "person 2": rows[1][:2]}, {}, "2 widths"), ("gone.npy", {}, "gone.npy cannot be read"),
        ({"person 1": rows[0] * np.nan}, {}, "every row holds a NaN"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=said) as error:
            import_graph("g", frame, features=given, **more)
        assert "\n" not in str(error.value)
    assert written() == []


# --------------------------------------------------------------------------------------------------- refusals
@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("t.tsv", "a\tr\tb\na\tr\n", "line 2 has 2 fields where line 1 has 3"),
        ("t.tsv", "", "t.tsv is empty"),
        ("t.tsv", "just words\nwithout\n", "--delimiter"),
        ("t.tsv", "a\tr\tb\na\t\tb\n", "line 2 holds an empty name"),
        ("t.tsv", b"a\tr\tb\n\xff\tr\tb\n", "t.tsv is not UTF-8 text .line 2"),
        ("t.tsv", "a\tb\tc\td\ne\tf\tg\th\n", "has 4 columns and no header"),
        ("t.tsv", "a\tb\nc\td\n", "has 2 columns, but a triple is three"),
        ("t.parquet", "no parquet", "cannot be read as Parquet"),
        ("t.nt", "<a <b> <c> .\n", "t.nt is not N.?Triples"),
        ("t.ttl", '<http://x/a> <http://x/b> "only" .', "no triples between entities"),
        ("t.tsv", f"a\tr\tb\n{'x' * 3000}\tr\tb\n", "line 2 holds a name of 3000 characters"),
    ],
)
def test_what_cannot_be_used_is_refused_and_nothing_is_written(world, file, content, said):
    Path(file).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=said) as error:
        import_graph("g", file)
    assert "\n" not in str(error.value)
    assert ".import-" not in str(error.value)
    assert written() == []


@pytest.mark.parametrize("before", [[], ROWS[:15]])
def test_where_the_config_cannot_be_written_the_graph_stays_as_it_was(world, monkeypatch, before):
    frame = pd.DataFrame(ROWS, columns=["h", "r", "t"])
    if before:
        import_graph("g", frame[:15])
    write = tables.write_text

    def refused(path, text):
        if str(path).endswith("g.yaml"):
            raise UserError("configs/graphs/g.yaml cannot be written")
        write(path, text)

    monkeypatch.setattr(tables, "write_text", refused)
    with pytest.raises(UserError, match="cannot be written"):
        import_graph("g", frame, replace=bool(before))
    if before:
        assert facts() == set(before)
    else:
        assert written() == []
    monkeypatch.setattr(tables, "write_text", write)
    import_graph("g", frame, replace=bool(before))
    assert facts() == set(ROWS)


def test_nothing_is_overwritten_unless_asked_for_and_what_is_ones_own_never(world):
    frame = pd.DataFrame(ROWS, columns=["h", "r", "t"])
    import_graph("g", frame)
    with pytest.raises(UserError, match="--replace"):
        import_graph("g", frame[:15])
    assert facts() == set(ROWS)
    import_graph("g", frame[:15], replace=True)
    assert facts() == set(ROWS[:15])
    assert json.loads(Path("data/g/source/imported.json").read_text())["entities"] == 12
    Path("data/g/source/mine.csv").write_text("x")
    with pytest.raises(UserError, match=r"mine\.csv was not written by an import"):
        import_graph("g", frame, replace=True)
    Path("configs/graphs/h.yaml").write_text("form: names\n")
    with pytest.raises(UserError, match="written by hand"):
        import_graph("h", frame, replace=True)
    for name in ("../g", "common", "", "a b"):
        with pytest.raises(UserError, match="cannot be called"):
            import_graph(name, frame)
