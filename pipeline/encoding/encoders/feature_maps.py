"""What families that learn a codebook of a timm model's patch features share: the model, and its last feature map."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.encoding.encoders import InvalidInput, Rows, pictures, timm
from pipeline.errors import UserError
from pipeline.settings import AtLeastOne, Commit, Count
from pipeline.versions import code_version


@dataclass(frozen=True)
class Settings:
    model: str  # as in the family timm: a hub name, a folder or, with `weights`, the name of an architecture
    revision: Commit | None = None
    weights: str | None = None
    convert: Literal["efficientnet_lite0"] | None = None
    codes: AtLeastOne = 512  # how many centroids
    sample: AtLeastOne = 1000  # the codebook is learned from at most so many pictures (those with the smallest sha256)
    seed: Count = 0  # of k-means


class Tokenizer(ABC):
    """Tokens from a learned codebook, `centroids` (…, W) float32. Always float32, as tokenizers of pictures are.

    `file` is the family's own, whose name is the family's.
    """

    window = 0

    def __init__(self, settings: Settings, centroids: np.ndarray, *, device: torch.device, file: str):
        self._model = model_of(settings, device)
        self._centroids = torch.from_numpy(np.ascontiguousarray(centroids, dtype=np.float32))
        self.fingerprint: dict[str, Any] = {
            **self._model.fingerprint,
            "family": Path(file).stem,
            "codebook": hashlib.sha256(self._centroids.numpy().tobytes()).hexdigest(),
            "codebook_shape": list(self._centroids.shape),
            "device": device.type,
            "code_version": code_version(file),
        }

    @abstractmethod
    def tokens(self, patches: Tensor) -> Tensor:
        """(B, N) ids of pictures whose patches are unit vectors (B, T, W).

        To be taken in float64, which leaves no room for the batch to decide between two centroids.
        """

    def prepare(self, raw: Sequence[bytes]) -> list[Tensor | InvalidInput]:
        """The model's own preprocessing: (3, H, W) float32."""
        return self._model.prepare(raw)

    def size(self, item: Tensor) -> int:
        """All pictures cost the same."""
        return 0

    def encode(self, items: Sequence[Tensor]) -> Rows:
        """Tokens of each picture, and the model's pooled feature."""
        found, pooled = patches(self._model, items)
        check_width(found, self._centroids.shape[-1])
        tokens = self.tokens(found).numpy().astype(np.int32)
        return Rows(list(tokens), pooled.numpy(), np.ones(len(items), dtype=np.int32))

    def codebook(self, used: np.ndarray) -> np.ndarray:
        """Centroids (N, W) of the tokens used."""
        return self._centroids.flatten(0, -2).numpy()[used]


def model_of(settings: Settings, device: torch.device) -> timm.Timm:
    """The timm model that the keys model, revision, weights and convert name, in float32. Raises UserError."""
    chosen = timm.Settings(settings.model, settings.revision, settings.weights, settings.convert)
    return timm.Timm(chosen, device=device, precision=torch.float32)


def patches(model: timm.Timm, items: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Unit vectors (B, T, W) of the last feature map's places, row by row, and pooled features (B, D), on the CPU."""
    network: Any = model.network
    if not hasattr(network, "forward_intermediates"):
        raise UserError(f"{type(network).__name__} does not give its feature maps; choose another model of timm.")
    maps, pooled = [], []
    with torch.inference_mode(), pictures.exactly():
        for lot in model.lots(items):
            final, (last,) = network.forward_intermediates(lot, indices=1)
            maps.append(last.flatten(2).transpose(1, 2))
            pooled.append(network.forward_head(final, pre_logits=True))
    return F.normalize(torch.cat(maps).float(), dim=-1).cpu(), torch.cat(pooled).float().cpu()


def patches_of(settings: Settings, raws: Iterable[bytes]) -> list[np.ndarray]:
    """Unit vectors (T, W) float32 of each picture that can be read, made on the CPU, to learn a codebook from."""
    model = model_of(settings, torch.device("cpu"))
    found = []
    for raw in raws:
        (item,) = model.prepare([raw])
        if not isinstance(item, InvalidInput):
            found.append(patches(model, [item])[0][0].numpy())
    return found


def check_width(vectors: Tensor, width: int) -> None:
    """Raise UserError if patches (…, W) are not of the width of the codebook."""
    if vectors.shape[-1] != width:
        raise UserError(
            f"A codebook of width {width} does not fit patches of width {vectors.shape[-1]}; remove it, so that it is "
            "learned again."
        )
