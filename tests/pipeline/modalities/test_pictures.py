"""Bytes to clean pictures: every format, every way to be no picture, and what is refused before it costs anything."""

import hashlib
import io
import resource
import struct
import time
import zlib
from functools import partial

import numpy as np
import pytest
from PIL import Image, ImageCms

from pipeline import tables
from pipeline.errors import UserError
from pipeline.modalities.parts import Counts, Parts, absent, parts, row
from pipeline.modalities.pictures import InvalidImage, Picture, clean, clean_many


def scene(width: int = 300, height: int = 200) -> Image.Image:
    """A picture with many colours and a bright left half, so that turning it shows."""
    y, x = np.mgrid[0:height, 0:width]
    pixels = np.stack([255 - x * 200 // width, 40 + y * 180 // height, (x + y) // 4], axis=2)
    return Image.fromarray(pixels.astype(np.uint8))


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def pixels(picture: Picture) -> np.ndarray:
    image = Image.open(io.BytesIO(picture.data))
    image.load()
    assert image.mode == "RGB"
    assert image.format in ("JPEG", "PNG")
    assert image.size == (picture.width, picture.height)
    assert not image.getexif()
    return np.asarray(image).astype(int)


def png_claiming(width: int, height: int, depth: int = 8, colour: int = 0) -> bytes:
    """A PNG of few bytes that really holds width x height grey pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = zlib.compressobj(9)
    line = b"\0" + b"\x80" * width
    body = b"".join(rows.compress(line) for _ in range(height)) + rows.flush()
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


FORMATS = [
    ("JPEG", "RGB"), ("JPEG", "L"), ("JPEG", "CMYK"), ("PNG", "RGB"), ("PNG", "L"), ("PNG", "P"), ("PNG", "1"),
    ("GIF", "P"), ("WEBP", "RGB"), ("TIFF", "RGB"), ("TIFF", "CMYK"), ("TIFF", "LAB"), ("BMP", "RGB"), ("AVIF", "RGB"),
    ("JPEG2000", "RGB"), ("PPM", "RGB"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "mode"), FORMATS)
def test_every_format_becomes_the_same_rgb_picture(kind, mode):
    Image.init()
    if kind not in Image.SAVE:
        pytest.skip(f"this Pillow was built without {kind}")
    source = scene()
    expected = np.asarray(source.convert("L").convert("RGB") if mode in ("L", "1") else source).astype(int)
    found = pixels(clean(encoded(source.convert(mode), kind)))
    assert found.shape == expected.shape
    assert np.abs(found.mean(axis=(0, 1)) - expected.mean(axis=(0, 1))).max() < 6


@pytest.mark.parametrize(("kind", "mode"), [one for one in FORMATS if one[1] in ("RGB", "P", "CMYK")])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.95])
def test_what_is_cut_short_is_refused(kind, mode, share):
    Image.init()
    if kind not in Image.SAVE:
        pytest.skip(f"this Pillow was built without {kind}")
    data = encoded(scene().convert(mode), kind)
    with pytest.raises(InvalidImage):
        clean(data[: int(len(data) * share)])


def test_short_side_is_bounded_and_nothing_is_enlarged():
    wide = clean(encoded(scene(900, 600), "JPEG"), short_side=100)
    assert (wide.width, wide.height) == (150, 100)
    tall = clean(encoded(scene(60, 4000), "PNG"), short_side=30)
    assert (tall.width, tall.height) == (30, 2000)
    small = clean(encoded(scene(20, 10), "PNG"), short_side=100)
    assert (small.width, small.height) == (20, 10)


@pytest.mark.parametrize("turn", range(1, 9))
def test_exif_turns_the_picture(turn):
    upright = scene()
    stored = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    image = upright.transpose(stored[turn]) if turn in stored else upright
    exif = Image.Exif()
    exif[0x0112] = turn
    found = pixels(clean(encoded(image, "JPEG", exif=exif, quality=95)))
    assert np.abs(found - np.asarray(upright).astype(int)).mean() < 5


def test_damaged_exif_does_not_cost_the_picture():
    data = encoded(scene(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert clean(data).width == 300


def test_alpha_is_laid_on_white():
    image = Image.new("RGBA", (40, 40), (255, 0, 0, 0))
    image.paste((0, 0, 255, 255), (0, 0, 20, 40))
    for kind in ("PNG", "WEBP"):
        found = pixels(clean(encoded(image, kind, **({"lossless": True} if kind == "WEBP" else {}))))
        assert (found[:, 24:] > 245).all()
        assert found[20, 10, 2] > 200
        assert found[20, 10, 0] < 60
    half = Image.new("LA", (8, 8), (0, 128))
    assert abs(pixels(clean(encoded(half, "PNG"))).mean() - 127) < 3
    palette = Image.new("P", (8, 8), 0)
    palette.putpalette([255, 0, 0, 0, 0, 255])
    assert (pixels(clean(encoded(palette, "PNG", transparency=0))) == 255).all()


def test_sixteen_bits_keep_their_brightness():
    ramp = np.linspace(0, 65535, 256 * 64).reshape(64, 256)
    expected = (ramp / 257).astype(int)
    for image, kind in (
        (Image.fromarray(ramp.astype(np.uint16)), "PNG"),
        (Image.fromarray(ramp.astype(np.int32)), "TIFF"),
    ):
        found = pixels(clean(encoded(image, kind)))
        assert np.abs(found[..., 0] - expected).mean() < 3, kind
    floats = pixels(clean(encoded(Image.fromarray((ramp / 65535).astype(np.float32)), "TIFF")))
    assert np.abs(floats[..., 0] - expected).mean() < 3


def test_first_frame_of_an_animation():
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue", "green")]
    for kind in ("GIF", "WEBP", "PNG", "TIFF"):
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
        found = pixels(clean(data))
        assert found[8, 8, 0] > 240, kind
        assert found[8, 8, 2] < 15, kind


def test_an_embedded_profile_is_honoured():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    plain, tagged = encoded(scene(), "JPEG"), encoded(scene(), "JPEG", icc_profile=profile)
    assert np.abs(pixels(clean(plain)) - pixels(clean(tagged))).mean() < 1, "a profile that does not fit is ignored"
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert clean(encoded(scene(), "JPEG", icc_profile=srgb)) == clean(plain)
    assert clean(encoded(scene(), "JPEG", icc_profile=b"nonsense")) == clean(plain)


def test_same_bytes_in_same_bytes_out():
    data = encoded(scene(700, 500), "PNG")
    first, *others = [clean(data) for _ in range(3)]
    assert all(one == first for one in others)
    assert first.sha256 == hashlib.sha256(first.data).hexdigest()


def test_drawings_stay_png_and_photographs_become_jpeg():
    flat = Image.new("RGB", (64, 64), "red")
    assert clean(encoded(flat, "PNG")).data.startswith(b"\x89PNG")
    assert (pixels(clean(encoded(flat, "PNG"))) == (255, 0, 0)).all()
    assert clean(encoded(scene(), "PNG")).data.startswith(b"\xff\xd8")
    assert clean(encoded(flat, "JPEG")).data.startswith(b"\xff\xd8")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "0 bytes"),
        (b"\xff\xd8\xff\xe0" + b"\0" * 64, "no picture"),
        (b"GIF89a not really", "no picture"),
        (b"plain words", "no picture"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        (b'\xef\xbb\xbf<?xml version="1.0"?>\n<!-- x -->\n<svg/>', "SVG"),
        (b"<!DOCTYPE html><html><title>Wikimedia Error</title></html>", "HTML"),
        (b"%PDF-1.7 ...", "PDF"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 100, "no picture"),
    ],
)
def test_what_is_no_picture_is_refused_with_the_reason(data, reason):
    with pytest.raises(InvalidImage, match=reason):
        clean(data)


def test_a_claim_of_400_million_pixels_costs_nothing():
    bomb = png_claiming(20_000, 20_000)
    assert len(bomb) < 1_000_000
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(InvalidImage, match="too large"):
        clean(bomb)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB; decoded it takes 400,000
    assert time.process_time() - started < 1


def test_the_limit_of_pixels_is_the_callers():
    data = png_claiming(300, 300)
    assert clean(data, max_pixels=90_000).width == 256
    with pytest.raises(InvalidImage, match="300 x 300 is more than 89,999 pixels"):
        clean(data, max_pixels=89_999)


def test_a_jpeg_of_thousands_of_scans_is_refused():
    data = encoded(scene(), "JPEG", progressive=True)
    assert clean(data).width == 300
    scan = data.index(b"\xff\xda")
    with pytest.raises(InvalidImage, match="scans"):
        clean(data[:scan] + data[scan:-2] * 60 + data[-2:])


def test_damage_anywhere_is_refused_or_harmless():
    generator = np.random.default_rng(0)
    for kind in ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP"):
        data = np.frombuffer(encoded(scene(64, 48).convert("P" if kind == "GIF" else "RGB"), kind), np.uint8)
        for _ in range(60):
            damaged = data.copy()
            where = generator.integers(0, len(data), 8)
            damaged[where] = generator.integers(0, 256, 8)
            ((_, found),) = clean_many([(0, damaged.tobytes())], partial(clean, max_pixels=1_000_000))
            assert str(found) if isinstance(found, InvalidImage) else found.width > 0


def test_many_keep_their_order_and_refusals_come_back():
    items = [(n, encoded(scene(40 + n, 30), "PNG") if n % 3 else b"no picture") for n in range(50)]
    found = list(clean_many(items, partial(clean, short_side=20), workers=2))
    assert [key for key, _ in found] == list(range(50))
    for key, result in found:
        assert isinstance(result, Picture if key % 3 else InvalidImage)
        if key % 3:
            assert result == clean(items[key][1], short_side=20)


def test_many_are_not_all_held_at_once():
    taken = []

    def source():
        for n in range(1000):
            taken.append(n)
            yield n, b""

    stream = clean_many(source(), workers=2)
    for _ in range(10):
        next(stream)
    assert len(taken) < 30


def test_every_photograph(photos):
    files = sorted(photos.glob("*.jpg"))
    found = list(clean_many((path.name, path.read_bytes()) for path in files))
    assert len(found) >= 100
    assert [name for name, result in found if isinstance(result, InvalidImage)] == []
    assert all(min(result.width, result.height) <= 256 for _, result in found)


# ------------------------------------------------------------------------------------------------ the table
def test_parts_hold_every_row_and_appear_whole(tmp_path):
    good = clean(encoded(scene(), "JPEG"))
    counts = Counts(entities=5)
    rows = [
        row(0, 0, "a.jpg", good),
        row(0, 1, "b.jpg", good, licence="CC0"),
        row(1, 0, "c.jpg", InvalidImage("no picture")),
    ]
    rows += [absent(2, 0, "none", "nothing"), absent(3, 0, "failed", "timeout")]
    with Parts(tmp_path / "images", {"stage": "test"}, part_bytes=1) as writer:
        for one in rows:
            writer.add(one)
            counts.add(one)
    table = tables.read(parts(tmp_path / "images")[0], "images").to_pylist()
    assert [(one["entity_id"], one["status"], one["bytes"] is None) for one in table] == [
        (0, "ok", False), (0, "ok", False), (1, "refused", True), (2, "none", True), (3, "failed", True),
    ]  # fmt: skip
    assert table[2]["error"] == "no picture"
    result = counts.result()
    assert (result["with_picture"], result["with_several"], result["without_picture"]) == (1, 1, 4)
    assert result["pictures"] == 2
    assert result["reasons"][0]["rows"] == 1
    assert result["licences"] == [{"licence": "CC0", "pictures": 1}]


def test_an_interrupted_table_leaves_what_was_there(tmp_path):
    with Parts(tmp_path / "images", {}) as writer:
        writer.add(absent(0, 0, "none", "first"))

    def interrupted() -> None:
        with Parts(tmp_path / "images", {}) as writer:
            writer.add(absent(0, 0, "none", "second"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert tables.read(parts(tmp_path / "images")[0], "images")["error"].to_pylist() == ["first"]
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


def test_a_folder_without_parts_is_said(tmp_path):
    with pytest.raises(UserError, match=r"part-\*\.parquet"):
        parts(tmp_path)
