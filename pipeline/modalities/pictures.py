"""Bytes from anywhere become clean, bounded pictures: RGB, the right way up, on white, as JPEG or PNG.

What cannot become one is refused with a reason. The picture's header is read before its pixels, so that a few kilobytes
that claim 20,000 x 20,000 pixels cost nothing; whatever is done at full size is one decoding and one reduction, and
everything else (colour, alpha, turning) is done on the small picture that is left.
"""

import hashlib
import io
import struct
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from PIL import Image, ImageCms

from pipeline.cores import usable_cores

SHORT_SIDE = 256  # pixels
MAX_PIXELS = 50_000_000  # what Commons' largest photographs have, and 200 MB while one is decoded
QUALITY = 90

# What Pillow decodes itself: without another program (EPS asks Ghostscript), without pictures inside pictures (ICO).
_FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "AVIF", "JPEG2000", "PPM")
Image.init()  # imports the decoders
FORMATS = tuple(name for name in _FORMATS if name in Image.OPEN)  # a Pillow built without one still reads the rest
# What Pillow warns of (damaged EXIF, sizes beyond its own limit) is either harmless here or refused with a reason.
# For good, since filters that come and go are not safe in threads.
warnings.filterwarnings("ignore", module=r"PIL\.")
_LOSSY = ("JPEG", "MPO", "WEBP", "AVIF", "JPEG2000")
_MAX_SCANS = 100  # a progressive JPEG has about ten; thousands of them are a way to keep a decoder busy for minutes
_FEW_COLOURS = 4096
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# What Pillow's decoders raise on bytes that were damaged on purpose or by chance.
_DAMAGE = (
    OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, EOFError, ArithmeticError, NotImplementedError,
    struct.error,
)  # fmt: skip

Key = TypeVar("Key")


class InvalidImage(ValueError):
    """These bytes cannot become a picture; the message is the reason, for the row's `error`."""


@dataclass(frozen=True)
class Picture:
    """A clean picture as encoded bytes."""

    data: bytes
    width: int
    height: int
    sha256: str  # of `data`


def clean(
    data: bytes, *, short_side: int = SHORT_SIDE, max_pixels: int = MAX_PIXELS, quality: int = QUALITY
) -> Picture:
    """Decode, turn by EXIF, convert to RGB (sRGB, alpha on white, first frame), bound the short side, encode.

    A picture smaller than `short_side` is not enlarged. The result is PNG where the source is lossless and has few
    colours (drawings, flags), else JPEG of `quality`; it carries no metadata. The same bytes give the same bytes.

    Raises InvalidImage if `data` is no picture, is cut short, or has more than `max_pixels` pixels.
    """
    _refuse_by_first_bytes(data)
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise InvalidImage(f"too large: more than {max_pixels:,} pixels") from error
    except _DAMAGE as error:
        raise InvalidImage("no picture that can be read") from error
    width, height = image.size
    if width * height > max_pixels:
        raise InvalidImage(f"too large: {width} x {height} is more than {max_pixels:,} pixels")
    source = image.format
    try:
        small = _reduced(image, short_side)
        small = _turned(small, _orientation(image))
        small = _on_white(_in_srgb(small, image.info.get("icc_profile")))
    except _DAMAGE as error:
        raise InvalidImage(_what_is_damaged(source, error)) from error
    except MemoryError as error:
        raise InvalidImage("too large for this machine's memory") from error
    return _encoded(small, source not in _LOSSY, quality)


def clean_many(
    items: Iterable[tuple[Key, bytes]], work: Callable[[bytes], Picture] = clean, *, workers: int | None = None
) -> Iterator[tuple[Key, Picture | InvalidImage]]:
    """Clean pictures in parallel, in the order of `items`; a refusal comes back as the exception.

    Threads, since Pillow lets go of the interpreter's lock while it decodes, resizes and encodes. No more than four
    pictures a worker are held at once, so memory is bounded however long `items` is. `workers` None: one per core.
    """
    workers = workers or usable_cores()
    pending: deque[tuple[Key, Future]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="pictures") as pool:
        try:
            for key, data in items:
                pending.append((key, pool.submit(_attempt, work, data)))
                if len(pending) >= 4 * workers:
                    done, future = pending.popleft()
                    yield done, future.result()
            while pending:
                done, future = pending.popleft()
                yield done, future.result()
        finally:
            for _, future in pending:
                future.cancel()


def _attempt(work: Callable[[bytes], Picture], data: bytes) -> Picture | InvalidImage:
    try:
        return work(data)
    except InvalidImage as refusal:
        return refusal


def _refuse_by_first_bytes(data: bytes) -> None:
    """Say what is plainly something else, since "cannot be identified" helps nobody."""
    if not data:
        raise InvalidImage("no picture: 0 bytes")
    start = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if b"<svg" in start or (start.startswith(b"<?xml") and b"<svg" in data[:65536].lower()):
        raise InvalidImage("no picture: SVG is a drawing program, not pixels")
    if start.startswith((b"<!doctype html", b"<html")):
        raise InvalidImage("no picture: an HTML page")
    if start.startswith(b"%pdf"):
        raise InvalidImage("no picture: a PDF document")
    if data.startswith(b"\xff\xd8") and data.count(b"\xff\xda") > _MAX_SCANS:
        raise InvalidImage(f"a JPEG of more than {_MAX_SCANS} scans")


def _reduced(image: Image.Image, short_side: int) -> Image.Image:
    """Decode and bound the short side, in the fewest steps at full size."""
    short = min(image.size)
    scale = min(1.0, short_side / short)
    if scale < 0.5:  # JPEG can be decoded at 1/2, 1/4, 1/8; twice the size wanted is left for a good reduction
        image.draft(None, (round(image.width * scale * 2), round(image.height * scale * 2)))
    image.load()
    image = _in_eight_bits(image)
    if min(image.size) > short_side:
        scale = short_side / min(image.size)
        size = tuple(max(short_side, round(side * scale)) for side in image.size)
        image = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    return image


def _in_eight_bits(image: Image.Image) -> Image.Image:
    """Modes that cannot be resized well as they are: palettes, one bit, 16 and 32 bits a channel."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode == "I":
        values = np.asarray(image)
        return Image.fromarray(np.clip(values >> 8 if values.max() > 255 else values, 0, 255).astype(np.uint8))
    if image.mode == "F":
        values = np.nan_to_num(np.asarray(image), posinf=0.0, neginf=0.0)
        low, high = float(values.min()), float(values.max())
        return Image.fromarray(((values - low) * (255.0 / ((high - low) or 1.0))).astype(np.uint8))
    if image.mode in ("P", "PA"):
        return image.convert("RGBA" if image.mode == "PA" or "transparency" in image.info else "RGB")
    if image.mode in ("1", "L", "RGB") and "transparency" in image.info:
        return image.convert("RGBA")
    return image.convert("L") if image.mode == "1" else image


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except _DAMAGE:  # damaged EXIF says nothing about the pixels
        return 1


def _turned(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


def _in_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """RGB or RGBA. An embedded colour profile is honoured; without one, CMYK and the rest convert by formula."""
    if profile and image.mode in ("RGB", "CMYK", "L"):
        try:
            embedded = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            if "srgb" not in ImageCms.getProfileDescription(embedded).lower():
                return ImageCms.profileToProfile(image, embedded, _SRGB, outputMode="RGB")
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            pass  # a damaged or foreign profile: the plain conversion below is what a viewer shows
    if image.mode in ("RGB", "RGBA"):
        return image
    return image.convert("RGBA" if image.mode in ("LA", "La", "RGBa") else "RGB")


_SRGB = ImageCms.createProfile("sRGB")


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode != "RGBA":
        return image
    white = Image.new("RGBA", image.size, "white")
    white.alpha_composite(image)
    return white.convert("RGB")


def _encoded(image: Image.Image, lossless: bool, quality: int) -> Picture:
    image.info.clear()
    out = io.BytesIO()
    if lossless and image.getcolors(_FEW_COLOURS) is not None:
        image.save(out, "PNG", compress_level=6)
    else:
        image.save(out, "JPEG", quality=quality, subsampling="4:2:0")
    data = out.getvalue()
    return Picture(data, image.width, image.height, hashlib.sha256(data).hexdigest())


def _what_is_damaged(source: str | None, error: BaseException) -> str:
    said = str(error).lower()
    kind = source or "picture"
    if any(word in said for word in ("truncated", "not enough", "unexpected end", "eof", "incomplete")):
        return f"cut short: the {kind} ends before its last pixel"
    return f"a damaged {kind}"
