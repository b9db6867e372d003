"""BEiT v2's visual tokenizer, VQ-KD (Peng et al. 2022, arXiv 2208.06366, section 2.2), encoder half.

A picture of 224×224 pixels becomes 14×14 patches; a ViT encodes them (patch features), a small head maps each to a
code vector on the unit sphere, and the nearest row of the codebook is its token. Modules carry the names of the public
checkpoints, so that those load strictly. The feature is the mean of the patch features.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from pipeline.encoding import torchvision_repair  # noqa: F401  (before timm)
from pipeline.encoding.encoders import InvalidInput, Rows, checkpoints, file_sha256, pictures
from pipeline.errors import UserError
from pipeline.settings import AtLeastOne
from pipeline.versions import code_version

KIND = "image"

# The decoder and the teacher serve training only.
UNUSED = ("decoder.", "decode_task_layer.", "teacher_model.", "scaling_layer.", "loss.")


@dataclass(frozen=True)
class Settings:
    weights: str  # path of the checkpoint
    heads: AtLeastOne = 12  # attention heads of its encoder: the one size that a checkpoint does not tell


@dataclass(frozen=True)
class Shape:
    """The sizes of a tokenizer."""

    image: int  # pixels
    patch: int  # pixels
    width: int
    depth: int
    heads: int
    codes: int
    code_width: int


class _Encoder(nn.Module):
    """A ViT of BEiT's blocks with absolute positions; (B, 3, H, W) in -1…1 -> patch features (B, T, D)."""

    def __init__(self, shape: Shape):
        from timm.layers import PatchEmbed
        from timm.models.beit import Block

        super().__init__()
        norm: Any = partial(nn.LayerNorm, eps=1e-6)
        self.patch_embed = PatchEmbed(shape.image, shape.patch, 3, shape.width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, shape.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, self.patch_embed.num_patches + 1, shape.width))
        self.blocks = nn.ModuleList(
            Block(shape.width, shape.heads, qkv_bias=True, mlp_ratio=4, norm_layer=norm) for _ in range(shape.depth)
        )
        self.fc_norm = norm(shape.width)

    def forward(self, images: Tensor) -> Tensor:
        x = self.patch_embed(images)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1) + self.pos_embed
        for block in self.blocks:
            x = block(x)
        return self.fc_norm(x[:, 1:])


class _Codebook(nn.Module):
    """The codebook and the moving averages that trained it, which the checkpoints carry along."""

    weight: Tensor  # (codes, width)

    def __init__(self, codes: int, width: int):
        super().__init__()
        self.register_buffer("weight", torch.zeros(codes, width))
        self.register_buffer("cluster_size", torch.zeros(codes))
        self.register_buffer("embed_avg", torch.zeros(codes, width))
        self.register_buffer("initted", torch.zeros(1))


class _Quantizer(nn.Module):
    def __init__(self, codes: int, width: int):
        super().__init__()
        self.embedding = _Codebook(codes, width)
        self.register_buffer("cluster_size", torch.zeros(codes))


class Tokenizer(nn.Module):
    """VQ-KD: images -> patch features, code vectors, token ids."""

    def __init__(self, shape: Shape):
        super().__init__()
        self.shape = shape
        self.encoder = _Encoder(shape)
        self.encode_task_layer = nn.Sequential(
            nn.Linear(shape.width, shape.width), nn.Tanh(), nn.Linear(shape.width, shape.code_width)
        )
        self.quantize = _Quantizer(shape.codes, shape.code_width)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """images (B, 3, H, W) in 0…1 -> features (B, T, D), unit code vectors (B, T, W), token ids (B, T)."""
        features = self.encoder(images * 255 / 127.5 - 1)
        vectors = F.normalize(self.encode_task_layer(features), dim=-1)
        codebook = self.quantize.embedding.weight
        distance = codebook.pow(2).sum(1) - 2 * vectors @ codebook.T  # the vectors' own length is 1 for all
        return features, vectors, distance.argmin(-1)


def shape_of(state: dict[str, Tensor], heads: int, path: str | Path) -> Shape:
    """The sizes of a checkpoint's tokenizer. Raises UserError if it is none."""
    try:
        width, _, patch, _ = state["encoder.patch_embed.proj.weight"].shape
        positions = state["encoder.pos_embed"].shape[1] - 1
        codes, code_width = state["quantize.embedding.weight"].shape
    except (KeyError, ValueError) as error:
        raise UserError(f"{path} is a checkpoint of another model: it has no VQ-KD tokenizer's {error}.") from error
    depth = 1 + max((int(name.split(".")[2]) for name in state if name.startswith("encoder.blocks.")), default=-1)
    if width % heads:
        raise UserError(f"{path} has width {width}, which {heads} heads do not divide; set the encoder's key `heads`.")
    return Shape(round(positions**0.5) * patch, patch, width, depth, heads, codes, code_width)


def tokenizer(path: str | Path, heads: int) -> Tokenizer:
    """The tokenizer of a checkpoint, on the CPU, for reading. Raises UserError if the file is damaged or another's."""
    state = checkpoints.tensors(checkpoints.read(path), inside=("model", "state_dict"), path=path)
    model = Tokenizer(shape_of(state, heads, path))
    checkpoints.fill(model, state, unused=UNUSED, path=path)
    return model.eval().requires_grad_(False)


class Beit:
    """The tokenizer as an encoder. Always float32: that is how its ids were published."""

    window = 0

    def __init__(self, settings: Settings, *, device: torch.device):
        self._settings = settings
        self._device = device
        self.fingerprint = {
            "family": "beit",
            "weights": file_sha256(settings.weights),
            "preprocessing": f"{pictures.PREPROCESSING}, short side 8/7 bicubic, centre crop, -1…1",
            "precision": "float32",
            "device": device.type,  # the last digits, and with them an id between two codes, are a device's own
            "code_version": code_version(__file__),
        }

    @cached_property
    def _model(self) -> Tokenizer:
        return tokenizer(self._settings.weights, self._settings.heads).to(self._device)

    def prepare(self, raw: Sequence[bytes]) -> list[Tensor | InvalidInput]:
        """Short side to 8/7 of the size (256 of 224), bicubic; the square in the middle."""
        size = self._model.shape.image
        return pictures.prepare(raw, lambda picture: cut(picture, size))

    def size(self, item: Tensor) -> int:
        """All pictures cost the same."""
        return 0

    def encode(self, items: Sequence[Tensor]) -> Rows:
        """Token ids, and the mean of the patch features."""
        images = torch.stack(list(items)).to(self._device).float() / 255
        with torch.inference_mode(), pictures.exactly():
            features, _, tokens = self._model(images)
        return Rows(
            list(tokens.cpu().numpy().astype(np.int32)),
            features.mean(1).cpu().numpy(),
            np.ones(len(items), dtype=np.int32),
        )

    def codebook(self, used: np.ndarray) -> np.ndarray:
        """Rows of the codebook."""
        return self._model.quantize.embedding.weight.cpu().numpy()[used]


def cut(picture: Image.Image, size: int) -> Image.Image:
    """What the tokenizer sees of a picture."""
    return pictures.centre(pictures.short_side(picture, size * 8 // 7, Image.Resampling.BICUBIC), size)


def load(settings: Settings, *, device: torch.device, precision: torch.dtype) -> Beit:
    """The encoder of a checkpoint."""
    return Beit(settings, device=device)
