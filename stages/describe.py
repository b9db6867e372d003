"""Write the exact counts of an ingested graph into its page, data/<graph>/README.md; the prose around them stays."""

import json
import logging
from pathlib import Path

from pipeline import tables
from pipeline.errors import UserError
from pipeline.graph import page as graph_page
from stages.cli import arguments, stage

log = logging.getLogger(__name__)


@stage
def main() -> None:
    folder = Path("data") / arguments(__doc__, "graph").parse_args().graph
    page = folder / "README.md"
    before = page.read_text(encoding="utf-8") if page.exists() else f"# {folder.name}\n"
    try:
        audit = json.loads((folder / "graph" / "audit.json").read_text(encoding="utf-8"))
        text = json.loads((folder / "text.json").read_text(encoding="utf-8"))
        images = json.loads((folder / "images.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{error.filename} is not there; run ingest, text and images.") from error
    tables.write_text(page, graph_page.update(before, graph_page.counts(audit, text, images)))
    log.info("%s: counts written", page)


if __name__ == "__main__":
    main()
