"""From a graph's raw files to its entities, relations and triples, and audit.json, which says what they hold."""

import logging
from pathlib import Path

from pipeline import tables
from pipeline.graph import formats, splits
from pipeline.graph.audit import audit
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
    used, done = choose(released.splits, settings.split, dev_share=settings.dev_share, seed=settings.split_seed)
    found = audit(released, used, done, settings.split)
    folder = Path("data") / name / "graph"
    provenance = {"stage": "ingest", "form": settings.form, "split": settings.split, "dev_share": settings.dev_share}
    provenance |= {"split_seed": settings.split_seed, "code_version": code_version(formats, splits)}
    write_graph(folder, released.with_splits(used), provenance)
    tables.write_json(folder / "audit.json", found)
    rows = " / ".join(f"{found['used']['rows'][split]:,}" for split in SPLITS)
    log.info("%s (%s): %s entities, %s relations, %s triples in train / dev / test", name, settings.split,
             f"{found['entities']:,}", found["relations"], rows)  # fmt: skip
    if settings.split == "released" and any(found["used"]["overlaps"].values()):
        log.warning("%s: the released splits share rows (%s); `split: clean` mends that", name,
                    ", ".join(f"{key} {value:,}" for key, value in found["used"]["overlaps"].items()))  # fmt: skip


if __name__ == "__main__":
    main()
