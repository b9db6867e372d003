"""The VQ-KD tokenizer against values of the reference code, through a checkpoint file and the encoder that reads it."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.encoding.encoders import beit
from pipeline.errors import UserError

FOLDER = Path(os.environ.get("TESSERA_GOLDEN") or Path(__file__).parents[3] / "golden")
CASES = sorted(FOLDER.glob("*beit_vqkd.npz"))


def test_there_are_golden_cases():
    assert CASES, f"no *beit_vqkd.npz in {FOLDER}"


def checkpoint(case: Path, folder: Path, **changes: torch.Tensor | None) -> tuple[Path, dict, int]:
    """A file as the public ones are: under `model`, with a decoder beside; `changes` replace or (None) drop tensors."""
    golden = dict(np.load(case))
    state = {name[7:]: torch.from_numpy(value) for name, value in golden.items() if name.startswith("param::")}
    state["decoder.blocks.0.norm1.weight"] = torch.ones(3)
    for name, value in changes.items():
        state.pop(name.replace("__", "."))
        if value is not None:
            state[name.replace("__", ".")] = value
    path = folder / "vqkd.pth"
    torch.save({"model": state, "epoch": 1}, path)
    return path, golden, int(golden["config"][4])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_golden_tokenizer(case, tmp_path):
    path, golden, heads = checkpoint(case, tmp_path)
    model = beit.tokenizer(path, heads)
    image, patch, width, depth, _, codes, code_width = (int(value) for value in golden["config"])
    assert model.shape == beit.Shape(image, patch, width, depth, heads, codes, code_width)
    with torch.inference_mode():
        features, vectors, tokens = model(torch.from_numpy(golden["images"]))
    np.testing.assert_allclose(features, golden["patch_features"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(vectors, golden["code_vectors"], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(tokens, golden["token_ids"])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_golden_through_the_encoder(case, tmp_path):
    """Bytes of a picture that needs no resizing give the tokens and the mean feature of the bare model."""
    path, golden, heads = checkpoint(case, tmp_path)
    encoder = beit.load(beit.Settings(str(path), heads), device=torch.device("cpu"), precision=torch.float32)
    size = int(golden["config"][0])
    margin = (size * 8 // 7 - size) // 2
    for image in golden["images"]:
        exact = np.rint(image.transpose(1, 2, 0) * 255).astype(np.uint8)
        canvas = np.zeros((size * 8 // 7, size * 8 // 7, 3), dtype=np.uint8)
        top = round((len(canvas) - size) / 2)
        assert margin <= top
        canvas[top : top + size, top : top + size] = exact
        content = io.BytesIO()
        Image.fromarray(canvas).save(content, "PNG")
        rows = encoder.encode(encoder.prepare([content.getvalue()]))
        features, _, tokens = encoder._model(torch.from_numpy(exact.transpose(2, 0, 1)[None] / np.float32(255)))
        np.testing.assert_array_equal(rows.tokens[0], tokens[0])
        np.testing.assert_allclose(rows.features[0], features[0].mean(0), rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(
            encoder.codebook(rows.tokens[0]), golden["param::quantize.embedding.weight"][tokens[0]]
        )


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"encoder__fc_norm__bias": None}, "encoder.fc_norm.bias is missing"),
        ({"encode_task_layer__2__weight": torch.zeros(5, 48)}, "encode_task_layer.2.weight has shape"),
        ({"quantize__embedding__weight": torch.zeros(128, 9)}, "another model"),
        ({"encoder__pos_embed": None}, "encoder.pos_embed"),
    ],
)
def test_a_checkpoint_of_another_model_is_refused(change, named, tmp_path):
    path, _, heads = checkpoint(CASES[0], tmp_path, **change)
    with pytest.raises(UserError, match=named):
        beit.tokenizer(path, heads)


def test_heads_that_do_not_divide_the_width_are_refused(tmp_path):
    path, _, _ = checkpoint(CASES[0], tmp_path)
    with pytest.raises(UserError, match="heads"):
        beit.tokenizer(path, 7)


def test_the_published_ids_are_checked(tmp_path, monkeypatch, capsys):
    """The command, with small weights of our own in place of the public ones: ids that differ are named."""
    from stages.ops import check_beit

    ids = [*check_beit.FIRST, *([0] * 178), *check_beit.LAST]
    check_beit.check(ids)
    for place, says in ((3, "Patch 3 has the id 9"), (195, "Patch 195 has the id 9")):
        with pytest.raises(UserError, match=says):
            check_beit.check([9 if at == place else token for at, token in enumerate(ids)])
    path, _, _ = checkpoint(CASES[0], tmp_path)
    Image.new("RGB", (80, 90)).save(tmp_path / "p.jpg")
    monkeypatch.setattr("sys.argv", ["check_beit", "--picture", str(tmp_path / "p.jpg"), "--weights", str(path)])
    with pytest.raises(SystemExit) as stopped:
        check_beit.main()
    assert stopped.value.code == 1
    assert "instead of 196" in capsys.readouterr().err
