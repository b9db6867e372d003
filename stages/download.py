"""Bring a graph's files to data/<graph>/raw: pinned ones from their addresses, a graph of your own from its folder."""

import logging
from pathlib import Path

from pipeline.download import sources
from pipeline.errors import counted
from pipeline.retry import RetryPolicy
from stages.cli import arguments, stage
from stages.params import load_params
from stages.progress import Bar

log = logging.getLogger(__name__)


@stage
def main() -> None:
    name = arguments(__doc__, "graph").parse_args().graph
    params = load_params()
    settings = params.graph[name]
    retry = RetryPolicy(params.sources.timeout, params.sources.retries)
    raw = Path("data") / name / "raw"
    if settings.folder is not None:
        copied = sources.copy_folder(settings.folder, raw)
        log.info("%s: %s copied from %s", name, counted(copied, "file"), settings.folder)
    for file, pinned in Bar(settings.files.items(), unit=" files", desc=f"download {name}"):
        fetched = sources.fetch(
            pinned.address, pinned.sha256, raw / file, work=Path("data/.work/download"),
            mirror=sources.chosen_mirror(params.sources.mirror), record=Path("data") / name / "checksums.json",
            retry=retry,
        )  # fmt: skip
        log.info("%s: %s, %s bytes from %s", name, file, f"{fetched.size:,}", fetched.origin)


if __name__ == "__main__":
    main()
