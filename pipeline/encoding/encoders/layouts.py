"""Checkpoints whose tensors have other names than the model they are for: one function for each layout in use."""

from collections.abc import Callable, Mapping

from torch import Tensor

from pipeline.errors import UserError

# timm's stages of EfficientNet-Lite0 have so many blocks (Tan & Le 2019, arXiv 1905.11946, table 1).
_LITE0 = (1, 2, 2, 3, 3, 4, 1)
_AROUND = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_EXPANDING = {
    "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2", "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}  # fmt: skip
_FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}


def efficientnet_lite0(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """EfficientNet-PyTorch's names (`_blocks.5._bn1.weight`) as those of timm's `tf_efficientnet_lite0`."""
    places = [(stage, block) for stage, blocks in enumerate(_LITE0) for block in range(blocks)]
    found = {}
    for name, tensor in state.items():
        head, *rest = name.split(".")
        if head == "_blocks":
            stage, block = places[int(rest[0])]
            head, rest = (_EXPANDING if stage else _FIRST)[rest[1]], rest[2:]
            found[".".join(["blocks", str(stage), str(block), head, *rest])] = tensor
        else:
            found[".".join([_AROUND[head], *rest])] = tensor
    return found


LAYOUTS: dict[str, Callable[[Mapping[str, Tensor]], dict[str, Tensor]]] = {"efficientnet_lite0": efficientnet_lite0}


def converted(state: Mapping[str, Tensor], layout: str | None, path: object) -> dict[str, Tensor]:
    """A state dict with the model's own names. Raises UserError if it does not have the layout that is named."""
    if layout is None:
        return dict(state)
    try:
        return LAYOUTS[layout](state)
    except (KeyError, IndexError, ValueError) as error:
        raise UserError(f"{path} has not the layout of {layout} (there is no place for {error}).") from error
