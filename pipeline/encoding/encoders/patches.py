"""Pictures without any pretrained model: a codebook of patches, learned by k-means from the graph's own pictures.

Tokens are the nearest centroids of a picture's patches (visual words: Sivic & Zisserman 2003), row by row; the feature
is their normalised histogram; the codebook are the centroids, as patches of RGB values in 0…1. The codebook is a
function of the graph's pictures, so rows of two graphs share nothing: its sha256 is part of the fingerprint.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from pipeline.encoding.encoders import InvalidInput, Rows, kmeans, pictures
from pipeline.errors import UserError
from pipeline.settings import AtLeastOne, Count
from pipeline.versions import code_version

KIND = "image"


@dataclass(frozen=True)
class Settings:
    codes: AtLeastOne = 512  # how many centroids
    size: AtLeastOne = 64  # pictures are resized to a square of so many pixels
    patch: AtLeastOne = 8  # side of a patch in pixels; divides `size`
    sample: AtLeastOne = 2000  # the codebook is learned from at most so many pictures (those with the smallest sha256)
    seed: Count = 0  # of k-means

    def __post_init__(self) -> None:
        if self.size % self.patch:
            raise ValueError(f"patch ({self.patch}) must divide size ({self.size})")


class Patches:
    """See the module. `centroids` (C, 3·patch²) float32 in 0…1."""

    window = 0

    def __init__(self, settings: Settings, centroids: np.ndarray):
        if centroids.shape[1] != 3 * settings.patch**2:
            raise UserError(
                f"A codebook of width {centroids.shape[1]} does not fit patches of {settings.patch}×{settings.patch} "
                f"pixels, which have {3 * settings.patch**2} values; remove it, so that it is learned again."
            )
        self._settings = settings
        self._centroids = torch.from_numpy(np.ascontiguousarray(centroids, dtype=np.float32))
        self._square = (self._centroids.double() ** 2).sum(1)
        self.fingerprint = {
            "family": "patches",
            "weights": hashlib.sha256(self._centroids.numpy().tobytes()).hexdigest(),
            "size": settings.size,
            "patch": settings.patch,
            "preprocessing": f"{pictures.PREPROCESSING}, squeezed to a square",
            "precision": "float32",
            "code_version": code_version(__file__),
        }

    def prepare(self, raw: Sequence[bytes]) -> list[np.ndarray | InvalidInput]:
        """Each picture as its patches (T, 3·patch²) float32."""
        return [_patches(one, self._settings) for one in raw]

    def size(self, item: np.ndarray) -> int:
        """All pictures cost the same."""
        return 0

    def encode(self, items: Sequence[np.ndarray]) -> Rows:
        """The nearest centroid of each patch, and how often each occurs. Distances are taken in float64, which leaves
        no room for the batch to decide between two centroids."""
        patches = torch.from_numpy(np.stack(items)).double()
        distance = self._square - 2 * patches @ self._centroids.double().T
        tokens = distance.argmin(-1).numpy().astype(np.int32)
        codes = len(self._centroids)
        histogram = np.stack([np.bincount(row, minlength=codes) for row in tokens]).astype(np.float32)
        histogram /= tokens.shape[1]
        return Rows(list(tokens), histogram, np.ones(len(items), dtype=np.int32))

    def codebook(self, used: np.ndarray) -> np.ndarray:
        """Centroids (N, 3·patch²) of the tokens used."""
        return self._centroids.numpy()[used]


def load(settings: Settings, *, device: torch.device, precision: torch.dtype, centroids: np.ndarray) -> Patches:
    """The encoder of a learned codebook. It runs on the CPU in float32, whatever the others do."""
    return Patches(settings, centroids)


def learn(settings: Settings, raws: Iterable[bytes], progress: Callable[[int], None] | None = None) -> np.ndarray:
    """Centroids (codes, 3·patch²) of the pictures' patches; see `kmeans.centroids`.

    Raises UserError if there is no picture.
    """
    found = []
    for raw in raws:
        patches = _patches(raw, settings)
        if not isinstance(patches, InvalidInput):
            found.append(patches)
            if progress:
                progress(len(found))
    return kmeans.centroids(found, settings.codes, settings.seed)


def _patches(raw: bytes, settings: Settings) -> np.ndarray | InvalidInput:
    picture = pictures.decode(raw)
    if isinstance(picture, InvalidInput):
        return picture
    side, patch = settings.size, settings.patch
    square = np.asarray(picture.resize((side, side), Image.Resampling.BILINEAR), dtype=np.float32) / 255
    grid = square.reshape(side // patch, patch, side // patch, patch, 3).transpose(0, 2, 1, 3, 4)
    return grid.reshape(-1, patch * patch * 3)
