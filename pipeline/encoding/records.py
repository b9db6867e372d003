"""What the store remembers of encoders, so that their rows serve where their weights are not.

A fingerprint names weights by their content, which only who has them can tell. But whoever filled the store had them,
and wrote down which fingerprint a recipe led to: the names of the weights (a pinned revision of the hub or an address),
the settings, the precision and the code. Who has the same recipe has the same fingerprint, and needs the weights only
for rows that nobody has made yet. Weights that are a file or a folder of this machine have no name that would mean the
same elsewhere, so for them nothing is written down.
"""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import numpy as np

from pipeline.encoding.encoders import ADDRESS, Encoder, Rows
from pipeline.encoding.store import Store, StoreFailure
from pipeline.errors import UserError
from pipeline.versions import code_version

log = logging.getLogger(__name__)

NAME = "fingerprint.json"


def recipe(
    family: ModuleType, block: Mapping[str, object], precision: str, device: str, sha256: str | None
) -> dict[str, object] | None:
    """All that decides an encoder's fingerprint, by names; None if its weights have no name beyond this machine.

    `block` is that of configs/encoders/; `sha256` what is demanded of weights that are an address, as far as known.
    """
    if hasattr(family, "learn"):  # what it learned from a graph's inputs is in the fingerprint too
        return None
    weights, model, revision = (block.get(key) for key in ("weights", "model", "revision"))
    if isinstance(weights, str):
        if not weights.startswith(ADDRESS):
            return None
    elif not revision or not isinstance(model, str) or model.startswith("package:") or Path(model).is_dir():
        return None
    libraries = ("pillow", "timm") if family.KIND == "image" else ()  # their major versions decide how pictures are cut
    return {
        "block": {key: block[key] for key in sorted(block) if key != "sha256"},
        "sha256": sha256,
        "precision": precision,
        "device": device if family.KIND == "image" else None,  # see the fingerprints of the tokenizers of pictures
        "libraries": {name: version(name).partition(".")[0] for name in libraries},
        "code_version": code_version(family),
    }


def recall(address: str, made_of: Mapping[str, object]) -> dict | None:
    """The fingerprint that the store at `address` remembers for a recipe. Raises StoreFailure."""
    content = Store(address, "recipes", made_of).artifact(NAME)
    if content is None:
        return None
    try:
        found = json.loads(content)
    except ValueError:  # half of it, by a writer that was killed: written again as soon as the weights are at hand
        return None
    return found if isinstance(found, dict) else None


def remember(address: str, made_of: Mapping[str, object], fingerprint: Mapping[str, object]) -> None:
    """Write down what a recipe led to, if nobody has. A store that may only be read stays as it is."""
    try:
        if recall(address, made_of) is None:
            Store(address, "recipes", made_of).put_artifact(NAME, json.dumps(dict(fingerprint), indent=2).encode())
    except StoreFailure as failure:
        log.info("%s Others will need the weights to use its rows.", failure)


class Deferred:
    """An encoder that is known by its fingerprint, and whose weights are opened only when a row is missing."""

    def __init__(self, name: str, fingerprint: Mapping[str, str | int | float | bool | None], load: Callable):
        self._name, self._load = name, load
        self.fingerprint = dict(fingerprint)

    @cached_property
    def _encoder(self) -> Encoder:
        try:
            encoder = self._load()
        except UserError as error:
            raise UserError(
                f"The store lacks some of {self._name}'s rows, and making them takes its weights: {error}"
            ) from error
        if dict(encoder.fingerprint) != self.fingerprint:
            raise UserError(
                f"The weights of {self._name} here are others than those that made its rows in the store, under the "
                f"same name; say which are meant by `sha256` in configs/encoders/{self._name}.yaml."
            )
        return encoder

    @property
    def window(self) -> int:
        return self._encoder.window

    def prepare(self, raw: Sequence[str | bytes]) -> list[object]:
        """See `Encoder`."""
        return self._encoder.prepare(raw)

    def size(self, item: object) -> int:
        """See `Encoder`."""
        return self._encoder.size(item)

    def encode(self, items: Sequence[object]) -> Rows:
        """See `Encoder`."""
        return self._encoder.encode(items)

    def codebook(self, used: np.ndarray) -> np.ndarray:
        """See `Encoder`."""
        return self._encoder.codebook(used)
