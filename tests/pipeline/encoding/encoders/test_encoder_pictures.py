"""Picture encoders: what they refuse, what they say aloud, and weights that are read as data."""

import hashlib
import http.server
import io
import os
import threading
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from pipeline.encoding import encoders
from pipeline.encoding.encoders import checkpoints, patches, pictures, vqgan, weights
from pipeline.errors import UserError
from pipeline.retry import RetryPolicy
from tests.helpers import encoder_zoo as zoo


def png(array: np.ndarray, mode: str) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(array).convert(mode).save(sink, "PNG")
    return sink.getvalue()


def test_patches_find_their_own_centroids(tmp_path):
    """Pictures made of two patterns: two centroids, which are the patterns, and tokens that tell them apart."""
    flat = np.zeros((8, 8, 3), dtype=np.uint8)
    bright = np.full((8, 8, 3), 200, dtype=np.uint8)
    left = png(np.block([[[flat], [bright]], [[bright], [bright]]]).astype(np.uint8), "RGB")
    settings = patches.Settings(codes=2, size=16, patch=8)
    centroids = patches.learn(settings, [left, left])
    encoder = patches.load(settings, device=zoo.CPU, precision=torch.float32, centroids=centroids)
    rows = encoder.encode(encoder.prepare([left]))
    dark = int(np.argmin(centroids.mean(1)))
    assert rows.tokens[0].tolist() == [dark, 1 - dark, 1 - dark, 1 - dark]
    assert rows.features[0][dark] == 0.25
    assert rows.features[0].sum() == 1
    np.testing.assert_allclose(encoder.codebook(np.array([1 - dark]))[0], 200 / 255, atol=1e-6)


def test_a_codebook_of_another_width():
    with pytest.raises(UserError, match="width 12 does not fit"):
        patches.Patches(patches.Settings(), np.zeros((4, 12), dtype=np.float32))
    with pytest.raises(UserError, match=r"patch cannot be used: patch \(8\) must divide size \(30\)"):
        encoders.settings({"family": "patches", "size": 30, "patch": 8}, "image")
    with pytest.raises(UserError, match="no picture to learn"):
        patches.learn(patches.Settings(), [b"nothing"])


def test_transparent_pixels_are_white():
    clear = np.zeros((4, 4, 4), dtype=np.uint8)
    assert np.asarray(pictures.decode(png(clear, "RGBA"))).min() == 255


def test_a_picture_of_too_many_pixels_is_refused_undecoded(monkeypatch):
    monkeypatch.setattr(pictures, "MAX_PIXELS", 15)
    assert "4×4 pixels" in str(pictures.decode(png(np.zeros((4, 4, 3), dtype=np.uint8), "RGB")))


def test_resizing_follows_the_published_recipe():
    """The long side is rounded down, the crop is in the middle, as the tokenizers were trained."""
    picture = Image.new("RGB", (500, 375))
    assert pictures.short_side(picture, 256, Image.Resampling.BICUBIC).size == (341, 256)
    assert pictures.short_side(picture.rotate(90, expand=True), 256, Image.Resampling.BICUBIC).size == (256, 341)
    ramp = Image.fromarray(np.arange(100, dtype=np.uint8)[None].repeat(10, 0))
    assert np.asarray(pictures.centre(ramp, 10))[0].tolist() == list(range(45, 55))


def test_an_untrained_codebook_is_said_aloud(tmp_path, caplog):
    for trained in (True, False):
        block = {"family": "vqgan", "weights": str(zoo.vqgan(tmp_path / str(trained), trained=trained)), "size": 32}
        caplog.clear()
        encoder = zoo.load("vqgan", block)
        encoder.encode(encoder.prepare([zoo.picture(1)] * 2))
        assert ("never trained" in caplog.text) == (not trained)
    assert vqgan.is_untrained(torch.rand(1024, 256) * 2 / 1024 - 1 / 1024)
    assert not vqgan.is_untrained(torch.zeros(1024, 256))
    assert not vqgan.is_untrained(torch.randn(1024, 256) / 1024)


def test_vqgan_agrees_with_its_authors_quantizer(tmp_path):
    """Tokens are those of taming-transformers' own forward pass."""
    model = vqgan.tokenizer(vqgan.Settings(str(zoo.vqgan(tmp_path)), size=32))
    images = torch.rand(3, 3, 32, 32)
    with torch.inference_mode():
        _, tokens = model(images)
        _, _, (_, _, theirs) = model.quantize(model.quant_conv(model.encoder(images * 2 - 1)))
    assert tokens.flatten().tolist() == theirs.flatten().tolist()


class Bomb:
    """A pickle that would leave a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_a_checkpoint_with_code_in_it_is_refused(tmp_path):
    path = tmp_path / "evil.pth"
    for old in (False, True):
        torch.save({"model": {}, "x": Bomb(tmp_path / "ran")}, path, _use_new_zipfile_serialization=not old)
        with pytest.raises(UserError, match="was not read"):
            checkpoints.read(path)
        assert not (tmp_path / "ran").exists()


def test_leftovers_of_a_trainer_are_inert(tmp_path, monkeypatch):
    """A Lightning checkpoint keys its callbacks by their classes; none of them is imported or made."""
    import sys
    import types

    module = types.ModuleType("pytorch_lightning.callbacks.made_up")
    made = []

    class Callback:
        def __setstate__(self, state):
            made.append(state)

    Callback.__module__, Callback.__qualname__ = module.__name__, "Callback"
    module.Callback = Callback
    monkeypatch.setitem(sys.modules, module.__name__, module)
    callback = Callback()
    callback.best = 1
    path = tmp_path / "last.ckpt"
    torch.save({"state_dict": {"w": torch.ones(2)}, "callbacks": {Callback: {"best": 1}}, "one": callback}, path)
    monkeypatch.delitem(sys.modules, module.__name__)
    content = checkpoints.read(path)
    assert content["state_dict"]["w"].tolist() == [1, 1]
    assert made == []
    assert isinstance(content["one"], checkpoints.Inert)


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors", "w.ckpt"])
def test_damaged_and_missing_weights(name, tmp_path):
    with pytest.raises(UserError, match=r"no weights|cannot be read"):
        checkpoints.read(tmp_path / name)
    (tmp_path / name).write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(UserError, match=r"cannot be read|was not read"):
        checkpoints.read(tmp_path / name)


def test_a_name_that_promises_a_checksum(tmp_path):
    save_file({"a": torch.ones(1)}, tmp_path / "plain.safetensors")
    digest = hashlib.sha256((tmp_path / "plain.safetensors").read_bytes()).hexdigest()
    good, bad = tmp_path / f"model-{digest[:8]}.safetensors", tmp_path / "model-00000000.safetensors"
    for path in (good, bad):
        path.write_bytes((tmp_path / "plain.safetensors").read_bytes())
    assert checkpoints.read(good)["a"].item() == 1
    with pytest.raises(UserError, match="promises"):
        checkpoints.read(bad)


def test_timm_agrees_with_the_bare_model(tmp_path):
    import timm
    from timm.data import create_transform, resolve_data_config

    folder = zoo.vit(tmp_path)
    encoder = zoo.load("timm", {"family": "timm", "model": str(folder)})
    args = {"embed_dim": 32, "depth": 2, "num_heads": 2, "img_size": 32, "patch_size": 8}
    model = timm.create_model("vit_tiny_patch16_224", num_classes=5, **args).eval()
    model.load_state_dict(load_file(folder / "model.safetensors"))
    about = {
        "input_size": (3, 32, 32),
        "mean": (0.5,) * 3,
        "std": (0.5,) * 3,
        "crop_pct": 0.9,
        "interpolation": "bicubic",
    }
    transform = create_transform(**resolve_data_config(about))
    content = zoo.picture(3)
    image = transform(Image.open(io.BytesIO(content)))[None]
    with torch.inference_mode():
        expected = model.forward_head(model.forward_features(image), pre_logits=True)[0]
    rows = encoder.encode(encoder.prepare([content, content]))
    np.testing.assert_allclose(rows.features[0], expected.numpy(), rtol=1e-5, atol=1e-5)


def test_a_convolutional_model_gives_a_picture_the_same_row_in_any_batch(tmp_path):
    import timm

    torch.manual_seed(0)
    save_file(timm.create_model("efficientnet_b0", num_classes=0).state_dict(), tmp_path / "w.safetensors")
    block = {"family": "timm", "model": "efficientnet_b0", "weights": str(tmp_path / "w.safetensors")}
    encoder = zoo.load("timm", block)
    items = encoder.prepare([zoo.picture(n) for n in range(5)])
    together = encoder.encode(items).features
    assert np.array_equal(together[:2], encoder.encode(items[:2]).features)


def use(block: dict) -> None:
    encoder = zoo.load("timm", {"family": "timm", **block})
    encoder.encode(encoder.prepare([zoo.picture(1)] * 2))


def test_timm_refuses_what_it_cannot_use(tmp_path):
    folder = zoo.vit(tmp_path / "vit")
    for block, says in (
        ({"model": "no_such_architecture", "weights": str(folder / "model.safetensors")}, "cannot build"),
        ({"model": "vit_tiny_patch16_224", "weights": str(folder / "model.safetensors")}, "another model"),
        ({"model": str(tmp_path)}, "model.safetensors"),
    ):
        with pytest.raises(UserError, match=says):
            use(block)


def test_weights_come_by_address_once_and_must_agree_later(tmp_path):
    """A real server on loopback; the first fetch records the checksum, a changed file is refused."""
    served = tmp_path / "served"
    served.mkdir()
    (served / "w.pth").write_bytes(b"first")
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(served))
    handler.log_message = lambda *_: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        block = {"family": "beit", "weights": f"http://127.0.0.1:{server.server_port}/w.pth"}
        retry = RetryPolicy(timeout=5, retries=0)
        got = weights.fetched(block, tmp_path / "kept", mirror=None, retry=retry)
        with open(got["weights"], "rb") as file:
            assert file.read() == b"first"
        (served / "w.pth").write_bytes(b"other")
        os.remove(got["weights"])
        with pytest.raises(UserError):
            weights.fetched(block, tmp_path / "kept", mirror=None, retry=retry)
        wrong = {**block, "sha256": "0" * 64}
        with pytest.raises(UserError):
            weights.fetched(wrong, tmp_path / "other", mirror=None, retry=retry)
        server.shutdown()
    assert weights.fetched({"family": "patches"}, tmp_path, mirror=None, retry=retry) == {"family": "patches"}


def flags() -> list[bool]:
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    return [matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark, not cudnn.deterministic]


@pytest.fixture
def careless():
    """A process that lets CUDA round and choose."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    kept = matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic
    matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic = True, True, True, False
    yield
    matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic = kept


@pytest.mark.parametrize("name", ["beit", "vqgan"])
def test_tokenizers_compute_in_full_float32_and_leave_torch_as_it_was(name, tmp_path, careless):
    """On CUDA, convolutions would round to 10 bits; the flags are the process's, whichever device it has."""
    before, seen = flags(), []
    encoder = zoo.load(name, zoo.blocks(tmp_path)[name])
    items = encoder.prepare([zoo.picture(1), zoo.picture(2)])
    encoder._model.register_forward_pre_hook(lambda *_: seen.append(flags()))
    assert all(before)
    encoder.encode(items)
    assert seen
    assert not any(map(any, seen))
    assert flags() == before
    with pytest.raises(RuntimeError):
        encoder.encode([torch.zeros(3, 1, 1), torch.zeros(3, 2, 2)])
    assert flags() == before
    with pictures.exactly():
        encoder.encode(items)
        assert not any(flags()), "who is still inside computes exactly"
    assert flags() == before
