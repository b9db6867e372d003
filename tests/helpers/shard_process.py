"""What one process of tests/stages/test_shards.py does: encode, at the same moment as the others."""

import os
import sys
from pathlib import Path

import stages.encode
from pipeline.encoding.encoders import families

families()  # their libraries are slow to import: once for all processes


def encode(folder: Path, start, *options: str) -> None:
    """Run the stage in `folder`, once all processes stand at the barrier `start` (None: at once)."""
    os.chdir(folder)
    os.environ.pop("TESSERA_MIRROR", None)
    sys.argv = ["stages.encode", "--graph", "mini", "--modality", "image", *options]
    if start is not None:
        start.wait()
    stages.encode.main()
