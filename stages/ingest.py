"""From a graph's raw files to its entities, relations and triples, and audit.json, which says what they hold."""

import logging
from pathlib import Path

from pipeline import tables
from pipeline.errors import counted
from pipeline.graph import formats, splits
from pipeline.graph.audit import audit, fused_table
from pipeline.graph.formats import read_graph
from pipeline.graph.graph import write_graph
from pipeline.graph.splits import choose
from pipeline.graph.vocabulary import SPLITS
from pipeline.versions import code_version
from stages.cli import arguments, stage
from stages.params import load_params

log = logging.getLogger(__name__)


@stage
def main() -> None:
    name = arguments(__doc__, "graph").parse_args().graph
    params = load_params()
    settings = params.graph[name]
    released = read_graph(Path("data") / name / "raw", settings.form)
    used, done = choose(
        released.splits, settings.split, dev_share=settings.dev_share, seed=settings.split_seed,
        least_dev=settings.least_dev,
    )  # fmt: skip
    found = audit(released, used, done, settings.split)
    folder = Path("data") / name / "graph"
    provenance = {"stage": "ingest", "form": settings.form, "split": settings.split, "dev_share": settings.dev_share}
    provenance |= {"least_dev": settings.least_dev, "split_seed": settings.split_seed}
    provenance |= {"code_version": code_version(formats, splits)}
    write_graph(folder, released.with_splits(used), provenance)
    tables.write_json(folder / "audit.json", found | {"notes": list(released.notes)})
    tables.write_text(folder / "fused.csv", fused_table(found["fused"]))
    rows = " / ".join(f"{found['used']['rows'][split]:,}" for split in SPLITS)
    log.info("%s (%s): %s entities, %s relations, %s triples in train / dev / test", name, settings.split,
             f"{found['entities']:,}", found["relations"], rows)  # fmt: skip
    for note in released.notes:
        log.warning("%s: %s", name, note)
    if two := len(found["fused"]["entities"]):
        said = counted(two, "entity seems", "entities seem")
        log.warning("%s: %s to be two things under one name, see %s", name, said, folder / "fused.csv")
    _say_what_was_dropped(name, done, settings.least_dev)
    if settings.split == "released" and any(found["used"]["overlaps"].values()):
        log.warning("%s: the released splits share rows (%s); `split: clean` mends that", name,
                    ", ".join(f"{key} {value:,}" for key, value in found["used"]["overlaps"].items()))  # fmt: skip


def _say_what_was_dropped(name: str, done: dict[str, int], least_dev: float) -> None:
    shared, rest = done.get("dev_in_train_or_test_dropped", 0), done.get("leaking_dev_dropped", 0)
    if not shared:
        return
    said = f"{counted(shared, 'dev row')} stood in train or test and went"
    if rest:
        said += f"; the {rest:,} left are less than {least_dev:g} of them (least_dev), so dev was carved out of train"
    log.warning("%s: %s", name, said)


if __name__ == "__main__":
    main()
