"""params.yaml is checked before anything runs, and a complaint says where to look and what was probably meant."""

import dataclasses
import importlib
import shutil
from pathlib import Path

import pytest

from pipeline.errors import UserError
from stages.params import load_params, model_settings
from trainers import MODELS

ROOT = Path(__file__).parents[2]


@pytest.fixture
def edited(tmp_path):
    """A function that puts `new` in the place of `old` in a copy of params.yaml, and gives the copy's path."""

    def edit(old: str, new: str) -> Path:
        text = (ROOT / "params.yaml").read_text()
        assert text.count(old) >= 1
        path = tmp_path / "params.yaml"
        path.write_text(text.replace(old, new, 1))
        return path

    return edit


def line_of(path: Path, text: str) -> int:
    return next(number for number, line in enumerate(path.read_text().splitlines(), 1) if text in line)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("  patience:", "  patiense:", "unknown key 'patiense' in train; did you mean 'patience'?"),
        ("  batch_size: 64", "  batch_size: many", "encode.batch_size cannot be 'many'"),
        ("    dev_share: 0.1", "    dev_share: 7", "graph.mini.dev_share cannot be 7"),
        ("    form: names", "    form: name", "graph.mini.form cannot be 'name'"),
        ("seed: 0", "sed: 0", "unknown key 'sed'; did you mean 'seed'?"),
    ],
)
def test_a_wrong_key_or_value_is_named_with_its_line(edited, old, new, said):
    path = edited(old, new)
    with pytest.raises(UserError) as error:
        load_params(path)
    assert said in str(error.value)
    assert f"line {line_of(path, new)}:" in str(error.value)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("graphs: [mini]", "graphs: [minni]", "no block under `graph:` for 'minni'; did you mean 'mini'?"),
        ("models: [", "models: [adamf-mat, ", "no block for the model 'adamf-mat'; did you mean 'adamf_mat'?"),
        ("  encoder: minilm", "  encoder: minilmm", "for 'minilmm'; did you mean 'minilm'?"),
    ],
)
def test_a_name_that_is_no_block_is_told_with_the_nearest_that_is_one(edited, old, new, said):
    with pytest.raises(UserError) as error:
        load_params(edited(old, new))
    assert said in str(error.value)


def test_a_model_without_a_block_for_a_graph_says_what_to_add(edited):
    path = edited("graphs: [mini]", "graphs: [mini, other]")
    text = path.read_text()
    block = text[text.index("  mini:\n") : text.index("  # DB15K (Liu")]
    path.write_text(text.replace(block, block + block.replace("  mini:", "  other:"), 1))
    with pytest.raises(UserError, match=r"add `other: \{\}` under"):
        load_params(path)


def test_a_missing_key_and_no_yaml_are_sentences(edited, tmp_path):
    with pytest.raises(UserError, match=r"the key sources\.retries is missing"):
        load_params(edited("  retries: 5\n", ""))
    (tmp_path / "broken.yaml").write_text("graphs: [mini\nx: }")
    with pytest.raises(UserError, match=r"line .*: this is no YAML"):
        load_params(tmp_path / "broken.yaml")
    with pytest.raises(UserError, match="is not there"):
        load_params(tmp_path / "absent.yaml")


@pytest.mark.parametrize("model", list(MODELS))
def test_a_models_own_block_is_checked_against_its_settings(model, edited):
    settings = importlib.import_module(MODELS[model]).Settings
    path = edited(f"\n{model}:\n  common:", f"\n{model}:\n  common:")
    params = load_params(path)
    for name in ("mini", "DB15K", "MKG-W", "MKG-Y"):
        assert isinstance(model_settings(params, model, name, settings, path), settings)
    for change, said in (
        ({"epohcs": 5}, "did you mean 'epochs'"),
        ({"epochs": "many"}, "mini.epochs cannot be 'many'"),
    ):
        block = {**params.model_blocks[model], "mini": change}
        wrong = params.model_copy(update={"model_blocks": {**params.model_blocks, model: block}})
        with pytest.raises(UserError, match=said):
            model_settings(wrong, model, "mini", settings, path)


def test_a_graphs_value_goes_before_the_common_one():
    settings = importlib.import_module(MODELS["adamf_mat"]).Settings
    params = load_params(ROOT / "params.yaml")
    block = {"common": {"epochs": 7, "margin": 3.0}, "mini": {"epochs": 2}}
    params = params.model_copy(update={"model_blocks": {"adamf_mat": block}})
    found = model_settings(params, "adamf_mat", "mini", settings, ROOT / "params.yaml")
    assert (found.epochs, found.margin) == (2, 3.0)


@pytest.mark.parametrize("model", [model for model in MODELS if model != "adamf"])
def test_every_key_of_a_model_stands_in_params_yaml(model):
    common = load_params(ROOT / "params.yaml").model_blocks[model]["common"]
    fields = {field.name for field in dataclasses.fields(importlib.import_module(MODELS[model]).Settings)}
    assert fields - set(common) <= {"modalities"}, "keys that a user cannot see"


def test_the_check_runs_from_a_folder_with_only_a_params_file(tmp_path, monkeypatch):
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    assert load_params().graphs
