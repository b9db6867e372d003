"""Any model of timm with several tokens a patch: residual quantisation of its last feature map, learned on the graph's
own pictures.

A patch is one place of the feature map, a vector of length 1. The first token is the nearest of `codes` centroids; what
is left of the vector goes to the next level, which has centroids of its own, and so on (multiple-stage vector
quantisation: Juang & Gray 1982; of an image's feature map: Lee et al. 2022, arXiv 2203.01941, section 3.1). So the sum
of a patch's code vectors comes nearer to it with each level, where `clusters` has one code a patch. Each level is
k-means on what the level before has left. Tokens stand patch by patch, row by row, coarse before fine; the ids of level
l are l·codes … (l + 1)·codes - 1. The feature is the model's pooled one.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from pipeline.encoding.encoders import InvalidInput, Rows, feature_maps, kmeans
from pipeline.settings import AtLeastOne, Commit, Count
from pipeline.versions import code_version

KIND = "image"


@dataclass(frozen=True)
class Settings:
    model: str  # as in the family timm: a hub name, a folder or, with `weights`, the name of an architecture
    revision: Commit | None = None
    weights: str | None = None
    convert: Literal["efficientnet_lite0"] | None = None
    levels: AtLeastOne = 4  # codes a patch
    codes: AtLeastOne = 256  # how many centroids a level has
    sample: AtLeastOne = 1000  # the codebook is learned from at most so many pictures (those with the smallest sha256)
    seed: Count = 0  # of k-means


class Residual:
    """See the module. `centroids` (L, C, W) float32. Always float32, as tokenizers of pictures are."""

    window = 0

    def __init__(self, settings: Settings, centroids: np.ndarray, *, device: torch.device):
        self._model = feature_maps.model_of(settings, device)
        self._centroids = torch.from_numpy(np.ascontiguousarray(centroids, dtype=np.float32))
        self.fingerprint: dict[str, Any] = {
            **self._model.fingerprint,
            "family": "residual",
            "codebook": hashlib.sha256(self._centroids.numpy().tobytes()).hexdigest(),
            "levels": len(self._centroids),
            "device": device.type,
            "code_version": code_version(__file__),
        }

    def prepare(self, raw: Sequence[bytes]) -> list[Tensor | InvalidInput]:
        """The model's own preprocessing: (3, H, W) float32."""
        return self._model.prepare(raw)

    def size(self, item: Tensor) -> int:
        """All pictures cost the same."""
        return 0

    def encode(self, items: Sequence[Tensor]) -> Rows:
        """L ids for each patch, and the model's pooled feature."""
        patches, pooled = feature_maps.patches(self._model, items)
        feature_maps.check_width(patches, self._centroids.shape[2])
        left, ids = patches.double(), []
        for level, centroids in enumerate(self._centroids.double()):
            nearest = _nearest(left, centroids)
            left = left - centroids[nearest]
            ids.append(nearest + level * len(centroids))
        tokens = torch.stack(ids, -1).flatten(1).numpy().astype(np.int32)
        return Rows(list(tokens), pooled.numpy(), np.ones(len(items), dtype=np.int32))

    def codebook(self, used: np.ndarray) -> np.ndarray:
        """Centroids (N, W) of the tokens used."""
        return self._centroids.flatten(0, 1).numpy()[used]


def load(settings: Settings, *, device: torch.device, precision: torch.dtype, centroids: np.ndarray) -> Residual:
    """The encoder of a model and learned codebooks. Raises UserError if the model's files are not there."""
    return Residual(settings, centroids, device=device)


def learn(settings: Settings, raws: Iterable[bytes]) -> np.ndarray:
    """Centroids (L, C, W) of the pictures' patch features, level by level, made on the CPU; see `kmeans.centroids`.

    A level with fewer different rows than codes repeats its last centroid, which no patch is then given.
    Raises UserError if there is no picture.
    """
    left = feature_maps.patches_of(settings, raws)
    levels = []
    for level in range(settings.levels):
        centroids = kmeans.centroids(left, settings.codes, settings.seed + level)
        levels.append(np.pad(centroids, ((0, settings.codes - len(centroids)), (0, 0)), mode="edge"))
        vectors = torch.from_numpy(centroids)
        left = [rows - centroids[_nearest(torch.from_numpy(rows).double(), vectors.double()).numpy()] for rows in left]
    return np.stack(levels)


def _nearest(vectors: Tensor, centroids: Tensor) -> Tensor:
    """Which of the centroids (C, W) is nearest to each vector (…, W): (…) int64. In float64, which leaves the batch no
    room to decide between two; of equally near ones the first."""
    return (centroids.pow(2).sum(-1) - 2 * vectors @ centroids.T).argmin(-1)
