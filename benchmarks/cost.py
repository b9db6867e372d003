"""What a graph costs before anything is trained: python -m benchmarks.cost, after `dvc repro` of the graphs.

Reads what the stages left of each graph (counts, seconds of encoding, sizes on disk) into
benchmarks/results/<graph>/data.json, from which `python -m benchmarks.table` writes the README's table. A graph that is
not here keeps what was measured before.
"""

from pathlib import Path

from benchmarks.run import RESULTS
from pipeline import tables
from pipeline.tables import read_json
from stages.cli import stage

DATA = Path("data")
FOLDERS = ("raw", "images", "encoded")


def measured(folder: Path) -> dict:
    """What the stages left of one graph: entities, texts, pictures, seconds of encoding, bytes on disk."""
    text, images, *encoded = (
        read_json(folder / f"{name}.json") for name in ("text", "images", "encode_text", "encode_images")
    )
    return {
        "entities": text["entities"],
        "with_text": text["with_text"],
        "with_picture": images["with_picture"],
        "encoders": [one.get("encoder", "released") for one in encoded],
        "encoded_rows": [one.get("encoded", 0) for one in encoded],
        "encode_seconds": [one.get("total_seconds", 0.0) for one in encoded],
        "bytes": {name: _size(folder / name) for name in FOLDERS},
    }


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@stage
def main() -> None:
    for folder in sorted(DATA.glob("*")):
        if (folder / "encode_images.json").exists():
            tables.write_json(RESULTS / folder.name / "data.json", measured(folder))
            print(f"{RESULTS / folder.name / 'data.json'} written")


if __name__ == "__main__":
    main()
