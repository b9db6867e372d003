"""Language models of Hugging Face: BERT, RoBERTa, LLaMA, MiniLM and whatever else AutoModel knows.

Tokens are the tokenizer's ids without special tokens, of the text without its stop words and its punctuation (dropped
before tokenising, so that byte-pair vocabularies work too). The codebook is the input embedding matrix, of which only
the used rows are read, straight from the file that holds it: the model is not built. The feature is the mean of the
last hidden states over the text's own positions (Reimers & Gurevych 2019, section 3), or the first or the last one's.
Of models with an encoder and a decoder (T5, BART) the encoder is read, of those of text and pictures (CLIP) the text's.
"""

import hashlib
import json
import pickle
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from pipeline.encoding import torchvision_repair  # noqa: F401  (before transformers)
from pipeline.encoding.encoders import InvalidInput, Rows, checkpoints, file_sha256, hub, stop_words
from pipeline.encoding.encoders.hub import first_line, locate
from pipeline.errors import UserError, counted
from pipeline.settings import AtLeastOne, Commit
from pipeline.versions import code_version

KIND = "text"

# Where architectures keep their input embedding, by the end of the tensor's name.
EMBEDDINGS = (
    "embed_tokens.weight", "word_embeddings.weight", "wte.weight", "shared.weight", "tok_embeddings.weight",
    "embed_in.weight", "word_embedding.weight", "token_embedding.weight", "tokens_embed.weight",
)  # fmt: skip
# Families beside those called *roberta* whose positions are counted from the padding id + 1, as RoBERTa's are.
OFFSET_POSITIONS = ("camembert", "mpnet", "longformer", "data2vec-text", "xmod", "ibert", "luke", "mluke")
VOCABULARIES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
)
STEP = 8  # texts are padded to a multiple of this many tokens: a function of the text, not of its batch
# Masks and token types as lists of Python ints cost as much time as tokenising does.
# What looks like a special token in a text is spelt out: nobody who describes HTML means the tokenizer's own `<s>`.
IDS_ONLY = {
    "return_attention_mask": False, "return_token_type_ids": False, "verbose": False, "split_special_tokens": True,
}  # fmt: skip
READ_ROWS = 1024  # embedding rows read at once


@dataclass(frozen=True)
class Settings:
    model: str  # a name on the hub, a folder, or `package:<python package>/<folder in it>`
    revision: Commit | None = None  # commit of a hub name; must be pinned. Folders are known by their weights' sha256
    stop_words: Literal["none", "english"] = "english"  # dropped from the tokens, not from what the feature reads
    punctuation: Literal["drop", "keep"] = "drop"  # of the tokens; the feature reads all of the text
    # first and last: the hidden state there, last for models that only look back; none: the model is never built
    pooling: Literal["mean", "first", "last", "none"] = "mean"
    # the feature reads at most so many tokens of a text; the tokens table keeps all
    max_tokens: AtLeastOne = 256
    # mygo: tokens as the released lists of MyGO seem to be made, in the place of stop_words and punctuation
    recipe: Literal["own", "mygo"] = "own"
    prompt: str = ""  # what stands before each text that the feature reads, as the model's authors say ("query: ")
    dimension: AtLeastOne | None = None  # how many numbers of a feature are kept, of models trained for it (matryoshka)


@dataclass(frozen=True)
class Item:
    """A prepared text."""

    tokens: np.ndarray  # int32, without special tokens and stop words
    ids: list[int]  # what the model reads, special tokens included
    words: int


def load(settings: Settings, *, device: torch.device, precision: torch.dtype) -> "Language":
    """The encoder of a language model. Raises UserError if its files are not there or do not fit together."""
    return Language(settings, device=device, precision=precision)


class Language:
    """See the module. The model itself is built when the first feature is asked for."""

    window = 16384

    def __init__(self, settings: Settings, *, device: torch.device, precision: torch.dtype):
        self._settings = settings
        self._device = device
        self._precision = precision
        tokens_alone = EMBEDDINGS if settings.pooling == "none" else ()
        self._folder = locate(settings.model, settings.revision, tokens_alone, VOCABULARIES)
        self._tokenizer = _tokenizer(self._folder, settings.model)
        self._blanks = _keeps_blanks(self._tokenizer)
        self._stop_words = stop_words.LISTS[settings.stop_words]
        beside = self._tokenizer.num_special_tokens_to_add()
        if settings.pooling != "none" and settings.max_tokens <= beside:
            raise UserError(
                f"max_tokens: {settings.max_tokens} leaves no room for the text beside the {beside} special tokens of "
                f"{settings.model}; give at least {beside + 1}."
            )
        pinned = settings.revision and not self._folder_is_given()
        self.fingerprint = {
            "family": "language",
            "model": settings.model if pinned else "folder",
            "weights": f"revision {settings.revision}" if pinned else _weights_sha256(self._folder),
            "tokenizer": "as pinned"
            if pinned
            else _files_sha256(self._folder, ("config.json", "merges.txt", *VOCABULARIES)),
            "stop_words": settings.stop_words,
            "punctuation": settings.punctuation,
            "recipe": settings.recipe,
            "prompt": settings.prompt,
            "dimension": settings.dimension,
            "pooling": settings.pooling,
            "max_tokens": settings.max_tokens,
            "padding": f"multiples of {STEP}",
            "precision": str(precision).removeprefix("torch."),
            "code_version": code_version(__file__),
        }

    def _folder_is_given(self) -> bool:
        return self._settings.model.startswith("package:") or Path(self._settings.model).is_dir()

    def prepare(self, raw: Sequence[str]) -> list[Item | InvalidInput]:
        """Tokenise texts, once for the tokens and once for the feature."""
        if not raw:
            return []
        raw = [unicodedata.normalize("NFC", text) for text in raw]
        special = self._settings.recipe == "mygo"  # whose lists hold [CLS] and [SEP]
        kept = [self._kept(text) for text in raw]
        tokens = self._tokenizer(kept, add_special_tokens=special, **IDS_ONLY)["input_ids"]
        ids: list[list[int]] = [[]] * len(raw)
        if self._settings.pooling != "none":
            prompted = [self._settings.prompt + text for text in raw]
            ids = self._tokenizer(prompted, truncation=True, max_length=self._max_tokens, **IDS_ONLY)["input_ids"]
        return [
            Item(np.asarray(t, dtype=np.int32), i, stop_words.words(text))
            if text.strip()
            else InvalidInput("the text is empty; give it a text or leave it null.")
            for text, t, i in zip(raw, tokens, ids, strict=True)
        ]

    def _kept(self, text: str) -> str:
        """What of a text becomes tokens."""
        if self._settings.recipe == "mygo":
            return stop_words.as_mygo(text)
        text = stop_words.without(text, self._stop_words)
        if self._settings.punctuation == "drop":
            text = stop_words.without_punctuation(text)
        return text if self._blanks else text.strip()

    @cached_property
    def _max_tokens(self) -> int:
        config = json.loads((self._folder / "config.json").read_text())
        limits = [self._settings.max_tokens, self._tokenizer.model_max_length]
        if positions := position_limit(config):
            limits.append(positions)
        return min(limits)

    def size(self, item: Item) -> int:
        """Padded length in tokens."""
        return _step(len(item.ids))

    def encode(self, items: Sequence[Item]) -> Rows:
        """Rows of texts of equal padded length."""
        tokens = [item.tokens for item in items]
        count = np.array([item.words for item in items], dtype=np.int32)
        if self._settings.pooling == "none":
            return Rows(tokens, np.zeros((len(items), 0), dtype=np.float32), count)
        # Nothing attends to the padding; its id must only be one that the model has a row for.
        padding, known = self._tokenizer.pad_token_id or 0, self._model.get_input_embeddings().weight.shape[0]
        ids, mask = padded([item.ids for item in items], padding if padding < known else 0)
        features = self._pool(ids.to(self._device), mask.to(self._device)).cpu().numpy()
        return Rows(tokens, self._narrowed(features), count)

    def _narrowed(self, features: np.ndarray) -> np.ndarray:
        """The first numbers of the features (B, D), as many as are wanted. Raises UserError if there are fewer."""
        width, wanted = features.shape[1], self._settings.dimension
        if wanted is not None and wanted > width:
            raise UserError(f"dimension: {wanted} is more than the {width} numbers that {self._settings.model} gives.")
        return np.ascontiguousarray(features[:, :wanted])

    def _pool(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """(B, T) ids and mask -> (B, D) float32."""
        mixed = self._precision != torch.float32
        with torch.inference_mode(), torch.autocast(self._device.type, self._precision, enabled=mixed):
            hidden = self._model(input_ids=ids, attention_mask=mask).last_hidden_state.float()
        if self._settings.pooling == "first":
            return hidden[:, 0]
        if self._settings.pooling == "last":
            return hidden[torch.arange(len(mask), device=mask.device), mask.sum(1) - 1]
        weight = mask.unsqueeze(-1).float()
        return (hidden * weight).sum(1) / weight.sum(1)

    @cached_property
    def _model(self) -> Any:
        from transformers import AutoConfig, AutoModel
        from transformers.utils import logging

        logging.disable_progress_bar()
        half = self._precision != torch.float32
        try:
            config = AutoConfig.from_pretrained(self._folder, local_files_only=True)
            if (getattr(config, "pad_token_id", None) or 0) >= getattr(config, "vocab_size", float("inf")):
                config.pad_token_id = None  # the padding decides nothing, and its row is not there to be set apart
            model, report = AutoModel.from_pretrained(
                self._folder,
                config=config,
                dtype="auto" if half else torch.float32,  # weights stored in 16 bits stay so: a 7B model fits in 14 GB
                local_files_only=True,
                use_safetensors=any(self._folder.glob("*.safetensors")),  # else *.bin, read without running code
                output_loading_info=True,
            )
        except (
            pickle.UnpicklingError,
            EOFError,
            OSError,
            ValueError,
            RuntimeError,
            KeyError,
            SafetensorError,
        ) as error:
            raise UserError(f"{self._folder} holds no model that can be read ({first_line(error)}).") from error
        missing = sorted(name for name in report["missing_keys"] if "pooler" not in name)
        wrong = sorted(str(name) for name in report.get("mismatched_keys", ()))
        if missing or wrong:
            raise UserError(
                f"The weights in {self._folder} are of another model than its config.json: "
                f"{len(missing) + len(wrong)} tensors are missing or misshapen, such as {(missing + wrong)[0]}."
            )
        model = _text_part(model).eval().to(self._device)
        self._refuse_unsuitable(model)
        return model

    def _refuse_unsuitable(self, model: Any) -> None:
        """Try two texts of two tokens before any row is made.

        Raises UserError if the model cannot read a text alone, has no row for a token that a text may become, or if
        the token to be read has seen nothing of the text.
        """
        ids = torch.tensor([[1, 2], [1, 3]], device=self._device)
        try:
            ids %= (rows := model.get_input_embeddings().weight.shape[0])
            with torch.inference_mode():
                hidden = model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
        except (TypeError, ValueError, AttributeError, NotImplementedError) as error:
            raise UserError(
                f"{self._settings.model} ({type(model).__name__}) is no model that reads a text alone "
                f"({first_line(error)}); choose an encoder of texts."
            ) from error
        if self._settings.pooling == "first" and torch.equal(hidden[0, 0], hidden[1, 0]):
            raise UserError(
                f"{self._settings.model} only looks back, so its first token is the same for all texts; use "
                "pooling: last or mean."
            )
        self._refuse_strange_tokens(rows)

    def _refuse_strange_tokens(self, rows: int) -> None:
        special = self._tokenizer.all_special_tokens  # which no text becomes
        vocabulary = self._tokenizer.get_vocab().items()
        strange = sorted(token for token, at in vocabulary if at >= rows and token not in special)
        if strange:
            raise UserError(
                f"The embedding of {self._settings.model} has {rows} rows, and none for "
                f"{counted(len(strange), 'token')} of its tokenizer, such as {strange[0]!r}; they are of different "
                "models, or tokens were added without enlarging the embedding."
            )

    def codebook(self, used: np.ndarray) -> np.ndarray:
        """Rows (N, W) of the input embedding matrix."""
        return embedding_rows(self._folder, used)


def _text_part(model: Any) -> Any:
    """What encodes a text: the encoder of a model that has a decoder as well, the text half of one with pictures."""
    if getattr(model.config, "is_encoder_decoder", False):
        return model.get_encoder()
    return getattr(model, "text_model", model)


def position_limit(config: Mapping) -> int | None:
    """How many tokens a model of this config.json has positions for; None where it counts distances instead."""
    config = {**config, **config.get("text_config", {})} if isinstance(config.get("text_config"), Mapping) else config
    kind = str(config.get("model_type", ""))
    if ("relative_attention_num_buckets" in config and "max_position_embeddings" not in config) or kind == "xlnet":
        return None
    positions = config.get("max_position_embeddings") or config.get("n_positions") or config.get("n_ctx")
    if not positions:
        return None
    offset = "roberta" in kind or kind in OFFSET_POSITIONS
    return positions - ((config.get("pad_token_id") or 0) + 1 if offset else 0)


def _keeps_blanks(tokenizer) -> bool:
    """Whether a blank before a word becomes part of its token, as in byte-level vocabularies."""
    bare, behind = (tokenizer(text, add_special_tokens=False, **IDS_ONLY)["input_ids"] for text in ("a", " a"))
    return len(bare) == len(behind) and bare != behind


def padded(texts: Sequence[Sequence[int]], padding: int) -> tuple[torch.Tensor, torch.Tensor]:
    """B texts' ids as (B, T) int64, filled up with `padding` to a multiple of STEP, and their mask (B, T) int64."""
    lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    mask = np.arange(_step(lengths.max())) < lengths[:, None]
    ids = np.full(mask.shape, padding, dtype=np.int64)
    ids[mask] = np.fromiter(chain.from_iterable(texts), dtype=np.int64, count=lengths.sum())
    return torch.from_numpy(ids), torch.from_numpy(mask.astype(np.int64))


def _step(length: int) -> int:
    return -(-int(length) // STEP) * STEP


def embedding_rows(folder: Path, used: np.ndarray) -> np.ndarray:
    """Rows `used` (N,) ascending of a checkpoint's input embedding, as (N, W) float32; nothing else is read.

    Raises UserError if no file of the folder holds one, or it has fewer rows than the ids ask for.
    """
    path, name = _embedding(Path(folder))
    if path.suffix == ".bin":
        return _rows_of(checkpoints.read(path)[name], used, path, name)
    with safe_open(path, framework="pt") as file:
        matrix = file.get_slice(name)
        rows, width = matrix.get_shape()
        _check_rows(rows, used, path, name)
        out = np.empty((len(used), width), dtype=np.float32)
        for start in range(0, rows, READ_ROWS):
            first, last = np.searchsorted(used, [start, start + READ_ROWS])
            if last > first:
                block = matrix[start : min(start + READ_ROWS, rows)]
                out[first:last] = block[torch.from_numpy(used[first:last].astype(np.int64) - start)].float().numpy()
    return out


def _check_rows(rows: int, used: np.ndarray, path: Path, name: str) -> None:
    if len(used) and used[-1] >= rows:
        raise UserError(
            f"{path}: {name} has {rows} rows, but the tokenizer gives id {used[-1]}; they are of different models."
        )


def _rows_of(matrix: torch.Tensor, used: np.ndarray, path: Path, name: str) -> np.ndarray:
    _check_rows(len(matrix), used, path, name)
    return matrix[torch.from_numpy(used.astype(np.int64))].float().numpy()


def _embedding(folder: Path) -> tuple[Path, str]:
    """The file and the name of the input embedding."""
    files = hub.weight_files(folder)
    where: dict[str, Path] = {}
    try:
        if (index := hub.index_of(folder)) is not None:
            where = {name: folder / file for name, file in json.loads(index.read_text())["weight_map"].items()}
        elif files[0].suffix == ".bin":
            where = dict.fromkeys(checkpoints.read(files[0]), files[0])
        else:
            with safe_open(files[0], framework="pt") as file:
                where = dict.fromkeys(file.keys(), files[0])
    except (SafetensorError, ValueError, KeyError, AttributeError) as error:
        raise UserError(f"{folder} holds damaged weights ({first_line(error)}); fetch them again.") from error
    for suffix in EMBEDDINGS:
        for name in sorted(where, key=len):
            if name == suffix or name.endswith(f".{suffix}"):
                return where[name], name
    raise UserError(
        f"{folder} holds no input embedding ({', '.join(EMBEDDINGS)}): it is no language model's checkpoint."
    )


def _tokenizer(folder: Path, model: str):
    from transformers import AutoTokenizer

    if not any((folder / name).is_file() for name in VOCABULARIES):
        raise UserError(
            f"The tokenizer of {model} has no vocabulary: {folder} holds none of {', '.join(VOCABULARIES)}."
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError, ImportError, AttributeError) as error:
        raise UserError(f"The tokenizer in {folder} cannot be read ({first_line(error)}).") from error
    if len(tokenizer) <= len(set(tokenizer.all_special_ids)):
        raise UserError(f"The tokenizer of {model} in {folder} has no vocabulary beyond its special tokens.")
    return tokenizer


def _weights_sha256(folder: Path) -> str:
    """The sha256 of the weights; of the list of sha256s if they lie in several files."""
    files = hub.weight_files(folder)
    return file_sha256(files[0]) if len(files) == 1 else _files_sha256(folder, [path.name for path in files])


def _files_sha256(folder: Path, names: Sequence[str]) -> str:
    """One digest of the named files, as far as they are there."""
    digests = [f"{name} {file_sha256(folder / name)}" for name in sorted(names) if (folder / name).is_file()]
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()
