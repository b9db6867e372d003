"""Encoders that learn something from the graph's own inputs before they can encode (the codebook of patches)."""

import hashlib
import io
import logging
from types import ModuleType
from typing import Any

import numpy as np

from pipeline.encoding.inputs import Inputs
from pipeline.encoding.store import KEY, Store, StoreFailure
from pipeline.versions import code_version

log = logging.getLogger(__name__)


def learned(
    family: ModuleType, settings: Any, inputs: Inputs, address: str, on_failure: str = "stop"
) -> dict[str, np.ndarray]:
    """What `family.load` wants beside its settings: {} for most, {"centroids": …} for a family with `learn`.

    What was learned is kept in the store at `address`, by the settings and the inputs it was learned from, so that it
    is learned once, and a run that goes on after a kill goes on with the same numbers. With `on_failure` "continue", a
    store that cannot be used costs the learning again, and no more; else it raises StoreFailure.
    """
    if not hasattr(family, "learn"):
        return {}
    keys = np.unique(inputs.keys)[: settings.sample]
    digest = {"settings": repr(settings), "code_version": code_version(family), "inputs": _hex(keys)}
    store, content = None, None
    try:
        store = Store(address, "learned", digest)
        content = store.artifact("centroids.npy")
    except StoreFailure as failure:
        _unless_continuing(failure, on_failure)
    if content is not None:
        try:
            return {"centroids": np.load(io.BytesIO(content), allow_pickle=False)}
        except (ValueError, EOFError):
            log.warning("The codebook kept in the store %s is cut short; it is learned again.", address)
    wanted = np.isin(inputs.keys, keys)
    raws = sorted(pair for some in inputs.read(wanted, 256) for pair in some)
    centroids = family.learn(settings, (raw for _, raw in raws))
    sink = io.BytesIO()
    np.save(sink, centroids, allow_pickle=False)
    try:
        if store is not None:
            store.put_artifact("centroids.npy", sink.getvalue())
    except StoreFailure as failure:
        _unless_continuing(failure, on_failure)
    return {"centroids": centroids}


def _unless_continuing(failure: StoreFailure, on_failure: str) -> None:
    if on_failure != "continue":
        raise failure
    log.warning("%s Going on without it.", failure)


def _hex(keys: np.ndarray) -> str:
    return hashlib.sha256(keys.astype(KEY).tobytes()).hexdigest()
