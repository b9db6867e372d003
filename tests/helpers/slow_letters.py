"""Run by test_encoding.py, which kills it: encodes `argv[1]`/text.parquet slowly, and says each batch."""

import sys
import time
from pathlib import Path

from pipeline.encoding import run
from pipeline.encoding.inputs import Texts
from pipeline.encoding.run import encode_modality
from pipeline.encoding.store import Stores
from tests.helpers.letters import Letters


class Slow(Letters):
    def encode(self, items):
        time.sleep(0.01)
        print(len(items), flush=True)
        return super().encode(items)


def main() -> None:
    run.PART_ROWS = 50
    base = Path(sys.argv[1])
    encoder = Slow()
    stores = Stores(str(base / "store"), base / "scratch", "text", encoder.fingerprint)
    texts = Texts(base / "text.parquet")
    encode_modality(texts, encoder, stores, base / "out", provenance=encoder.fingerprint, batch_size=8)


if __name__ == "__main__":
    main()
