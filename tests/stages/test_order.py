"""Python hashes strings otherwise in each process; no table may follow the order of a set of them."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# A graph with texts and drawings, from its files to its tables; prints each table's sha256.
SCRIPT = """
import hashlib, sys
from pathlib import Path
from pipeline import tables
from pipeline.graph.audit import audit
from pipeline.graph.formats import read_graph
from pipeline.graph.graph import write_graph
from pipeline.graph.matching import Names, match_files
from pipeline.graph.splits import choose
from pipeline.modalities import texts
from pipeline.modalities.drawings import draw

people = [f"person {n}" for n in range(60)]
rows = [(one, ("knows", "likes")[n % 2], people[(n * 7 + 1) % 60]) for n, one in enumerate(people)]
source = Path("source")
source.mkdir()
(source / "triples.tsv").write_text("".join("\\t".join(row) + "\\n" for row in rows))
texts_of = "".join(f"{one}\\t{one.title()}\\tthe {one} of words\\n" for one in people[::2])
(source / "text.tsv").write_text("key\\tlabel\\tdescription\\n" + texts_of)
read = read_graph(source, "names")
used, done = choose(read.splits, "clean", dev_share=0.1, seed=0)
write_graph(Path("graph"), read.with_splits(used), {})
tables.write_json(Path("graph/audit.json"), audit(read, used, done, "clean"))
found, _ = texts.by_table(read.entity_keys, source)
columns, _ = texts.rows(read.entity_keys, found, fields=["label", "description"], separator=": ", fallback="none")
tables.write(Path("text.parquet"), "text", columns, {})
files = [f"{one.replace(' ', '_')}/{n}.jpg" for one in people for n in (10, 9)]
print(match_files(files, Names(read.entity_keys, read.entity_labels))[1])
part = {name: tables.read(Path(f"graph/{name}.parquet"), name) for name in ("entities", "relations", "triples")}
for entity, drawing in draw(part["triples"], part["entities"], part["relations"], set()):
    print(entity, hashlib.sha256(drawing).hexdigest())
for path in sorted(Path().rglob("*.*")):
    if path.is_file():
        print(path, hashlib.sha256(path.read_bytes()).hexdigest())
"""


def test_two_processes_write_the_same_bytes(tmp_path):
    said = []
    for seed in ("1", "2"):
        (tmp_path / seed).mkdir()
        given = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT], cwd=tmp_path / seed, env=given, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        said.append(done.stdout.splitlines())
    assert len(said[0]) > 60
    assert said[0] == said[1]
