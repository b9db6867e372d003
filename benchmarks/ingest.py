"""What a graph's size costs before training: the ingest stage on a synthetic graph, in a process with bounded memory.

    python -m benchmarks.ingest --entities 1000000 --triples 10000000 --form openke names --memory 6

The graph's files are written below `--work` once and kept: tails by a long-tailed law, 200 relations, one row in a
thousand twice, a hundredth of the rows each in dev and test. Prints wall and processor seconds and the peak memory of
`python -m stages.ingest` in a folder of its own, under prlimit's bound on memory of `--memory` GB.
"""

import argparse
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
RELATIONS = 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entities", type=int, default=1_000_000)
    parser.add_argument("--triples", type=int, default=10_000_000)
    parser.add_argument("--form", nargs="+", choices=("openke", "names"), default=["openke", "names"])
    parser.add_argument("--memory", type=float, default=6, help="GB that the process may use")
    parser.add_argument("--work", type=Path, default=ROOT / "data/.work/ingest")
    arguments = parser.parse_args()
    for form in arguments.form:
        folder = (arguments.work / f"{form}-{arguments.entities}-{arguments.triples}").resolve()
        make(folder, form, arguments.entities, arguments.triples)
        set_up(folder, form)
        size = f"{form}, {arguments.entities:,} entities, {arguments.triples:,} triples"
        print(f"{size}: {ingest(folder, arguments.memory)}", flush=True)


def make(folder: Path, form: str, entities: int, triples: int) -> None:
    """A project folder with one graph `big` in it, unless it is there."""
    if (folder / "whole").exists():
        return
    raw = folder / "data/big/raw"
    raw.mkdir(parents=True, exist_ok=True)
    rows = draw(entities, triples)
    held_out = triples // 100
    parts = {"test": rows[:held_out], "valid": rows[held_out : 2 * held_out], "train": rows[2 * held_out :]}
    for split, part in parts.items():
        if form == "names":
            entity, relation = "http://example.org/resource/E{}".format, "http://example.org/ontology/r{}".format
            lines = ("\t".join((entity(h), relation(r), entity(t))) for h, r, t in part.tolist())
            write(raw / f"{split}.txt", lines)
        else:
            write(raw / f"{split}2id.txt", (f"{h} {t} {r}" for h, r, t in part.tolist()), len(part))
    if form == "openke":
        for kind, number in (("entity", entities), ("relation", RELATIONS)):
            write(raw / f"{kind}2id.txt", (f"<http://example.org/{kind}/N_{i}> {i}" for i in range(number)), number)
    (folder / "whole").touch()


def set_up(folder: Path, form: str) -> None:
    """The project's own params and configs as they are now, and the graph's."""
    shutil.copytree(ROOT / "configs", folder / "configs", dirs_exist_ok=True)
    shutil.copy(ROOT / "params.yaml", folder)
    (folder / "configs/graphs/big.yaml").write_text(f"form: {form}\n", encoding="utf-8")


def draw(entities: int, triples: int) -> np.ndarray:
    """(triples, 3): heads even, relations and tails by a long-tailed law; each entity is a head; some rows twice."""
    generator = np.random.default_rng(0)
    head = np.concatenate([np.arange(entities), generator.integers(entities, size=max(0, triples - entities))])[
        :triples
    ]
    relation = (RELATIONS * generator.random(triples) ** 2).astype(np.int64)
    tail = (entities * generator.random(triples) ** 3).astype(np.int64)
    rows = np.stack([head, relation, tail], axis=1)
    generator.shuffle(rows)
    again = triples // 1000
    rows[len(rows) - again :] = rows[:again]
    return rows


def write(path: Path, lines, count: int | None = None) -> None:
    with open(path, "w", encoding="utf-8") as handle:
        if count is not None:
            handle.write(f"{count}\n")
        handle.writelines(f"{line}\n" for line in lines)


def ingest(folder: Path, gigabytes: float) -> str:
    """One run of the stage, in words. Stops if it fails."""
    limit = ["prlimit", f"--as={int(gigabytes * 1e9)}"]
    command = [*limit, sys.executable, "-m", "stages.ingest", "--graph", "big"]
    where = {**os.environ, "PYTHONPATH": str(ROOT)}
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=where, text=True, capture_output=True)
    if done.returncode:
        sys.exit(f"the stage failed under {gigabytes} GB:\n{done.stderr[-2000:]}")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    return (
        f"{time.perf_counter() - began:.1f} s, {busy:.1f} s of processor time, peak "
        f"{used.ru_maxrss / 1e6:.2f} GB, bound {gigabytes:g} GB"
    )


if __name__ == "__main__":
    main()
