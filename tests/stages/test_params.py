"""params.yaml and configs/ are checked before anything runs, and a complaint says where to look and what was meant."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from dvc.utils.hydra import apply_overrides

from pipeline.errors import UserError
from stages import settings
from stages.params import load_params
from stages.params.models import model_settings
from trainers.about import MODELS, module_of

ROOT = Path(__file__).parents[2]
FILES = ["params.yaml", *sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("configs/*/*.yaml"))]
PARAMS, MINI, DB15K = "params.yaml", "configs/graphs/mini.yaml", "configs/graphs/DB15K.yaml"
ROTATE, MYGO, MINILM = "configs/models/rotate.yaml", "configs/models/mygo.yaml", "configs/encoders/minilm.yaml"
PATCHES, BERT, BEIT, VIT = (f"configs/encoders/{name}.yaml" for name in ("patches", "bert", "beit", "timm_vit"))


@pytest.fixture
def world(tmp_path, monkeypatch):
    """The project's params.yaml and configs/ in a folder of their own, which is the current one."""
    shutil.copy(ROOT / PARAMS, tmp_path)
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def edit(file: str, old: str, new: str) -> int:
    """Put `new` in the place of `old`; the last line of it."""
    text = Path(file).read_text()
    assert old in text
    Path(file).write_text(text.replace(old, new, 1))
    return text[: text.index(old)].count("\n") + new.rstrip("\n").count("\n") + 1


def refused(file: str, line: int, *said: str) -> None:
    """The check ends with one sentence that names the place and says this."""
    with pytest.raises(UserError) as error:
        settings.check(load_params())
    sentence = str(error.value)
    assert sentence.startswith(f"{file}, line {line}: "), sentence
    assert "\n" not in sentence
    assert all(words in sentence for words in said), sentence


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        (PARAMS, "  patience:", "  patiense:", "unknown key 'patiense' in train; did you mean 'patience'?"),
        (PARAMS, "seed: 0", "sed: 0", "unknown key 'sed'; did you mean 'seed'?"),
        (PARAMS, "  batch_size: 64", "  batch_size: many", "encode.batch_size cannot be 'many': "),
        (PARAMS, "seed: 0", "seed: 2024-01-01", "seed cannot be the date 2024-01-01: input should be a valid integer"),
        (PARAMS, "seed: 0", "seed: [0]", "seed cannot be [0]: input should be a valid integer"),
        (PARAMS, "seed: 0", f"seed: 1{0:0100}", "seed: this number has more digits than any key takes"),
        (PARAMS, "  rate: 5", "  rate: 1.0e+999", "web.rate cannot be inf: input should be a finite number"),
        (PARAMS, "  executor: local", "  executor: cloud", "encode.executor cannot be 'cloud': "),
        (PARAMS, "  device: auto", "  device: gpu", "encode.device cannot be 'gpu': string should match"),
        (PARAMS, "- adamf_mat", "- rotate\n- adamf_mat\n- rotate", "models.2: 'rotate' stands there twice"),
        (PARAMS, "graphs:\n- mini", "graphs: []", "graphs cannot be []: list should have at least 1 item"),
        (PARAMS, "models:\n- adamf_mat\n- rotate", "models:", "models cannot be empty: input should be a valid list"),
        (PARAMS, "  fields:\n  - label\n  - description", "  fields: []", "text.fields cannot be []: list should have"),
        (PARAMS, "- mini", "- minni", "there is no graph 'minni' in configs/graphs; did you mean 'mini'?"),
        (PARAMS, "- adamf_mat", "- adamf-mat", "there is no model 'adamf-mat' in configs/models; did you mean"),
        (PARAMS, "  encoder: minilm", "  encoder: minilmm", "there is no encoder 'minilmm' in configs/encoders; did"),
        (PARAMS, "- mini\n", "- wn18rr.v1\n", "graphs.0: the name 'wn18rr.v1' cannot be used: a name is letters"),
        (PARAMS, "- mini\n", "- my graph\n", "the name 'my graph' cannot be used"),
        (PARAMS, "- mini\n", "- v1@x\n", "the name 'v1@x' cannot be used"),
        (PARAMS, "- mini\n", "- 2024\n", "graphs.0 cannot be 2024: input should be a valid string, so put it in"),
        (PARAMS, "  encoder: minilm", "  encoder: clip.b32", "text.encoder: the name 'clip.b32' cannot be used"),
        (PARAMS, "  encoder: minilm", "  encoder: patches", "text.encoder cannot be 'patches': it encodes image, not"),
        (PARAMS, "- patches_coarse", "- minilm", "studies.image_encoders.1 cannot be 'minilm': it encodes text, not"),
        (PARAMS, "seed: 0", "seed: 0\ngraph: {}", "'graph'; what stood there stands in configs/graphs/<graph>.yaml"),
        (PARAMS, "seed: 0", "seed: 0\nrotate: {common: {}}", "what stood there stands in configs/models/rotate.yaml"),
        (MINI, "dev_share: 0.1", "dev_share: 7", "dev_share cannot be 7: "),
        (MINI, "form: names", "form: name", "form cannot be 'name': "),
        (MINI, "split: clean", "splt: clean", "unknown key 'splt'; did you mean 'split'?"),
        (MINI, "  source: table", "  sorce: table", "unknown key 'sorce' in text; did you mean 'source'?"),
        (MINI, "  source: drawings", "  source: folder", "`source: folder` needs a `path`"),
        (MINI, "folder: data/mini/source", "folder:", "`folder` is empty and `files` lists nothing"),
        (DB15K, "    sha256: 8f", "    sha256: 9", "files.entity2id.txt.sha256 cannot be "),
        (ROTATE, "  epochs: 500", "  epohcs: 500", "unknown key 'epohcs' in common; did you mean 'epochs'?"),
        (ROTATE, "  epochs: 100", "  epohcs: 100", "unknown key 'epohcs' in mini; did you mean 'epochs'?"),
        (ROTATE, "  epochs: 100", "  epochs: 2024-01-01", "mini.epochs cannot be the date 2024-01-01: input should be"),
        (ROTATE, "  epochs: 100", "  epochs: [100]", "mini.epochs cannot be (100,): input should be a valid integer"),
        (ROTATE, "  epochs: 100", "  epochs: 0", "mini.epochs cannot be 0: input should be greater than or equal to 1"),
        (ROTATE, "  margin: 12.0", "  margin: .nan", "common.margin cannot be nan: input should be a finite number"),
        (ROTATE, "MKG-Y:", "MKG-Z:", "unknown key 'MKG-Z'; did you mean 'MKG-Y'?"),
        (ROTATE, "  objective: negative_sampling", "  objective: one_vs_all", "common.objective cannot be used: this"),
        (ROTATE, "  label_smoothing: 0.0", "  label_smoothing: 1.0", "common.label_smoothing cannot be 1.0: input"),
        (MYGO, "MKG-Y:\n", "MKG-Y:\n  heads: 3\n", "MKG-Y.heads cannot be used: heads (3) must divide "),
        (MYGO, "mini:\n", "mini:\n  text_tokens: 1\n", "mini.text_tokens cannot be used: text_tokens (1) leaves no"),
        (MYGO, "  clip: 0.1", "  clip: 0.0", "common.clip cannot be 0.0: input should be greater than 0"),
        (PATCHES, "patch: 8", "patch: 7", "patch cannot be used: patch (7) must divide size (64)"),
        (BERT, "revision: 86b5e0934494bd15c9632b12f734a8a67f723594", "revision: main", "revision cannot be 'main': "),
        (BERT, "revision: 86b5e0934494bd15c9632b12f734a8a67f723594", "revision: v1.0", "revision cannot be 'v1.0': "),
        (BERT, "revision: 86b5e0934494bd15c9632b12f734a8a67f723594", "revision: 86b5e093a", "cannot be '86b5e093a': "),
        (VIT, "revision: ", "revision: main  # ", "revision cannot be 'main': "),
        (BEIT, "sha256:", "sha256: abc", "sha256 cannot be 'abc': "),
        (MINILM, "pooling: mean", "poling: mean", "unknown key 'poling'; did you mean 'pooling'?"),
        (MINILM, "family: language", "family: langage", "family cannot be 'langage': did you mean 'language'?"),
        (MINILM, "revision:\n", "revision: 12345\n", "revision cannot be 12345: input should be a valid string, so"),
        (MINILM, "revision:\n", f"revision: {'1' * 40}\n", "put it in quotes if it is a text"),
        (MINILM, "max_tokens: 256", "max_tokens: 0", "max_tokens cannot be 0: input should be greater than or equal"),
        (MINILM, "max_tokens: 256", "max_tokens: -5", "max_tokens cannot be -5: input should be greater than or equal"),
        (MINILM, "max_tokens: 256", "max_tokens: 1.5", "max_tokens cannot be 1.5: input should be a valid integer"),
        (MINILM, "dimension:", "dimension: 0", "dimension cannot be 0: input should be greater than or equal to 1"),
        (PATCHES, "codes: ", "codes: -", "codes cannot be -"),
        (MINILM, "max_tokens: 256", "max_tokens: many", "max_tokens cannot be 'many': input should be a valid int"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_named_with_file_line_and_key(world, file, old, new, said):
    line = edit(file, old, new)
    refused(file, line, said)


def test_a_number_of_thousands_of_digits_is_named_with_its_line(world):
    line = edit(PARAMS, "seed: 0", f"seed: {'9' * 5000}")
    refused(PARAMS, line, "a value that cannot be read")


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("configs/graphs/own.v1.yaml", "the name 'own.v1' cannot be used"),
        ("configs/encoders/my own.yaml", "the name 'my own' cannot be used"),
        ("configs/models/common.yaml", "'common' is what models call"),
        ("configs/graphs/own.yml", "call it own.yaml"),
    ],
)
def test_a_file_whose_name_dvc_cannot_carry_is_refused(world, file, said):
    Path(file).write_text("form: names\n")
    with pytest.raises(UserError) as error:
        load_params()
    assert str(error.value).startswith(f"{file}")
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("  source: table", "  source: wikidata"),
        ("  source: table", "  source: wikipedia"),
        ("  source: drawings", "  source: commons"),
    ],
)
def test_who_asks_wikimedia_says_who_they_are_before_anything_is_downloaded(world, old, new):
    edit(MINI, old, new)
    line = edit(PARAMS, "  contact:", "  contact:")
    refused(PARAMS, line, "mini: web.contact in params.yaml is null;")
    Path("data/mini/web").mkdir(parents=True)
    settings.check(load_params())  # the answers are here: nobody is asked
    Path("data/mini/web").rmdir()
    edit(PARAMS, "  contact:", "  contact: nobody")
    refused(PARAMS, line, "web.contact in params.yaml is 'nobody';")
    edit(PARAMS, "  contact: nobody", "  contact: a@b.org")
    settings.check(load_params())


def test_a_hub_model_without_a_revision_is_refused_before_any_stage(world):
    line = edit(BERT, "revision: 86b5e0934494bd15c9632b12f734a8a67f723594", "revision:")
    settings.check(load_params())  # nobody chose it
    edit(PARAMS, "  encoder: minilm", "  encoder: bert")
    refused(BERT, line, "revision is empty, and google-bert/bert-base-uncased is no folder here")


@pytest.mark.parametrize(
    ("model", "encoder", "said"),
    [
        (
            "mygo",
            ("  encoder: patches", "  encoder: timm_vit"),
            "images.encoder cannot be 'timm_vit': it gives no",
        ),
        ("momok", ("  encoder: minilm", "  encoder: bert"), "text.encoder cannot be 'bert': it gives no features"),
    ],
)
def test_a_model_whose_encoder_does_not_give_what_it_reads(world, model, encoder, said):
    edit(PARAMS, "models:\n- adamf_mat\n", "models:\n")
    edit(BERT, "pooling: mean", "pooling: none")
    line = edit(PARAMS, *encoder)
    settings.check(load_params())  # rotate reads neither
    edit(PARAMS, "- rotate", f"- {model}")
    refused(PARAMS, line, said, f"modalities in configs/models/{model}.yaml")


@pytest.mark.parametrize(
    ("model", "encoder", "source"),
    [
        ("mygo", ("  encoder: patches", "  encoder: timm_vit"), ("  source: drawings", "  source: none")),
        ("momok", ("  encoder: minilm", "  encoder: bert"), ("  source: table", "  source: none")),
    ],
)
def test_an_encoder_of_what_nobody_has_gives_nothing_that_could_be_missed(world, model, encoder, source):
    """The graph has no pictures (or texts) at all, so the model is trained without them, as the train stage says."""
    edit(BERT, "pooling: mean", "pooling: none")
    edit(PARAMS, "models:\n- adamf_mat\n- rotate", f"models:\n- {model}")
    line = edit(PARAMS, *encoder)
    refused(PARAMS, line, "it gives no")
    edit(MINI, *source)
    settings.check(load_params())


def test_a_model_whose_released_files_are_of_another_kind_is_refused(world):
    edit(MINI, "encoded: here", "encoded: released")
    line = edit(MINI, "released: {}", "released:\n  image:\n    features: f.parquet")
    settings.check(load_params())  # adamf_mat reads features
    edit(PARAMS, "models:\n- adamf_mat\n- rotate", "models:\n- mygo")
    refused(MINI, line - 1, "released.image has no tokens, which mygo reads", "--tokens 8")


def test_models_may_be_none(world):
    edit(PARAMS, "models:\n- adamf_mat\n- rotate", "models: []")
    params = load_params()
    settings.check(params)
    settings.write(params)
    assert params.models == []
    assert settings.SETTINGS.is_dir()


def test_a_missing_key_and_no_yaml_are_sentences(world):
    edit(PARAMS, "  retries: 5\n", "")
    with pytest.raises(UserError, match=r"the key sources\.retries is missing"):
        load_params()
    Path("broken.yaml").write_text("graphs: [mini\nx: }")
    with pytest.raises(UserError, match=r"line .*: this is no YAML"):
        load_params(Path("broken.yaml"))
    with pytest.raises(UserError, match="is not there"):
        load_params(Path("absent.yaml"))
    shutil.rmtree("configs/models")
    shutil.copy(ROOT / PARAMS, PARAMS)
    with pytest.raises(UserError, match="configs/models is not there"):
        load_params()


# -------------------------------------------------------------------------------------------------- graphs, models
def test_a_graph_of_ones_own_is_one_file(world):
    Path("configs/graphs/own.yaml").write_text("form: names\n")
    edit(PARAMS, "- mini", "- own")
    params = load_params()
    settings.check(params)
    settings.write(params)
    graph = json.loads((settings.GRAPHS / "own.json").read_text())
    assert (graph["folder"], graph["files"], graph["text"]["source"]) == ("data/own/source", {}, "none")
    common = model_settings(params, "rotate", "DB15K")
    assert json.loads((settings.SETTINGS / "own" / "rotate.json").read_text())["epochs"] == common.epochs


def test_what_a_graph_may_leave_out_is_as_its_manual_says(world):
    mini = load_params().graph["mini"]
    Path(MINI).write_text("form: names\nimages:\n  source: drawings\ntext:\n  source: table\n")
    assert load_params().graph["mini"] == mini


def test_a_change_for_one_graph_changes_no_other_graphs_settings(world):
    edit(PARAMS, "- mini", "- mini\n- DB15K\n- MKG-W")
    before = written()
    edit(ROTATE, "  negatives: 128", "  negatives: 127")  # which mini overrides
    after = written()
    changed = {path for path in after if before[path] != after[path]}
    assert changed == {f"{settings.SETTINGS}/{graph}/rotate.json" for graph in ("DB15K", "MKG-W")}
    edit(PARAMS, "- DB15K\n", "")
    assert f"{settings.SETTINGS}/DB15K/rotate.json" not in written()


def written() -> dict[str, str]:
    settings.write(load_params())
    return {str(path): path.read_text() for path in Path("data/.checked").rglob("*.json")}


def test_a_graphs_value_goes_before_the_common_one(world):
    edit(ROTATE, "  margin: 12.0", "  margin: 3")
    edit(ROTATE, "mini:\n  epochs: 100", "mini:\n  epochs: 2")
    found = model_settings(load_params(), "rotate", "mini")
    assert (found.epochs, found.margin) == (2, 3.0)
    assert isinstance(found.margin, float)


def test_every_model_has_a_file_with_every_key_and_its_defaults_stand_there():
    """A dataclass has no defaults, or the same."""
    blocks = load_params(ROOT / PARAMS).model_blocks
    assert set(blocks) == set(MODELS)
    for model in MODELS:
        fields = {one.name: one.default for one in dataclasses.fields(module_of(model).Settings)}
        if fields.get("modalities") == ("structure",):  # no choice
            del fields["modalities"]
        common = blocks[model]["common"]
        assert set(common) == set(fields), f"{model}: keys that a user cannot see"
        given = {name: default for name, default in fields.items() if default is not dataclasses.MISSING}
        given = json.loads(json.dumps(given))
        assert given == {name: common[name] for name in given}, model


def test_every_encoder_has_a_file_with_every_key_and_its_defaults():
    """The first of a family shows its defaults; the others, all keys."""
    from pipeline.encoding import encoders

    blocks = load_params(ROOT / PARAMS).encoders
    for family, module in encoders.families().items():
        ours = {name: block for name, block in blocks.items() if block["family"] == family}
        assert ours, f"{family} has no file in configs/encoders"
        keys = {one.name for one in dataclasses.fields(module.Settings)}
        for name, block in ours.items():
            assert set(block) - {"family", "sha256"} == keys, name
        shown = {
            "language": "minilm",
            "timm": "timm_vit",
            "clusters": "efficientnet",
            "residual": "efficientnet_residual",
        }
        first = ours[shown.get(family, family)]
        for one in dataclasses.fields(module.Settings):
            if one.default is not dataclasses.MISSING and one.name not in ("revision", "weights", "convert"):
                assert first[one.name] == one.default, f"{family}.{one.name}"


# ---------------------------------------------------------------------------------------------------------- DVC's form
@pytest.mark.parametrize("file", FILES)
def test_every_file_is_in_the_form_that_dvc_writes(file, tmp_path):
    """What `dvc exp run -S` does to a file that it changes, without a change: comments after lists would go, too."""
    path = tmp_path / "some.yaml"
    shutil.copy(ROOT / file, path)
    apply_overrides(path, [])
    assert path.read_text() == (ROOT / file).read_text()


@pytest.mark.parametrize(("file", "override"), [(PARAMS, "seed=1"), (ROTATE, "common.epochs=3")])
def test_an_override_changes_one_line(file, override, world):
    before = Path(file).read_text().splitlines()
    apply_overrides(file, [override])
    after = Path(file).read_text().splitlines()
    assert len(before) == len(after)
    key, value = override.split("=")
    assert [new for old, new in zip(before, after, strict=True) if old != new] == [
        f"{'  ' * key.count('.')}{key.split('.')[-1]}: {value}"
    ]


def test_params_yaml_is_short():
    assert (ROOT / PARAMS).read_text().count("\n") < 210
