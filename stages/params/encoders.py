"""The settings of an encoder: its file in configs/encoders/ against the `Settings` of its family."""

from types import ModuleType
from typing import Any

from pipeline.encoding import encoders
from pipeline.settings import Misfit
from stages.params import Params


def encoder_settings(params: Params, name: str, kind: str | None = None) -> tuple[ModuleType, Any]:
    """The family and the settings of an encoder, which must read `kind` ("text" or "image") if that is given.

    Raises UserError naming file, line and key.
    """
    try:
        return encoders.settings(params.encoders[name], kind)
    except Misfit as found:
        raise params.encoders.file(name).misfit(found) from found
