"""Cuts the embedded graph out of DB15K: python data/mini/make.py --raw data/DB15K/raw --into data/mini

The files it writes are committed, so nobody needs to run it; it stays so that anybody can check where they come from.
The same input gives the same bytes. What is chosen and why stands in data/mini/README.md, which it writes too.
"""

import argparse
import heapq
from pathlib import Path

import numpy as np

from pipeline import tables
from pipeline.graph import audit, splits
from pipeline.graph.formats import read_names, read_openke
from pipeline.graph.graph import Graph
from pipeline.graph.vocabulary import SPLITS
from pipeline.modalities import texts as text

SEED = 0
ENTITIES = 1000
LARGEST_ANSWER = 0.05  # relations of which one entity takes more than this share, on either side, are left out
FEWEST_FACTS = 20  # as are relations with fewer facts than this in DB15K
TEST_SHARE, DEV_SHARE = 0.1, 0.1
WITHOUT_TEXT, WITHOUT_PICTURE = 40, 80  # entities from which the text is taken away, which get no picture
PREFIXES = {
    "http://dbpedia.org/resource/": "",
    "http://dbpedia.org/ontology/": "dbo:",
    "http://www.w3.org/2000/01/rdf-schema#": "rdfs:",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--raw", type=Path, required=True, help="folder of DB15K's files as the download leaves them")
    parser.add_argument("--into", type=Path, default=Path("data/mini"))
    options = parser.parse_args()
    make(options.raw, options.into)


def make(raw: Path, into: Path) -> None:
    """Write source/ and README.md into the folder `into`."""
    whole = read_openke(raw)
    facts = splits.distinct(np.concatenate([whole.splits[split] for split in SPLITS]))
    core = densest(facts[np.isin(facts[:, 1], spread(facts))], ENTITIES)
    generator = np.random.default_rng(SEED)
    rest, test = splits.carve(core, TEST_SHARE, generator, "test")
    train, dev = splits.carve(rest, DEV_SHARE, generator, "dev")
    entities = np.unique(core[:, [0, 2]])
    keys = [short(key) for key in whole.entity_keys]
    predicates = [short(key) for key in whole.relation_keys]
    for split, rows in (("train", train), ("dev", dev), ("test", test)):
        named = [f"{keys[h]}\t{predicates[r]}\t{keys[t]}\n" for h, r, t in rows.tolist()]
        tables.write_text(into / "source" / f"{split}.tsv", "".join(named))
    write_table(into / "source/entities.tsv", "key\tlabel", [(keys[e], whole.entity_labels[e]) for e in entities])
    used = [(predicates[r], whole.relation_labels[r]) for r in np.unique(core[:, 1])]
    write_table(into / "source/relations.tsv", "key\tlabel", used)
    links = text.read_links(raw / "DB15K_SameAsLink.txt")
    described = text.by_links(
        [whole.entity_keys[e] for e in entities], links, text.read_wikidata(raw / "entity2wikidata.json")
    )
    taken = set(generator.choice(len(entities), WITHOUT_TEXT, replace=False).tolist())
    texts = [
        (keys[e], one.label, one.description or "", " | ".join(one.aliases))
        for place, (e, one) in enumerate(zip(entities, described, strict=True))
        if one and place not in taken
    ]
    write_table(into / "source/text.tsv", "key\tlabel\tdescription\taliases", texts)
    bare = np.sort(generator.choice(entities, WITHOUT_PICTURE, replace=False))
    tables.write_text(into / "source/without_picture.txt", "".join(f"{keys[e]}\n" for e in bare))
    tables.write_text(into / "README.md", readme(read_names(into / "source"), texts, len(bare)))


def spread(facts: np.ndarray) -> list[int]:
    """Relations whose answers are spread out: guessing the commonest one gets nowhere, so there is much to learn."""
    found = []
    for relation in np.unique(facts[:, 1]).tolist():
        rows = facts[facts[:, 1] == relation]
        most = max(np.bincount(rows[:, 0]).max(), np.bincount(rows[:, 2]).max())
        if len(rows) >= FEWEST_FACTS and most <= LARGEST_ANSWER * len(rows):
            found.append(relation)
    return found


def densest(facts: np.ndarray, entities: int) -> np.ndarray:
    """The facts left when the entity with the fewest facts goes, again and again, until `entities` remain."""
    facts = facts[facts[:, 0] != facts[:, 2]]
    touching: dict[int, list[int]] = {}
    for row, (head, _, tail) in enumerate(facts.tolist()):
        touching.setdefault(head, []).append(row)
        touching.setdefault(tail, []).append(row)
    degree = {entity: len(rows) for entity, rows in touching.items()}
    queue = [(count, entity) for entity, count in degree.items()]
    heapq.heapify(queue)
    alive = np.ones(len(facts), dtype=bool)
    while len(degree) > entities:
        count, entity = heapq.heappop(queue)
        if degree.get(entity) != count:
            continue
        del degree[entity]
        for row in touching[entity]:
            if alive[row]:
                alive[row] = False
                other = int(facts[row, 0] + facts[row, 2] - entity)
                degree[other] -= 1
                heapq.heappush(queue, (degree[other], other))
    return facts[alive]


def short(key: str) -> str:
    """DBpedia's own names without their prefix, predicates with the usual abbreviation of it."""
    for prefix, abbreviation in PREFIXES.items():
        if key.startswith(prefix):
            return abbreviation + key.removeprefix(prefix)
    return key


def write_table(path: Path, header: str, rows: list[tuple[str, ...]]) -> None:
    tables.write_text(path, header + "\n" + "".join("\t".join(row) + "\n" for row in rows))


def readme(mini: Graph, texts: list[tuple[str, ...]], bare: int) -> str:
    """The page that says what the slice is, with its exact counts."""
    found = audit.measure(mini)
    rows, pairs, similar = found["rows"], found["test_pairs"], found["similar_relations"]
    entities = len(mini.entity_keys)
    repeated = "\n".join(
        f"- `{one['relation']}` and `{one['other']}`" for kind in ("duplicate", "reverse") for one in similar[kind]
    )
    symmetric = ", ".join(f"`{one['relation']}`" for one in similar["symmetric"])
    return f"""# mini: the embedded graph

A slice of DB15K that lies in the repository, so that everything can be tried without a network. It is real: real facts,
real labels and descriptions. Only its pictures are not photographs: they are *drawings*, mosaics that code draws from
the training facts when the images stage runs (`pipeline/modalities/drawings.py`), and are called drawings wherever
they appear.

| | |
|---|---|
| entities | {entities:,} |
| relations | {len(mini.relation_keys)} |
| train / dev / test triples | {rows["train"]:,} / {rows["dev"]:,} / {rows["test"]:,} |
| overlaps between the three, repeated rows | {sum(found["overlaps"].values()) + sum(found["duplicates"].values())} |
| entities, relations unseen in train | {found["unseen"]["entities"]}, {found["unseen"]["relations"]} |
| test triples whose two entities train joins by some relation, as they stand / turned round | \
{pairs["joined_in_train"]} / {pairs["joined_in_train_reversed"]} |
| entities with a text / with a description | {len(texts)} / {sum(bool(row[2]) for row in texts)} |
| entities that get no drawing | {bare} |

## How it was cut

`data/mini/make.py`, seed {SEED}. All distinct facts of DB15K's three files; relations with at least {FEWEST_FACTS}
facts of which no entity takes more than {LARGEST_ANSWER:.0%} on either side (where guessing the commonest answer wins,
there is nothing to learn); then the entity with the fewest facts goes, again and again, until {ENTITIES:,} remain.
{TEST_SHARE:.0%} of the facts become test and {DEV_SHARE:.0%} of the rest dev, at random, as long as every entity and
relation keeps a fact in train. {WITHOUT_TEXT} entities drawn at random lose their text, on top of those that have none,
and {bare} get no picture, so that missing modalities are met here too.

What to keep in mind: as in DB15K itself, some relations repeat one another

{repeated or "- none"}

or read the same both ways ({symmetric or "none"}), so a part of test can be answered from train by turning a fact
round or taking one relation for another. `audit.json` counts it. Numbers on this graph show that things work; they
compare with nothing published.

## Files in `source/`

`train.tsv`, `dev.tsv`, `test.tsv`: head, relation, tail. `entities.tsv`, `relations.tsv`: key, label. `text.tsv`: key,
label, description, aliases parted by ` | `. `without_picture.txt`: keys of the entities that get no drawing. All are
tab-separated UTF-8. Keys of entities are DBpedia's names: put `http://dbpedia.org/resource/` before them. `dbo:` stands
for `http://dbpedia.org/ontology/`, `rdfs:` for `http://www.w3.org/2000/01/rdf-schema#`.

## Licences

Facts, keys and names: DBpedia, CC BY-SA 3.0 (https://www.dbpedia.org/about/), as selected for DB15K by Liu et al. 2019,
*MMKG: Multi-Modal Knowledge Graphs*, in the files published with AdaMF-MAT. Labels, descriptions and aliases in
`text.tsv`: Wikidata, CC0 1.0. This slice is passed on under the same CC BY-SA 3.0; the licence of the code does not
extend to it.
"""


if __name__ == "__main__":
    main()
