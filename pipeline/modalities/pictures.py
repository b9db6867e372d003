"""Bytes from anywhere become clean, bounded pictures: RGB, the right way up, on white, as JPEG or PNG.

What cannot become one is refused with a reason. The picture's header is read before its pixels, so that a few kilobytes
that claim 20,000 x 20,000 pixels cost nothing; whatever is done at full size is one decoding and one reduction, and
everything else (colour, alpha, turning) is done on the small picture that is left.
"""

import hashlib
import io
import re
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
_MAX_SEGMENTS = 10_000  # of a JPEG; a photograph has some twenty
_FEW_COLOURS = 4096
_MAX_LONG_SIDE = 16_384  # pixels of a cleaned picture; JPEG itself ends at 65,500
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

    A picture smaller than `short_side` is not enlarged; one that would still be over 16,384 pixels long, such as a
    scroll, is made smaller. The result is PNG where the source is lossless and has few colours (drawings, flags), else
    JPEG of `quality`; it carries no metadata. The same bytes give the same bytes.

    Raises InvalidImage if `data` is not a picture, is cut short, or has more than `max_pixels` pixels.
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
        small = _decoded(image, data, short_side)
        small = _turned(small, _orientation(image))
        small = _on_white(_in_srgb(small, image.info.get("icc_profile")))
        return _encoded(small, source not in _LOSSY, quality)
    except _DAMAGE as error:
        raise InvalidImage(_what_is_damaged(source, error)) from error
    except MemoryError as error:
        raise InvalidImage("too large for this machine's memory") from error


def clean_many(
    items: Iterable[tuple[Key, bytes]], work: Callable[[bytes], Picture] = clean, *, workers: int | None = None
) -> Iterator[tuple[Key, Picture | InvalidImage]]:
    """Clean pictures in parallel, in the order of `items`; a refusal comes back as the exception.

    Threads, since Pillow lets go of the interpreter's lock while it decodes, resizes and encodes. No more than four
    pictures per worker are held at once, so memory is bounded however long `items` is. `workers` None: one per core.
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
    # Only of text: photographs carry "<svg" in their metadata, too.
    if start.startswith((b"<svg", b"<?xml", b"<!doctype svg", b"<!--")) and b"<svg" in data[:65536].lower():
        raise InvalidImage("no picture: SVG is a drawing program, not pixels")
    if start.startswith((b"<!doctype html", b"<html")):
        raise InvalidImage("no picture: an HTML page")
    if start.startswith(b"%pdf"):
        raise InvalidImage("no picture: a PDF document")
    if data.startswith(b"\xff\xd8") and _scans(data) > _MAX_SCANS:
        raise InvalidImage(f"a JPEG of more than {_MAX_SCANS} scans")


# Within a scan, 0xFF is followed by 0x00 or a restart marker; anything else ends the scan.
_SCAN_END = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")


def _scans(data: bytes) -> int:
    """How many scans a JPEG has up to its end marker; what follows it (a video, in motion photos) is no part of it.

    A JPEG of more segments than any photograph counts as one of too many scans.
    """
    scans, at = 0, 2
    for _ in range(_MAX_SEGMENTS):
        found = _SCAN_END.search(data, at)
        if not found or (marker := data[found.start() + 1]) == 0xD9:  # the end of the image
            return scans
        at = found.end()
        if marker in (0x01, 0xD8):  # markers without a length
            continue
        scans += marker == 0xDA
        at += max(2, int.from_bytes(data[at : at + 2], "big"))
    return _MAX_SCANS + 1


def _decoded(image: Image.Image, data: bytes, short_side: int) -> Image.Image:
    """`_reduced`; of a JPEG without its end marker, only if all of its pixels are there.

    libjpeg fills missing pixels with grey and says nothing. Bytes added at the end tell the two apart: after the last
    pixel they are skipped, but pixels that are missing are made of them.
    """
    try:
        return _reduced(image, short_side)
    except OSError as error:
        if image.format not in ("JPEG", "MPO") or not _cut_short(error):
            raise
        ended = [_reduced(Image.open(io.BytesIO(data + extra + b"\xff\xd9"), formats=("JPEG",)), short_side)
                 for extra in (b"", b"\x55" * 64)]  # fmt: skip
        if ended[0].tobytes() != ended[1].tobytes():
            raise
        return ended[0]


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
        width, height = (max(short_side, round(side * scale)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)
    if max(image.size) > _MAX_LONG_SIDE:
        scale = _MAX_LONG_SIDE / max(image.size)
        width, height = (max(1, round(side * scale)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)
    return image


def _in_eight_bits(image: Image.Image) -> Image.Image:
    """Modes that cannot be resized well as they are: palettes, one bit, 16 and 32 bits per channel."""
    if image.mode.startswith("I"):
        return Image.fromarray(_whole_numbers(np.asarray(image)))
    if image.mode == "F":
        return Image.fromarray(_fractions(np.asarray(image)))
    if image.mode in ("P", "PA"):
        return image.convert("RGBA" if image.mode == "PA" or "transparency" in image.info else "RGB")
    if image.mode in ("1", "L", "RGB") and "transparency" in image.info:
        return image.convert("RGBA")
    return image.convert("L") if image.mode == "1" else image


def _whole_numbers(values: np.ndarray) -> np.ndarray:
    """Grey levels of 8, 12, 16 or up to 32 bits as uint8.

    A file says how wide its numbers are stored, not how wide they are (scanners keep 12 bits in 16): the largest tells.
    """
    if values.dtype == np.int32:  # Pillow reads unsigned ones of 32 bits as if they were signed
        values = values.view(np.uint32)
    bits = int(values.max(initial=0)).bit_length()
    width = next((width for width in (8, 12, 16) if bits <= width), bits)
    return (values >> (width - 8)).astype(np.uint8)


def _fractions(values: np.ndarray) -> np.ndarray:
    """Grey levels in floating point as uint8: 0 to 1 and 0 to 255 as they are, others between their extremes.

    The extremes are of all but half a percent at either end, since one glaring pixel would turn the rest black.
    """
    finite = values[np.isfinite(values)]
    if not finite.size:
        raise ValueError("no finite pixel")
    low, high = float(finite.min()), float(finite.max())
    if low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    elif low >= 0 and high <= 255:
        low, high = 0.0, 255.0
    else:
        low, high = (float(edge) for edge in np.percentile(finite, (0.5, 99.5)))
    scaled = (np.nan_to_num(values, nan=low, posinf=high, neginf=low) - low) * (255.0 / ((high - low) or 1.0))
    return np.clip(scaled, 0, 255).astype(np.uint8)


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except _DAMAGE:  # damaged EXIF says nothing about the pixels
        return 1


def _turned(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


def _in_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """RGB or RGBA. An embedded colour profile is honoured; without one, CMYK and the rest convert by formula."""
    if image.mode in ("LA", "La", "RGBa"):
        image = image.convert("RGBA")
    if profile:
        alpha = image.getchannel("A") if image.mode == "RGBA" else None
        converted = _by_profile(image, profile)
        if converted is not None:
            if alpha is not None:
                converted.putalpha(alpha)
            return converted
    return image if image.mode in ("RGB", "RGBA") else image.convert("RGB")


def _by_profile(image: Image.Image, profile: bytes) -> Image.Image | None:
    """RGB through an embedded profile; None where it is sRGB, damaged or of other colours than the picture's.

    Then the plain conversion is what a viewer shows.
    """
    try:
        embedded = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "srgb" in ImageCms.getProfileDescription(embedded).lower():
            return None
        mode = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}[embedded.profile.xcolor_space.strip()]
        if (mode == "CMYK") != (image.mode == "CMYK"):
            return None
        return ImageCms.profileToProfile(image.convert(mode), embedded, _SRGB, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError, KeyError):
        return None


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


def _cut_short(error: BaseException) -> bool:
    said = str(error).lower()
    return any(word in said for word in ("truncated", "not enough", "unexpected end", "eof", "incomplete"))


def _what_is_damaged(source: str | None, error: BaseException) -> str:
    kind = source or "picture"
    if _cut_short(error):
        return f"cut short: the {kind} ends before its last pixel"
    return f"a damaged {kind}"
