"""Why a run of mosaic gives this answer: `python -m stages.ops.explain runs/mini/mosaic HEAD RELATION TAIL`.

Names are the graph's keys or labels. By default the tail is the answer; `--side head` asks for the head. Prints what
each kind of evidence adds to the answer's score, above what it adds to the mean of all entities, then the rules, walks
and neighbours behind it.
"""

import argparse
from pathlib import Path

import pyarrow as pa
import torch

from pipeline import tables
from pipeline.errors import UserError
from stages.cli import stage
from trainers.models.mosaic import Mosaic
from trainers.parts.mosaic.explain import Words, reasons
from trainers.training import runs


def find(table: pa.Table, column: str, name: str, what: str) -> int:
    """The id of an entity or a relation by its key or, if no key is called so, by its label.

    Raises UserError if there is none.
    """
    for by in ("key", "label"):
        names = table[by].to_pylist()
        if name in names:
            return int(table[column][names.index(name)].as_py())
    raise UserError(f"The graph has no {what} {name!r}; give its key or its label as in {what}s.parquet.")


def words_of(entities: pa.Table, relations: pa.Table) -> Words:
    """Labels where there are some, else keys; a relation read backwards says so."""
    called = [
        {row[column]: row["label"] or row["key"] for row in table.select([column, "key", "label"]).to_pylist()}
        for table, column in ((entities, "entity_id"), (relations, "relation_id"))
    ]
    number = len(called[1])
    return Words(called[0].__getitem__, lambda one: called[1][one % number] + (" (backwards)" if one >= number else ""))


def explanation(run: runs.Run, folder: Path, head: str, relation: str, tail: str, side: str) -> list[str]:
    """Lines of text. Raises UserError if the run is of another model, or a name is unknown."""
    if not isinstance(run.model, Mosaic):
        raise UserError(f"{run.path} is a run of {run.about['model']}; explained are runs of mosaic.")
    entities = tables.read(folder / "entities.parquet", "entities")
    relations = tables.read(folder / "relations.parquet", "relations")
    ends = [find(entities, "entity_id", name, "entity") for name in (head, tail)]
    asked = find(relations, "relation_id", relation, "relation")
    known, answer = ends if side == "tail" else reversed(ends)
    scores = run.score(torch.tensor([known]), torch.tensor([asked]), side)[0]
    directed = asked + (run.model.relations if side == "head" else 0)
    lines = [f"{int((scores > scores[answer]).sum()) + 1} of {len(scores):,} entities, unfiltered"]
    for name, worth in sorted(run.model.contributions(known, directed, answer).items(), key=lambda one: -abs(one[1])):
        lines.append(f"  {worth:+8.2f}  {name}")
    for one in reasons(run.model.evidence(), known, directed, answer, words_of(entities, relations)):
        sure = "" if one.sure is None else f" {one.sure:.2f}"
        lines.append(f"{one.kind}{sure}: {one.says}")
    return lines


@stage
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("run", "head", "relation", "tail"):
        parser.add_argument(name)
    parser.add_argument("--side", choices=("tail", "head"), default="tail")
    options = parser.parse_args()
    run = runs.load_run(options.run)
    folder = Path("data") / run.about["graph"] / "graph"
    print("\n".join(explanation(run, folder, options.head, options.relation, options.tail, options.side)))


if __name__ == "__main__":
    main()
