"""Reading graphs in both forms, refusing what is none, splitting and auditing; the released files to the last row."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from pipeline import tables
from pipeline.errors import UserError
from pipeline.graph import splits
from pipeline.graph.audit import audit, similar_relations
from pipeline.graph.categories import categories
from pipeline.graph.formats import read_graph
from pipeline.graph.graph import write_graph
from pipeline.graph.labels import readable

BENCHMARKS = "raw.githubusercontent.com/zjukg/AdaMF-MAT/50930e9b28aed57133bedfc281391185ac9b68a4/benchmarks"


def openke(folder: Path, **files: str) -> Path:
    """A tiny graph in OpenKE's form; keyword arguments replace single files."""
    content = {
        "entity2id": "4\n<http://x.org/resource/A_one> 0\nB\t1\nhttp://www.wikidata.org/entity/Q7 2\nD d 3\n",
        "relation2id": "2\nbirthPlace 0\nknows 1\n",
        "train2id": "4\n0 1 0\n1 2 0\n2 3 1\n3 0 1\n",
        "valid2id": "1\n0 2 1\n",
        "test2id": "1\n1 3 1\n",
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in {**content, **files}.items():
        (folder / f"{name}.txt").write_text(text)
    return folder


def names(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.txt").write_text(text)
    return folder


def test_openke_rows_are_head_tail_relation_and_keys_the_graphs_own(tmp_path):
    found = read_graph(openke(tmp_path), "openke")
    assert found.entity_keys == ["http://x.org/resource/A_one", "B", "Q7", "D d"]
    assert found.entity_labels == ["A one", "B", "Q7", "D d"]
    assert found.relation_labels == ["birth place", "knows"]
    assert found.splits["train"].tolist() == [[0, 0, 1], [1, 0, 2], [2, 1, 3], [3, 1, 0]]
    assert found.splits["dev"].tolist() == [[0, 1, 2]]
    assert found.splits["test"].tolist() == [[1, 1, 3]]


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        ({"train2id": "5\n0 1 0\n1 2 0\n2 3 1\n3 0 1\n"}, r"train2id.txt says 5 rows on its first line but holds 4"),
        ({"entity2id": "3\nA 0\nB 1\nC 2\nD 3\n"}, r"entity2id.txt says 3 rows .* holds 4"),
        ({"train2id": "0 1 0\n"}, r"train2id.txt, line 1 should be the count"),
        ({"train2id": "1\n0 1\n"}, r"train2id.txt, line 2 is not `head tail relation`"),
        ({"train2id": "1\n0 -1 0\n"}, r"train2id.txt, line 2 is not `head tail relation`"),
        ({"test2id": "1\n0 4 0\n"}, r"test2id.txt, line 2 is 0 4 0, but there are only 4 entities"),
        ({"test2id": "1\n0 1 2\n"}, r"only 4 entities and 2 relations"),
        ({"relation2id": "2\nr 0\ns 0\n"}, r"relation2id.txt, line 3 gives the id 0 a second time"),
        ({"relation2id": "2\nr 0\ns 2\n"}, r"relation2id.txt holds the id 2"),
        ({"relation2id": "2\nr 0\nr 1\n"}, r"lines 2 and 3 both have the name 'r'"),
        ({"train2id": "0\n"}, r"train2id.txt holds no triples"),
        ({"entity2id": "4\n" + "x" * 1_000_000 + " 0\n"}, r"entity2id.txt, line 2 is longer than"),
        ({"entity2id": "4\n" + "x" * 3000 + " 0\n"}, r"entity2id.txt, line 2 holds a name of 3000 characters"),
        ({"entity2id": "4\nA\x00B 0\n"}, r"line 2 holds a control character"),
    ],
)
def test_a_damaged_openke_file_is_refused_by_name_and_line(tmp_path, files, complaint):
    with pytest.raises(UserError, match=complaint):
        read_graph(openke(tmp_path, **files), "openke")


def test_a_missing_file_and_bytes_that_are_no_text_are_refused(tmp_path):
    folder = openke(tmp_path)
    (folder / "test2id.txt").unlink()
    with pytest.raises(UserError, match=r"test2id.txt is not there"):
        read_graph(folder, "openke")
    (folder / "test2id.txt").write_bytes(b"1\n\xff\xfe 1 0\n")
    with pytest.raises(UserError, match=r"test2id.txt is not UTF-8 text \(line 2\)"):
        read_graph(folder, "openke")


def test_own_names_windows_line_ends_and_a_mark_at_the_start(tmp_path):
    folder = names(tmp_path, valid="b\tr\tc\n", test="a\ts\tc\n", relations="r\tis near\n")
    (folder / "train.txt").write_bytes("\ufeffa\tr\tb\r\n\r\nb\ts\tÖ ö\r\n".encode())
    found = read_graph(folder, "names")
    assert found.entity_keys == ["a", "b", "Ö ö", "c"]
    assert found.relation_keys == ["r", "s"]
    assert found.relation_labels == ["is near", "s"]
    assert found.splits["dev"].tolist() == [[1, 0, 3]]


def test_a_table_of_entities_gives_ids_labels_and_entities_without_a_triple(tmp_path):
    folder = names(
        tmp_path, train="a\tr\tb\n", test="b\tr\ta\n", dev="a\tr\ta\n", entities="key\tlabel\nlone\tLone\nb\tBee\n"
    )
    found = read_graph(folder, "names")
    assert found.entity_keys == ["lone", "b", "a"]
    assert found.entity_labels == ["Lone", "Bee", "a"]


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        ({"train": "a b c\n"}, r"train.txt, line 1 has 1 tab-separated fields"),
        ({"train": "a\tr\tb\na\t\tb\n"}, r"train.txt, line 2 holds an empty name"),
        ({"train": "a\tr\t" + "y" * 1_000_000 + "\n"}, r"train.txt, line 1 is longer than"),
        ({"train": "\n"}, r"train.txt holds no triples"),
        ({"test": "a\tr\tb\n"}, r"neither train.txt nor triples.txt"),
        ({"train": "a\tr\tb\n", "triples": "a\tr\tb\n"}, r"triples.txt beside files of single splits"),
        ({"train": "a\tr\tb\n", "dev": "a\tr\tb\n", "valid": "a\tr\tb\n"}, r"both dev.txt and valid.txt"),
        ({"train": "a\tr\tb\n", "entities": "a\tA\na\tB\n"}, r"entities.txt, line 2 names 'a' a second time"),
    ],
)
def test_damaged_names_are_refused_by_name_and_line(tmp_path, files, complaint):
    with pytest.raises(UserError, match=complaint):
        read_graph(names(tmp_path, **files), "names")


@pytest.mark.parametrize(
    ("key", "label"),
    [
        ("http://dbpedia.org/resource/AC/DC", "AC/DC"),
        ("http://dbpedia.org/resource/Caf%C3%A9_au_lait", "Café au lait"),
        ("http://www.w3.org/2000/01/rdf-schema#seeAlso", "see also"),
        ("FC_Jūrmala", "FC Jūrmala"),
        ("isPoliticianOf", "is politician of"),
        ("MusicMaker", "MusicMaker"),
        ("P161", "P161"),
    ],
)
def test_keys_read_as_labels(key, label):
    assert readable(key) == label


def test_categories_are_counted_with_threshold_one_and_a_half():
    rows = [(0, 0, 1), (2, 0, 3)]  # one to one
    rows += [(0, 1, tail) for tail in (1, 2, 3)]  # one head, three tails
    rows += [(head, 2, 0) for head in (1, 2, 3)]
    rows += [(head, 3, tail) for head in (1, 2) for tail in (1, 2)]
    rows += [(0, 4, 1), (0, 4, 2), (1, 4, 3)]  # 3 rows of 2 heads: exactly 1.5 tails a head, which is many
    rows += [(1, 5, 0), (2, 5, 0), (3, 5, 1)]  # and exactly 1.5 heads a tail
    rows += [(0, 0, 1)] * 5  # repetitions count once
    found = categories(np.array(rows), 7)
    assert found == ["1-1", "1-N", "N-1", "N-N", "1-N", "N-1", "unseen"]


def ring(count: int) -> np.ndarray:
    """A graph in which every entity has four facts and either relation many."""
    at = np.arange(count)
    return np.concatenate(
        [np.stack([at, at * 0, (at + 1) % count], 1), np.stack([at, at * 0 + 1, (at + 7) % count], 1)]
    )


def test_carving_keeps_every_entity_and_relation_in_train():
    rows = np.concatenate([ring(50), [[0, 2, 1]], [[50, 0, 3]]])  # a relation, and an entity, with one fact each
    train, dev = splits.carve(rows, 0.5, np.random.default_rng(0))
    assert len(train) + len(dev) == len(rows)
    assert len(dev) >= 20
    assert not splits.within(dev, train).any()
    assert set(np.unique(train[:, [0, 2]])) == set(range(51))
    assert set(train[:, 1]) == {0, 1, 2}
    again = splits.carve(rows, 0.5, np.random.default_rng(0))
    assert np.array_equal(dev, again[1])
    assert not np.array_equal(dev, splits.carve(rows, 0.5, np.random.default_rng(1))[1])


def test_clean_leaves_splits_that_share_nothing():
    rows = ring(50)
    train, dev, test = (
        np.concatenate([rows[:80], rows[:5]]),
        rows[75:85],
        np.concatenate([rows[85:], rows[:3], rows[90:91]]),
    )
    used, done = splits.choose({"train": train, "dev": dev, "test": test}, "clean", dev_share=0.1, seed=0)
    assert done["train_duplicates_dropped"] == 5
    assert done["test_duplicates_dropped"] == 1
    assert done["test_in_train_dropped"] == 3
    assert (done["dev_in_train_or_test_dropped"], done["leaking_dev_dropped"]) == (5, 0)
    assert done["carved_dev"] == 0
    assert np.array_equal(used["dev"], rows[80:85])
    for one, other in (("dev", "train"), ("dev", "test"), ("test", "train")):
        assert not splits.within(used[one], used[other]).any()
    assert np.array_equal(used["test"], rows[85:])


def test_released_keeps_every_row_and_clean_keeps_a_dev_set_that_leaks_nothing():
    rows = ring(50)
    parts = {"train": np.concatenate([rows[:80], rows[:5]]), "dev": rows[75:85], "test": rows[85:]}
    used, _ = splits.choose(parts, "released", dev_share=0.1, seed=0)
    assert all(np.array_equal(used[split], parts[split]) for split in parts)
    parts["dev"] = rows[80:85]
    used, done = splits.choose(parts, "clean", dev_share=0.1, seed=0)
    assert np.array_equal(used["dev"], rows[80:85])
    assert done["carved_dev"] == done["leaking_dev_dropped"] == 0


def test_a_dev_row_that_test_holds_goes_and_the_others_stay():
    rows = ring(50)
    parts = {"train": rows[:80], "dev": rows[80:86], "test": rows[85:]}
    used, done = splits.choose(parts, "clean", dev_share=0.1, seed=0)
    assert (done["dev_in_train_or_test_dropped"], done["leaking_dev_dropped"], done["carved_dev"]) == (1, 0, 0)
    assert np.array_equal(used["dev"], rows[80:85])


@pytest.mark.parametrize(("least", "kept"), [(0.1, True), (0.3, False), (1.0, False), (0.0, True)])
def test_a_dev_set_is_replaced_only_where_too_little_is_left(least, kept):
    rows = ring(50)
    parts = {"train": rows[:80], "dev": rows[72:82], "test": rows[85:]}  # two of ten are in no other file
    used, done = splits.choose(parts, "clean", dev_share=0.1, seed=0, least_dev=least)
    assert done["dev_in_train_or_test_dropped"] == 8
    assert done["leaking_dev_dropped"] == (0 if kept else 2)
    assert len(used["dev"]) == (2 if kept else 8)
    assert done["carved_dev"] == (0 if kept else 8)
    assert not splits.within(used["dev"], used["train"]).any()


def test_what_cannot_be_carved_says_why():
    with pytest.raises(UserError, match="each is the last of an entity"):
        splits.carve(np.array([[0, 0, 1], [2, 1, 3]]), 0.5, np.random.default_rng(0))
    with pytest.raises(UserError, match="raise dev_share"):
        splits.carve(ring(50), 0.001, np.random.default_rng(0))


def test_one_file_of_triples_is_split_by_seed(tmp_path):
    text = "".join(f"e{h}\tr{r}\te{t}\n" for h, r, t in ring(50).tolist())
    found = read_graph(names(tmp_path, triples=text), "names")
    used, done = splits.choose(found.splits, "clean", dev_share=0.1, seed=0)
    assert (done["carved_test"], done["carved_dev"]) == (10, 9)
    assert sum(map(len, used.values())) == 100
    assert not splits.within(used["dev"], used["test"]).any()


def test_what_is_carved_out_of_released_rows_does_not_stay_in_train():
    rows = np.concatenate([ring(50), ring(50)])
    used, _ = splits.choose({"train": rows, "dev": rows[:0], "test": rows[:0]}, "released", dev_share=0.2, seed=0)
    assert not splits.within(used["dev"], used["train"]).any()
    assert not splits.within(used["test"], used["train"]).any()


def test_too_small_to_carve_is_refused():
    rows = np.array([[0, 0, 1], [1, 1, 2]])
    with pytest.raises(UserError, match="No dev set can be carved out of 2 training triples"):
        splits.choose({"train": rows, "dev": rows[:0], "test": rows}, "released", dev_share=0.5, seed=0)


def test_relations_that_repeat_one_another_are_found():
    pairs = [(2 * i, 2 * i + 1) for i in range(20)]
    rows = [(a, 0, b) for a, b in pairs] + [(b, 1, a) for a, b in pairs[:15]]  # 1 turns 0 round
    rows += [(a, 2, b) for a, b in pairs[:10]] + [(b, 2, a) for a, b in pairs[:10]]  # 2 reads both ways
    rows += [(100 + i, 3, 200 + i) for i in range(20)] + [(100 + i, 4, 200 + i) for i in range(16)]  # 4 repeats 3
    found = similar_relations(np.array(rows), list("abcde"), least=0.7)
    assert found["reverse"] == [{"relation": "a", "facts": 20, "share": 0.75, "other": "b", "share_of_other": 1.0}]
    assert found["duplicate"] == [{"relation": "d", "facts": 20, "share": 0.8, "other": "e", "share_of_other": 1.0}]
    assert found["symmetric"] == [{"relation": "c", "facts": 20, "share": 1.0}]


def test_the_tables_hold_what_was_read(tmp_path):
    found = read_graph(openke(tmp_path / "raw"), "openke")
    write_graph(tmp_path / "graph", found, {"stage": "ingest"})
    triples = tables.read(tmp_path / "graph/triples.parquet", "triples")
    assert triples.to_pylist()[4] == {"head": 0, "relation": 1, "tail": 2, "split": "dev"}
    relations = tables.read(tmp_path / "graph/relations.parquet", "relations").to_pylist()
    assert relations[0] == {"relation_id": 0, "key": "birthPlace", "label": "birth place", "category": "1-1"}
    assert tables.provenance(tmp_path / "graph/entities.parquet") == {"stage": "ingest"}


RELEASED = {
    "DB15K": (12842, 279, (79222, 9904, 9902), 7481, (8719, 1105, 0), 77),
    "MKG-W": (15000, 169, (34196, 4276, 4274), 4276, (0, 0, 0), 306),
    "MKG-Y": (15000, 28, (21310, 2665, 2663), 2665, (0, 0, 0), 388),
}


@pytest.mark.parametrize("name", RELEASED)
def test_the_released_files_hold_what_the_audit_says(mirror, name):
    entities, relations, rows, distinct, overlaps, unseen = RELEASED[name]
    released = read_graph(mirror / BENCHMARKS / name, "openke")
    used, done = splits.choose(released.splits, "clean", dev_share=0.05, seed=0)
    found = json.loads(json.dumps(audit(released, used, done, "clean")))
    assert (found["entities"], found["relations"]) == (entities, relations)
    was, now = found["released"], found["used"]
    assert tuple(was["rows"].values()) == rows
    assert was["distinct"]["dev"] == distinct
    assert tuple(was["overlaps"][key] for key in ("dev_in_train", "dev_in_test", "test_in_train")) == overlaps
    assert was["unseen"]["test_with_unseen_entity"] == unseen
    assert sum(now["overlaps"].values()) == sum(now["duplicates"].values()) == 0
    assert now["unseen"]["entities"] == was["unseen"]["entities"]  # carving left every entity in train
    if name == "DB15K":
        assert now["rows"] == {"train": 75261, "dev": 3961, "test": 9902}
        assert now["unseen"]["dev_with_unseen_entity"] == 0
    else:
        assert now["rows"] == was["rows"]


def test_mini_is_what_its_script_cuts_out_of_db15k(mirror, tmp_path):
    """The committed files, byte for byte; and they are small, clean and covered."""
    import runpy

    root = Path(__file__).resolve().parents[3] / "data/mini"
    raw = tmp_path / "raw"
    raw.mkdir()
    wanted = [
        *(mirror / BENCHMARKS / "DB15K").iterdir(),
        *mirror.rglob("DB15K_SameAsLink.txt"),
        *mirror.rglob("entity2wikidata.json"),
    ]
    for path in wanted:
        shutil.copy(path, raw)
    runpy.run_path(str(root / "make.py"))["make"](raw, tmp_path / "mini")
    made = {
        path.relative_to(tmp_path / "mini"): path.read_bytes()
        for path in (tmp_path / "mini").rglob("*")
        if path.is_file()
    }
    assert len(made) == 8
    page = made.pop(Path("README.md")).decode().rstrip()
    assert (root / "README.md").read_text().startswith(page)  # what follows, other stages counted
    assert {path: (root / path).read_bytes() for path in made} == made


def test_mini_is_small_clean_and_covered():
    root = Path(__file__).resolve().parents[3] / "data/mini"
    assert sum(path.stat().st_size for path in [root / "README.md", *(root / "source").iterdir()]) < 2_000_000
    mini = read_graph(root / "source", "names")
    used, done = splits.choose(mini.splits, "clean", dev_share=0.1, seed=0)
    found = audit(mini, used, done, "clean")
    assert not any(done.values())  # it is clean as committed
    assert (found["entities"], sum(found["used"]["rows"].values())) == (1000, 8053)
    assert sum(found["used"]["unseen"].values()) == 0


@pytest.mark.parametrize("name", RELEASED)
def test_the_page_of_a_graph_gives_its_exact_counts(mirror, name):
    from pipeline.graph import page as graph_page
    from stages.params import load_params

    root = Path(__file__).resolve().parents[3]
    settings = load_params(root / "params.yaml").graph[name]
    released = read_graph(mirror / BENCHMARKS / name, "openke")
    used, done = splits.choose(released.splits, "clean", dev_share=settings.dev_share, seed=settings.split_seed)
    found = graph_page.counts(audit(released, used, done, "clean"))
    page = (root / "data" / name / "README.md").read_text()
    assert set(found.splitlines()) <= set(page.splitlines())


def test_a_page_keeps_its_prose_and_needs_a_place_for_counts():
    from pipeline.graph import page as graph_page

    page = f"prose\n{graph_page.BEGIN}\nold\n{graph_page.END}\nmore\n"
    once = graph_page.update(page, "| new |")
    assert once == graph_page.update(once, "| new |")
    assert once.startswith("prose\n")
    assert once.endswith("\nmore\n")
    assert "old" not in once
    with pytest.raises(UserError, match="has no place for its counts"):
        graph_page.update(f"prose {graph_page.END}", "| new |")


def test_a_page_without_marks_gets_them_and_pictures_are_counted():
    from pipeline.graph import page as graph_page

    images = {
        "source": "commons", "with_picture": 2, "with_several": 1, "without_picture": 2, "pictures": 3, "coverage": 0.5,
        "web": {"asked_from": "2026-01-02", "asked_to": "2026-01-03", "known_to_wikidata": 4},
        "reasons": [{"reason": "refused: a | b", "rows": 7}], "licences": [{"licence": "CC0", "pictures": 2}],
    }  # fmt: skip
    lines = graph_page._pictures(images)
    for line in (
        "| source | Wikimedia Commons, by Wikidata's P18 |", "| coverage | 50.00% |", "| entities with several | 1 |",
        "| asked from, to | 2026-01-02, 2026-01-03 |", "| refused: a \\| b | 7 |", "| CC0 | 2 |", "| unknown | 1 |",
    ):  # fmt: skip
        assert line in lines
    page = graph_page.update("# graph\n\nprose\n", "\n".join(lines))
    assert page.startswith("# graph\n\nprose\n\n## Counts\n")
    assert graph_page.update(page, "\n".join(lines)) == page
