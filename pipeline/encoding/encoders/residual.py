"""Any model of timm with several tokens a patch: residual quantisation of its last feature map, learned on the graph's
own pictures.

A patch is one place of the feature map, a vector of length 1. The first token is the nearest of `codes` centroids; what
is left of the vector goes to the next level, which has centroids of its own, and so on (multiple-stage vector
quantisation: Juang & Gray 1982; of an image's feature map: Lee et al. 2022, arXiv 2203.01941, section 3.1). So the sum
of a patch's code vectors comes nearer to it with each level, where `clusters` has one code a patch. Each level is
k-means on what the level before has left. Tokens stand patch by patch, row by row, coarse before fine; the ids of level
l are l·codes … (l + 1)·codes - 1. The feature is the model's pooled one.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.encoding.encoders import feature_maps, kmeans
from pipeline.settings import AtLeastOne

KIND = "image"


@dataclass(frozen=True)
class Settings(feature_maps.Settings):
    codes: AtLeastOne = 256  # how many centroids a level has
    levels: AtLeastOne = 4  # codes a patch


class Residual(feature_maps.Tokenizer):
    """See the module. `centroids` (L, C, W)."""

    def tokens(self, patches: Tensor) -> Tensor:
        """L ids for each patch."""
        left, ids = patches.double(), []
        for level, centroids in enumerate(self._centroids.double()):
            nearest = _nearest(left, centroids)
            left = left - centroids[nearest]
            ids.append(nearest + level * len(centroids))
        return torch.stack(ids, -1).flatten(1)


def load(settings: Settings, *, device: torch.device, precision: torch.dtype, centroids: np.ndarray) -> Residual:
    """The encoder of a model and learned codebooks. Raises UserError if the model's files are not there."""
    return Residual(settings, centroids, device=device, file=__file__)


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
