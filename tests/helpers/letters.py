"""An encoder that needs no weights."""

from dataclasses import dataclass, field

import numpy as np

from pipeline.encoding.encoders import InvalidInput, Rows
from tests.helpers import encoder_zoo as zoo


@dataclass
class Letters:
    """An encoder that needs no weights: tokens are code points, the feature is their histogram. Counts its work."""

    window: int = 64
    worked: list[str] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)  # how many each held
    poison: str = ""
    fingerprint: dict = field(default_factory=lambda: {"family": "letters", "weights": "0" * 64})

    def prepare(self, raw):
        return [one if one.strip() else InvalidInput("the text is empty.") for one in raw]

    def size(self, item):
        return len(item) // 8

    def encode(self, items):
        self.worked += items
        self.batches.append(len(items))
        tokens = [np.frombuffer(item.encode("utf-32-le"), dtype=np.int32) for item in items]
        features = np.stack([np.bincount(one % 16, minlength=16) for one in tokens]).astype(np.float32)
        for row, item in enumerate(items):
            if item == self.poison:
                features[row, 3] = np.nan
        return Rows(tokens, features, np.array([len(item.split()) for item in items], dtype=np.int32))

    def codebook(self, used):
        return np.stack([used, used * 2], axis=1).astype(np.float32)


def texts(first: int, last: int) -> dict[int, str]:
    return {n: f"{zoo.text(n)} {n}" for n in range(first, last)}
