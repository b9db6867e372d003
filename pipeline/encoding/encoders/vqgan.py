"""VQGAN's tokenizer (Esser et al. 2021, arXiv 2012.09841, section 3.1), encoder half, f16: 16×16 tokens per picture.

The modules are those of taming-transformers, with the names of its public Lightning checkpoints, which load strictly
and without running anything in them. The feature is the mean of the vectors before they are quantised.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from pipeline.encoding.encoders import InvalidInput, Rows, checkpoints, file_sha256, pictures
from pipeline.errors import UserError
from pipeline.settings import AtLeastOne
from pipeline.versions import code_version

log = logging.getLogger(__name__)

KIND = "image"
SIZE = 256  # pixels; the public models were trained on squares of it
UNUSED = ("decoder.", "post_quant_conv.", "loss.")


@dataclass(frozen=True)
class Settings:
    weights: str  # path of the checkpoint
    size: AtLeastOne = SIZE  # pictures are cut to squares of so many pixels
    attention_at: AtLeastOne = 16  # resolution at which the encoder attends (its `attn_resolutions`)


class Tokenizer(nn.Module):
    """Encoder, 1×1 convolution and codebook of a VQGAN."""

    encoder: nn.Module
    quantize: Any  # taming-transformers comes without types

    def __init__(
        self, *, channels: int, multipliers: Sequence[int], depth: int, width: int, codes: int, settings: Settings
    ):
        encoder, quantizer = _taming()
        super().__init__()
        self.encoder = encoder(
            ch=channels,
            out_ch=3,
            ch_mult=tuple(multipliers),
            num_res_blocks=depth,
            attn_resolutions=[settings.attention_at],
            in_channels=3,
            resolution=settings.size,
            z_channels=width,
            double_z=False,
        )
        self.quant_conv = nn.Conv2d(width, width, 1)
        self.quantize = quantizer(codes, width, beta=0.25)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """images (B, 3, H, W) in 0…1 -> vectors (B, T, W) before quantisation, token ids (B, T)."""
        vectors = self.quant_conv(self.encoder(images * 2 - 1)).flatten(2).transpose(1, 2)
        codebook = self.quantize.embedding.weight
        distance = codebook.pow(2).sum(1) - 2 * vectors @ codebook.T  # |v|² is the same for all codes
        return vectors, distance.argmin(-1)


def _taming() -> tuple[type[nn.Module], type[nn.Module]]:
    try:
        from taming.modules.diffusionmodules.model import Encoder
        from taming.modules.vqvae.quantize import VectorQuantizer
    except ImportError as error:
        raise UserError(
            "The VQGAN encoder needs taming-transformers: pip install taming-transformers==0.0.1 einops."
        ) from error
    return Encoder, VectorQuantizer


def tokenizer(settings: Settings) -> Tokenizer:
    """The tokenizer of a checkpoint, its sizes read off the tensors. Raises UserError if it is another model's."""
    path = Path(settings.weights)
    state = checkpoints.tensors(checkpoints.read(path), inside=("state_dict",), path=path)
    try:
        channels = len(state["encoder.conv_in.weight"])
        codes, width = state["quantize.embedding.weight"].shape
        levels = 1 + max(int(name.split(".")[2]) for name in state if name.startswith("encoder.down."))
        depth = 1 + max(int(name.split(".")[4]) for name in state if name.startswith("encoder.down.0.block."))
        multipliers = [len(state[f"encoder.down.{n}.block.0.conv1.weight"]) // channels for n in range(levels)]
    except (KeyError, ValueError, IndexError) as error:
        raise UserError(f"{path} is a checkpoint of another model: it has no VQGAN encoder ({error}).") from error
    model = Tokenizer(
        channels=channels, multipliers=multipliers, depth=depth, width=width, codes=codes, settings=settings
    )
    checkpoints.fill(model, state, unused=UNUSED, path=path)
    return model.eval().requires_grad_(False)


def is_untrained(codebook: Tensor) -> bool:
    """True if a codebook (C, W) is still what it was filled with: numbers drawn uniformly from ±1/C.

    A trained one leaves these bounds; a drawn one fills them, with a standard deviation of 1/(C·√3).
    """
    bound = 1 / len(codebook)
    return bool(codebook.abs().max() <= bound) and abs(float(codebook.std()) * 3**0.5 / bound - 1) < 0.05


class Vqgan:
    """The tokenizer as an encoder. Always float32: that is how its ids come out everywhere alike."""

    window = 0

    def __init__(self, settings: Settings, *, device: torch.device):
        self._settings = settings
        self._device = device
        _taming()
        self.fingerprint = {
            "family": "vqgan",
            "weights": file_sha256(settings.weights),
            "size": settings.size,
            "attention_at": settings.attention_at,
            "preprocessing": f"{pictures.PREPROCESSING}, short side bicubic, centre crop, -1…1",
            "precision": "float32",
            "device": device.type,  # the last digits, and with them an id between two codes, are a device's own
            "code_version": code_version(__file__),
        }

    @cached_property
    def _model(self) -> Tokenizer:
        model = tokenizer(self._settings)
        if is_untrained(model.quantize.embedding.weight):
            codes = len(model.quantize.embedding.weight)
            log.warning(
                "The codebook of %s was never trained: its numbers are still drawn from ±1/%d, so tokens mean nothing. "
                "Fetch the checkpoint from the authors of VQGAN.",
                self._settings.weights,
                codes,
            )
        return model.to(self._device)

    def prepare(self, raw: Sequence[bytes]) -> list[Tensor | InvalidInput]:
        """Short side to the size, bicubic; the square in the middle."""
        size = self._settings.size
        return pictures.prepare(
            raw, lambda picture: pictures.centre(pictures.short_side(picture, size, Image.Resampling.BICUBIC), size)
        )

    def size(self, item: Tensor) -> int:
        """All pictures cost the same."""
        return 0

    def encode(self, items: Sequence[Tensor]) -> Rows:
        """Token ids, and the mean of the vectors before quantisation."""
        images = torch.stack(list(items)).to(self._device).float() / 255
        # On a CPU the way a convolution is computed, and so its rounding, depends on how many pictures there are; one
        # at a time costs nothing there, a picture keeps all cores busy.
        lots = images.split(1 if self._device.type == "cpu" else len(images))
        with torch.inference_mode(), pictures.exactly():
            vectors, tokens = map(torch.cat, zip(*map(self._model, lots), strict=True))
        return Rows(
            list(tokens.cpu().numpy().astype(np.int32)),
            vectors.mean(1).cpu().numpy(),
            np.ones(len(items), dtype=np.int32),
        )

    def codebook(self, used: np.ndarray) -> np.ndarray:
        """Rows of the codebook."""
        return self._model.quantize.embedding.weight.cpu().numpy()[used]


def load(settings: Settings, *, device: torch.device, precision: torch.dtype) -> Vqgan:
    """The encoder of a checkpoint. Raises UserError if taming-transformers is not installed."""
    return Vqgan(settings, device=device)
