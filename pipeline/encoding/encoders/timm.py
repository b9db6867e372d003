"""Any model of timm: its pooled features, after its own preprocessing. These models have no tokens and no codebook."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.encoding import torchvision_repair  # noqa: F401  (before timm)
from pipeline.encoding.encoders import InvalidInput, Rows, checkpoints, file_sha256, pictures
from pipeline.encoding.encoders.hub import locate, weights_file
from pipeline.encoding.encoders.layouts import converted
from pipeline.errors import UserError
from pipeline.settings import Commit
from pipeline.versions import code_version

KIND = "image"
TOKENS = False
FILES = ("model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True)
class Settings:
    model: str  # hub name such as timm/vit_base_patch16_224.augreg2_in21k_ft_in1k, a folder like one of the hub's, or,
    # with `weights`, the name of an architecture
    revision: Commit | None = None  # commit of a hub name; must be pinned
    weights: str | None = None  # for the architecture `model`: a path, an address, or package:<package>/<file>
    convert: Literal["efficientnet_lite0"] | None = None  # the layout that `weights` have, if not timm's


class Timm:
    """See the module."""

    window = 0

    def __init__(self, settings: Settings, *, device: torch.device, precision: torch.dtype):
        self._device, self._precision, self._layout = device, precision, settings.convert
        self._about: dict[str, Any]
        if settings.weights is not None:
            self._file, self._about = weights_file(settings.weights), {"architecture": settings.model}
        else:
            folder = locate(settings.model, settings.revision)
            self._file, self._about = _weights(folder), _config(folder)
        pinned = settings.weights is None and settings.revision and not Path(settings.model).is_dir()
        self.fingerprint = {
            "family": "timm",
            "model": self._about["architecture"],
            "weights": f"{settings.model} {settings.revision}" if pinned else file_sha256(self._file),
            "preprocessing": f"{pictures.PREPROCESSING}, {json.dumps(_preprocessing(self._bare), sort_keys=True)}",
            "precision": str(precision).removeprefix("torch."),
            "code_version": code_version(__file__),
        }

    @cached_property
    def _bare(self) -> nn.Module:
        """The model without its weights and without memory for them."""
        with torch.device("meta"):
            return self._build()

    def _build(self) -> nn.Module:
        import timm

        about = self._about
        try:
            return timm.create_model(
                about["architecture"],
                pretrained=False,
                num_classes=0,
                pretrained_cfg_overlay=about.get("pretrained_cfg"),
                **about.get("model_args", {}),
            )
        except (RuntimeError, TypeError, ValueError) as error:
            raise UserError(
                f"timm cannot build {about['architecture']!r} ({str(error)[:120]}); check `model`."
            ) from error

    @cached_property
    def network(self) -> nn.Module:
        """The model with its weights, without its classifier."""
        model = self._build()
        state = checkpoints.tensors(checkpoints.read(self._file), inside=("state_dict", "model"), path=self._file)
        state = converted(state, self._layout, self._file)
        about: Any = model.pretrained_cfg
        classifier = about.get("classifier") or ()
        heads = tuple(f"{name}." for name in ([classifier] if isinstance(classifier, str) else classifier))
        checkpoints.fill(model, state, unused=heads, path=self._file)
        return model.eval().requires_grad_(False).to(self._device)

    @cached_property
    def _alone(self) -> bool:
        """Whether each picture goes alone: on a CPU a float32 convolution rounds by the number of pictures.

        The one convolution of a vision transformer, which cuts the patches, does not.
        """
        convolutions = sum(isinstance(module, nn.Conv2d) for module in self._bare.modules())
        return self._device.type == "cpu" and self._precision == torch.float32 and convolutions > 1

    @cached_property
    def _transform(self):
        from timm.data import create_transform

        return create_transform(**_preprocessing(self._bare), is_training=False)

    def prepare(self, raw: Sequence[bytes]) -> list[Tensor | InvalidInput]:
        """The model's own preprocessing: (3, H, W) float32."""
        return pictures.several(raw, self._transform)

    def size(self, item: Tensor) -> int:
        """All pictures cost the same."""
        return 0

    def lots(self, items: Sequence[Tensor]) -> Sequence[Tensor]:
        """Prepared pictures as batches (B, 3, H, W) on the device, one by one where rows would depend on it."""
        images = torch.stack(list(items)).to(self._device)
        return images.split(1 if self._alone else len(images))

    def encode(self, items: Sequence[Tensor]) -> Rows:
        """Pooled features, no tokens."""
        mixed = self._precision != torch.float32
        with torch.inference_mode(), torch.autocast(self._device.type, self._precision, enabled=mixed):
            features = torch.cat([self.network(lot) for lot in self.lots(items)])
        if features.ndim != 2:
            raise UserError(
                f"{self._about['architecture']} gives features of shape {tuple(features.shape)}, not pooled ones."
            )
        none = np.zeros(0, dtype=np.int32)
        return Rows([none] * len(items), features.float().cpu().numpy(), np.ones(len(items), dtype=np.int32))

    def codebook(self, used: np.ndarray) -> np.ndarray:
        """There is none."""
        return np.zeros((len(used), 0), dtype=np.float32)


def load(settings: Settings, *, device: torch.device, precision: torch.dtype) -> Timm:
    """The encoder of a timm model. Raises UserError if its files are not there or do not fit."""
    return Timm(settings, device=device, precision=precision)


def _preprocessing(model: nn.Module) -> dict:
    from timm.data import resolve_data_config

    return resolve_data_config({}, model=model)


def _weights(folder: Path) -> Path:
    for name in FILES:
        if (folder / name).is_file():
            return folder / name
    raise UserError(f"{folder} holds no {' or '.join(FILES)}.")


def _config(folder: Path) -> dict:
    try:
        about = json.loads((folder / "config.json").read_text())
        return {**about, "architecture": str(about["architecture"])}
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{folder}/config.json names no timm `architecture`; give a timm model's folder.") from error
