"""Any model of timm with tokens: a codebook learned by k-means from the patch features of the graph's own pictures.

A patch is one place of the model's last feature map (7×7 of a picture of 224 pixels at stride 32). Tokens are the
nearest centroids of a picture's patches, row by row (visual words: Sivic & Zisserman 2003, over learned features); the
codebook are the centroids; the feature is the model's own pooled one. Vectors are compared by their direction, so they
are taken to length 1 first (spherical k-means: Dhillon & Modha 2001). The codebook is a function of the graph's
pictures, so rows of two graphs share nothing: its sha256 is part of the fingerprint.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
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
    codes: AtLeastOne = 512  # how many centroids
    sample: AtLeastOne = 1000  # the codebook is learned from at most so many pictures (those with the smallest sha256)
    seed: Count = 0  # of k-means


class Clusters:
    """See the module. `centroids` (C, W) float32 of length 1. Always float32, as tokenizers of pictures are."""

    window = 0

    def __init__(self, settings: Settings, centroids: np.ndarray, *, device: torch.device):
        self._model = feature_maps.model_of(settings, device)
        self._centroids = torch.from_numpy(np.ascontiguousarray(centroids, dtype=np.float32))
        self.fingerprint: dict[str, Any] = {
            **self._model.fingerprint,
            "family": "clusters",
            "codebook": hashlib.sha256(self._centroids.numpy().tobytes()).hexdigest(),
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
        """The nearest centroid of each patch, and the model's pooled feature.

        Distances are taken in float64, which leaves no room for the batch to decide between two centroids.
        """
        patches, pooled = feature_maps.patches(self._model, items)
        feature_maps.check_width(patches, self._centroids.shape[1])
        near = patches.double() @ self._centroids.double().T  # both of length 1: the nearest has the largest product
        tokens = near.argmax(-1).numpy().astype(np.int32)
        return Rows(list(tokens), pooled.numpy(), np.ones(len(items), dtype=np.int32))

    def codebook(self, used: np.ndarray) -> np.ndarray:
        """Centroids (N, W) of the tokens used."""
        return self._centroids.numpy()[used]


def load(settings: Settings, *, device: torch.device, precision: torch.dtype, centroids: np.ndarray) -> Clusters:
    """The encoder of a model and a learned codebook. Raises UserError if the model's files are not there."""
    return Clusters(settings, centroids, device=device)


def learn(settings: Settings, raws: Iterable[bytes]) -> np.ndarray:
    """Centroids (C, W) of length 1 of the pictures' patch features, made on the CPU; see `kmeans.centroids`.

    Raises UserError if there is no picture.
    """
    found = feature_maps.patches_of(settings, raws)
    centres = torch.from_numpy(kmeans.centroids(found, settings.codes, settings.seed))
    return F.normalize(centres, dim=-1).numpy()
