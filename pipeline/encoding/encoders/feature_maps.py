"""What families that learn a codebook of a timm model's patch features share: the model, and its last feature map."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.encoding.encoders import InvalidInput, pictures, timm
from pipeline.errors import UserError


def model_of(settings: Any, device: torch.device) -> timm.Timm:
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


def patches_of(settings: Any, raws: Iterable[bytes]) -> list[np.ndarray]:
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
