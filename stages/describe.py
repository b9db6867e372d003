"""Write the exact counts of an ingested graph into its page, data/<graph>/README.md; the prose around them stays."""

import json
import logging
from pathlib import Path

from pipeline import graph_page, tables
from pipeline.errors import UserError
from stages.cli import arguments, stage

log = logging.getLogger(__name__)


@stage
def main() -> None:
    folder = Path("data") / arguments(__doc__, "graph").parse_args().graph
    page = folder / "README.md"
    try:
        before = page.read_text(encoding="utf-8")
        audit = json.loads((folder / "graph" / "audit.json").read_text(encoding="utf-8"))
        text = json.loads((folder / "text.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{error.filename} is not there; write the page's prose, and run ingest and text.") from error
    tables.write_text(page, graph_page.update(before, graph_page.counts(audit, text)))
    log.info("%s: counts written", page)


if __name__ == "__main__":
    main()
