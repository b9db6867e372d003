"""Which files the report shows, as one line of digest a file: of a graph, or of a model's run on it.

A single stage of DVC cannot name the files of all graphs and models, so this one, run for each, sums them up in
data/.shown, on which the report depends.
"""

import argparse
import hashlib
from pathlib import Path

from pipeline import tables
from pipeline.errors import UserError
from stages.cli import stage

FOLDER = Path("data/.shown")
# Patterns below data/<graph> and runs/<graph>/<model>: what stages/report reads.
OF_GRAPH = ("graph/*.parquet", "graph/audit.json", "text.parquet", "images/part-*.parquet",
            "encoded/*/features.parquet", "encoded/*/tokens.parquet")  # fmt: skip
OF_RUN = ("weights.safetensors", "run.json", "history.csv", "dev.json", "test.json", "ranks.parquet")


def summary(folder: Path, patterns: tuple[str, ...]) -> str:
    """A line `<sha256>  <path>` for each file of `folder` that matches. Raises UserError if there is none at all."""
    files = sorted({path for pattern in patterns for path in folder.glob(pattern)})
    if not files:
        raise UserError(f"{folder} holds nothing that the report could show; run the stages before (dvc repro).")
    return "".join(f"{_sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in files)


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


@stage
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graph", required=True, help="the graph's name in params.yaml")
    parser.add_argument("--model", help="the model whose run is summed up; without it the graph itself is")
    options = parser.parse_args()
    if options.model is None:
        tables.write_text(FOLDER / f"{options.graph}.txt", summary(Path("data") / options.graph, OF_GRAPH))
    else:
        folder = Path("runs") / options.graph / options.model
        tables.write_text(FOLDER / options.graph / f"{options.model}.txt", summary(folder, OF_RUN))


if __name__ == "__main__":
    main()
