"""What the picture families share: bytes to a decoded RGB picture, and how models want it cut."""

import functools
import io
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import PIL
import torch
from PIL import Image

from pipeline.cores import usable_cores
from pipeline.encoding.encoders import InvalidInput

warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # MAX_PIXELS is the limit here
PREPROCESSING = f"pillow {PIL.__version__.split('.')[0]}"  # decoders and resampling may change with its major version
THREADS = min(16, usable_cores())
MAX_PIXELS = 64_000_000  # more than any picture cleaned by the images stage has
LONGEST = 16  # times its short side; a model that enlarges the short side would make gigabytes of a longer strip


_EXACT = threading.Lock()
_inside = 0  # how many threads compute exactly
_before: dict[tuple[str, str], bool] = {}
# Otherwise torch computes on CUDA in TensorFloat-32, with 10 of a float32's 23 bits, and in whatever order is fastest.
_FLAGS = {
    ("cuda.matmul", "allow_tf32"): False,
    ("cudnn", "allow_tf32"): False,
    ("cudnn", "benchmark"): False,
    ("cudnn", "deterministic"): True,
}


def _backend(name: str) -> Any:
    return functools.reduce(getattr, name.split("."), torch.backends)


@contextmanager
def exactly() -> Iterator[None]:
    """Compute in float32 as it is published, on CUDA too: the ids of a tokenizer are decided by its last digits.

    The flags belong to the whole process, so they are set by the first thread that enters and restored by the last.
    """
    global _inside
    with _EXACT:
        if not _inside:
            _before.update({(name, flag): getattr(_backend(name), flag) for name, flag in _FLAGS})
            for (name, flag), value in _FLAGS.items():
                setattr(_backend(name), flag, value)
        _inside += 1
    try:
        yield
    finally:
        with _EXACT:
            _inside -= 1
            if not _inside:
                for (name, flag), value in _before.items():
                    setattr(_backend(name), flag, value)


def decode(raw: bytes) -> Image.Image | InvalidInput:
    """An RGB picture, or why there is none. Transparent pixels become white; of a long strip, the middle is left."""
    try:
        picture: Image.Image = Image.open(io.BytesIO(raw))
        if picture.width * picture.height > MAX_PIXELS:
            return InvalidInput(f"the picture has {picture.width}×{picture.height} pixels; clean it first.")
        if picture.width < 2 or picture.height < 2:
            return InvalidInput(
                f"the picture has {picture.width}×{picture.height} pixels: there is nothing to see in it."
            )
        if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
            picture = picture.convert("RGBA")
            white = Image.new("RGBA", picture.size, "white")
            picture = Image.alpha_composite(white, picture)
        return _middle(picture.convert("RGB"))
    except MemoryError:
        return InvalidInput("the picture is too large for this machine's memory.", lasting=False)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        return InvalidInput(f"the bytes are no picture that can be read ({error}).")


def _middle(picture: Image.Image) -> Image.Image:
    """The picture, or the middle of a strip longer than LONGEST times its short side."""
    longest = LONGEST * min(picture.size)
    if max(picture.size) <= longest:
        return picture
    width, height = (min(side, longest) for side in picture.size)
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    return picture.crop((left, top, left + width, top + height))


def short_side(picture: Image.Image, size: int, resample: Image.Resampling) -> Image.Image:
    """Resize so that the short side has `size` pixels, and the long one as many as fit, rounded down."""
    width, height = picture.size
    target = (size, size * height // width) if width <= height else (size * width // height, size)
    return picture if picture.size == target else picture.resize(target, resample)


def centre(picture: Image.Image, size: int) -> Image.Image:
    """The square of `size` pixels in the middle."""
    left, top = round((picture.width - size) / 2), round((picture.height - size) / 2)
    return picture.crop((left, top, left + size, top + size))


def pixels(picture: Image.Image) -> torch.Tensor:
    """(3, H, W) uint8."""
    return torch.from_numpy(np.array(picture, dtype=np.uint8).transpose(2, 0, 1).copy())


def prepare(raw: Sequence[bytes], cut: Callable[[Image.Image], Image.Image]) -> list[torch.Tensor | InvalidInput]:
    """Decode and cut pictures to (3, H, W) uint8."""
    return several(raw, lambda picture: pixels(cut(picture)))


def several(raw: Sequence[bytes], make: Callable[[Image.Image], torch.Tensor]) -> list[torch.Tensor | InvalidInput]:
    """Decode pictures and make of each what a model reads, several at once: Pillow lets other threads run."""

    def one(content: bytes) -> torch.Tensor | InvalidInput:
        picture = decode(content)
        return picture if isinstance(picture, InvalidInput) else make(picture)

    if len(raw) < 2 or THREADS < 2:
        return [one(content) for content in raw]
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(one, raw))
