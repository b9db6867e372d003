"""Pictures as cameras, scanners and the web really make them: read rightly, or refused with a reason."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from pipeline.encoding.encoders import InvalidInput
from pipeline.encoding.encoders.pictures import LONGEST, decode
from pipeline.modalities.pictures import InvalidImage, clean
from tests.helpers import encoder_zoo as zoo


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def cleaned(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(clean(data).data)).convert("RGB")).astype(int)


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def swapped() -> bytes:
    """A colour profile whose red and green are exchanged."""
    plain = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    profile = plain.replace(b"rXYZ", b"TMPX", 1).replace(b"gXYZ", b"rXYZ", 1).replace(b"TMPX", b"gXYZ", 1)
    return profile.replace("sRGB".encode("utf-16-be"), "xTST".encode("utf-16-be"))


RED, GREEN = (200, 30, 30), [30, 200, 30]
WITH_PROFILE = {
    "RGB": lambda image: (image, {}),
    "RGBA": lambda image: (image.convert("RGBA"), {}),
    "palette and transparency": lambda image: (image.quantize(4), {"transparency": 3}),
    "palette": lambda image: (image.quantize(4), {}),
    "RGB and a transparent colour": lambda image: (image, {"transparency": (1, 2, 3)}),
}


@pytest.mark.parametrize("kind", WITH_PROFILE)
def test_a_profile_is_honoured_whether_or_not_there_is_transparency(kind, swapped):
    image, options = WITH_PROFILE[kind](Image.new("RGB", (40, 40), RED))
    assert np.abs(cleaned(encoded(image, "PNG", icc_profile=swapped, **options))[20, 20] - GREEN).max() <= 8


def test_transparency_survives_a_profile(swapped):
    image = Image.new("RGBA", (40, 40), (*RED, 0))
    assert cleaned(encoded(image, "PNG", icc_profile=swapped))[20, 20].tolist() == [255, 255, 255]


def test_a_profile_of_other_colours_than_the_pictures_is_left_alone(swapped):
    grey = Image.new("L", (40, 40), 90)
    assert np.abs(cleaned(encoded(grey, "PNG", icc_profile=swapped))[20, 20] - 90).max() <= 2
    ink = Image.new("CMYK", (40, 40), (0, 0, 0, 100))
    plain, odd = (cleaned(encoded(ink, "JPEG", **options)) for options in ({}, {"icc_profile": swapped}))
    np.testing.assert_array_equal(plain, odd)


RAMP = np.linspace(0, 1, 64)[None, :].repeat(64, 0)


@pytest.mark.parametrize(
    "values",
    [
        pytest.param((RAMP * 4095).astype(np.uint16), id="12 bits in 16"),
        pytest.param((RAMP * 65535).astype(np.uint16), id="16 bits"),
        pytest.param((RAMP * 255).astype(np.uint16), id="8 bits in 16"),
        pytest.param((RAMP * (2**31 - 1)).astype(np.int32), id="32 bits"),
        pytest.param((RAMP * 4095).astype(np.int32), id="12 bits in 32"),
        pytest.param(RAMP.astype(np.float32), id="0 to 1"),
        pytest.param((RAMP * 255).astype(np.float32), id="0 to 255"),
        pytest.param((RAMP * 9000 - 4000).astype(np.float32), id="anything"),
    ],
)
def test_grey_levels_of_any_width_keep_their_brightness(values):
    found = cleaned(encoded(Image.fromarray(values), "TIFF"))[:, :, 0]
    assert np.abs(found - RAMP * 255).max() <= 4


def test_unsigned_numbers_of_32_bits_do_not_turn_black():
    values = (RAMP * (2**32 - 1)).astype(np.uint32).view(np.int32)
    assert np.abs(cleaned(encoded(Image.fromarray(values), "TIFF"))[:, :, 0] - RAMP * 255).max() <= 4


def test_one_glaring_or_missing_pixel_does_not_blacken_the_others():
    values = (RAMP * 1000).astype(np.float32)
    values[3, 3], values[4, 4] = 1e9, np.nan
    found = cleaned(encoded(Image.fromarray(values), "TIFF"))[:, :, 0]
    assert np.abs(found[10:] - RAMP[10:] * 255).max() <= 8


@pytest.mark.parametrize(("width", "height"), [(70_000, 260), (260, 70_000), (70_000, 2), (60_000, 2)])
def test_a_strip_becomes_a_row_and_costs_little(width, height):
    picture = clean(encoded(noise(1000, 3).resize((width, height)), "PNG", compress_level=1))
    assert max(picture.width, picture.height) <= 16_384
    seen = decode(picture.data)
    assert isinstance(seen, Image.Image) is (min(picture.width, picture.height) >= 2)
    if isinstance(seen, Image.Image):
        assert max(seen.size) == LONGEST * min(seen.size)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P"])
@pytest.mark.parametrize("upright", [False, True])
@pytest.mark.parametrize("length", [400, 16_384])
def test_of_a_strip_an_encoder_sees_the_middle(mode, upright, length):
    strip = Image.new("RGB", (length, 4), "black")
    strip.paste((255, 255, 255), (length // 2 - 10, 0, length // 2 + 10, 4))
    strip = strip.convert(mode).transpose(Image.Transpose.ROTATE_90) if upright else strip.convert(mode)
    seen = np.asarray(decode(encoded(strip, "PNG")))
    seen = seen.transpose(1, 0, 2) if upright else seen
    assert seen.shape == (4, 64, 3)
    white = (seen[2] == 255).all(axis=1)
    assert np.flatnonzero(white).tolist() == list(range(22, 42)), "the 20 pixels in the middle, and black beside them"


@pytest.mark.parametrize("family", ["vqgan", "timm", "beit", "patches"])
def test_what_an_encoder_reads_of_a_strip_is_of_one_size(family, tmp_path):
    """Enlarged as it is, a strip of 16,384 pixels by 4 would have 256 rows of a million pixels."""
    block = zoo.blocks(tmp_path)[family]
    encoder = zoo.load("v", block, inputs=_One(zoo.picture(1)))
    strip, square = encoder.prepare([encoded(noise(1000, 4).resize((16_384, 4)), "PNG"), zoo.picture(1)])
    assert strip.shape == square.shape


class _One:
    """The only picture that a codebook is learned from."""

    def __init__(self, picture: bytes):
        self.keys, self._picture = [b"k"], picture

    def read(self, wanted: object, window: int) -> list[list[tuple[bytes, bytes]]]:
        return [[(b"k", self._picture)]]


BEHIND = {
    "2 MB of video": lambda: np.random.default_rng(0).bytes(2 << 20),
    "12 MB of video": lambda: np.random.default_rng(0).bytes(12 << 20),
    "an MP4's header and scans": lambda: b"\x00\x00\x00\x18ftypmp42" + b"\xff\xda\x00\x02" * 5000,
    "a trailer of a telephone": lambda: b"Image_UTC_Data1415926535" + b"SEFH" + bytes(64) + b"SEFT",
    "another photo": lambda: encoded(noise(64, 64), "JPEG"),
    "zeros": lambda: bytes(100_000),
}


@pytest.mark.parametrize("kind", BEHIND)
@pytest.mark.parametrize("progressive", [False, True])
def test_a_motion_photo_is_its_photo(kind, progressive):
    photo = encoded(noise(300, 300), "JPEG", progressive=progressive)
    np.testing.assert_array_equal(cleaned(photo + BEHIND[kind]()), cleaned(photo))


def test_scans_are_counted_up_to_the_end_of_the_picture():
    photo = encoded(noise(64, 64), "JPEG", progressive=True)
    scan = photo[photo.rindex(b"\xff\xda") : -2]
    with pytest.raises(InvalidImage, match="more than 100 scans"):
        clean(photo[:-2] + scan * 200 + b"\xff\xd9")
    with pytest.raises(InvalidImage, match="more than 100 scans"):  # hidden behind an end marker in a comment
        clean(photo[:-2] + b"\xff\xfe\x00\x04\xff\xd9" + scan * 200 + b"\xff\xd9")
    with pytest.raises(InvalidImage, match="more than 100 scans"):  # or behind thousands of comments
        clean(photo[:2] + b"\xff\xfe\x00\x02" * 20_000 + photo[2:])


def test_a_picture_with_svg_in_its_metadata_is_no_svg():
    photo = noise(60, 60)
    for kind in ("JPEG", "PNG"):
        assert clean(encoded(photo, kind, exif=_described("<svg xmlns='http://www.w3.org/2000/svg'>"))).width == 60
    for drawing in (
        b"<svg/>",
        b"\xef\xbb\xbf<?xml version='1.0'?>\n<!-- x -->\n<svg>",
        b"<!-- made by -->\n<svg></svg>",
    ):
        with pytest.raises(InvalidImage, match="SVG"):
            clean(drawing)


def _described(text: str) -> Image.Exif:
    exif = Image.Exif()
    exif[0x010E] = text  # ImageDescription
    return exif


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}], ids=str)
def test_a_jpeg_without_its_end_marker_is_read_if_all_its_pixels_are_there(options):
    whole = encoded(noise(120, 90), "JPEG", **options)
    assert whole.endswith(b"\xff\xd9")
    np.testing.assert_array_equal(cleaned(whole[:-2]), cleaned(whole))
    for lost in (40, 400, len(whole) // 2):
        with pytest.raises(InvalidImage, match=r"cut short|damaged|no picture"):
            clean(whole[:-lost])


def chunks(png: bytes) -> list[bytes]:
    """The signature of a PNG and its chunks, which join to the whole."""
    parts, at = [png[:8]], 8
    while at < len(png):
        end = at + 12 + int.from_bytes(png[at : at + 4], "big")
        parts.append(png[at:end])
        at = end
    return parts


def renewed(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def broken_png(how: str) -> bytes:
    whole = encoded(noise(400, 300), "PNG")
    parts = chunks(whole)
    first = next(at for at, part in enumerate(parts) if part[4:8] == b"IDAT")
    content = parts[first][8:-4]
    half = len(content) // 2
    if how == "cut in the middle":
        return whole[: len(whole) // 2]
    if how == "cut between two chunks":
        return b"".join(parts[: first + 1])
    if how == "a byte of the stream":
        bad = content[:half] + bytes([content[half] ^ 0xFF]) + content[half + 1 :]
        return b"".join([*parts[:first], renewed(b"IDAT", bad), *parts[first + 1 :]])
    if how == "no stream":
        return b"".join([*parts[:first], renewed(b"IDAT", b"\0" * 50), *parts[first + 1 :]])
    return b"".join([*parts[: first + 1], *parts[first + 2 :]])  # a chunk from the middle is gone


@pytest.mark.parametrize(
    "how", ["cut in the middle", "cut between two chunks", "a byte of the stream", "no stream", "a chunk is gone"]
)
def test_a_png_that_breaks_while_it_is_read_is_a_reason(how):
    """Its header says all is well: what is wrong shows after the first rows."""
    data = broken_png(how)
    with pytest.raises(InvalidImage, match=r"cut short|damaged"):
        clean(data)
    assert isinstance(decode(data), InvalidInput)


def test_a_png_with_a_wrong_checksum_and_all_its_pixels_is_read():
    """As viewers do: the stream has a checksum of its own, which holds."""
    whole = encoded(noise(400, 300), "PNG")
    parts = chunks(whole)
    first = next(at for at, part in enumerate(parts) if part[4:8] == b"IDAT")
    other = b"".join([*parts[:first], parts[first][:-4] + b"\0\0\0\0", *parts[first + 1 :]])
    np.testing.assert_array_equal(cleaned(other), cleaned(whole))


def test_decoding_for_encoders_gives_what_it_gave():
    """A picture of usual shape is untouched by the rule for strips."""
    image = noise(160, 10)
    seen = decode(encoded(image, "PNG"))
    assert torch.equal(torch.from_numpy(np.array(seen)), torch.from_numpy(np.array(image)))
