"""Any model of timm with tokens: a codebook learned by k-means from the patch features of the graph's own pictures.

A patch is one place of the model's last feature map (7×7 of a picture of 224 pixels at stride 32). Tokens are the
nearest centroids of a picture's patches, row by row (visual words: Sivic & Zisserman 2003, over learned features); the
codebook are the centroids; the feature is the model's own pooled one. Vectors are compared by their direction, so they
are taken to length 1 first (spherical k-means: Dhillon & Modha 2001). The codebook is a function of the graph's
pictures, so rows of two graphs share nothing: its sha256 is part of the fingerprint.
"""

from collections.abc import Iterable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.encoding.encoders import feature_maps, kmeans
from pipeline.encoding.encoders.feature_maps import Settings

KIND = "image"


class Clusters(feature_maps.Tokenizer):
    """See the module. `centroids` (C, W) of length 1."""

    def tokens(self, patches: Tensor) -> Tensor:
        """The nearest centroid of each patch: both are of length 1, so it has the largest product."""
        return (patches.double() @ self._centroids.double().T).argmax(-1)


def load(settings: Settings, *, device: torch.device, precision: torch.dtype, centroids: np.ndarray) -> Clusters:
    """The encoder of a model and a learned codebook. Raises UserError if the model's files are not there."""
    return Clusters(settings, centroids, device=device, file=__file__)


def learn(settings: Settings, raws: Iterable[bytes]) -> np.ndarray:
    """Centroids (C, W) of length 1 of the pictures' patch features, made on the CPU; see `kmeans.centroids`.

    Raises UserError if there is no picture.
    """
    found = feature_maps.patches_of(settings, raws)
    centres = torch.from_numpy(kmeans.centroids(found, settings.codes, settings.seed))
    return F.normalize(centres, dim=-1).numpy()
