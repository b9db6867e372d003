"""Pictures in words, by any image-to-text model of transformers: GIT, BLIP, BLIP-2, LLaVA and whatever else
AutoModelForImageTextToText knows.

A captioner is an `Encoder` like any other, so captions go through the feature store by the same fingerprint, parts and
refusals; what it gives as tokens are the code points of the caption, which whoever has the store can read without the
model. There is no feature and no codebook. Decoding is greedy, so a picture has one caption. On a CPU each picture goes
alone, so that a caption does not depend on its neighbours.
"""

import hashlib
import inspect
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL.Image import Image
from safetensors import SafetensorError

from pipeline.encoding import torchvision_repair  # noqa: F401  (before transformers)
from pipeline.encoding.encoders import InvalidInput, Rows, file_sha256, hub, pictures
from pipeline.encoding.inputs import Pictures
from pipeline.encoding.store import KEY, CorruptPart, Stores
from pipeline.errors import UserError
from pipeline.settings import AtLeastOne, Commit
from pipeline.tables import ragged
from pipeline.versions import code_version

KIND = "image"  # what it reads, as families of encoders say it
STATUSES = ("ok", "nothing", "refused")


@dataclass(frozen=True)
class Settings:
    model: str  # a name on the hub, a folder, or `package:<python package>/<folder in it>`
    revision: Commit | None = None  # commit of a hub name; must be pinned
    prompt: str = ""  # what the model is told or asked; for a model that talks, the question about the picture
    longest: AtLeastOne = 30  # tokens of a caption, at most


class Captioner:
    """See the module. The model itself is built when the first caption is asked for."""

    window = 0

    def __init__(self, settings: Settings, *, device: torch.device, precision: torch.dtype):
        self._settings, self._device, self._precision = settings, device, precision
        self._folder = hub.locate(settings.model, settings.revision)
        given = settings.model.startswith("package:") or Path(settings.model).is_dir()
        pinned = settings.revision and not given
        self.fingerprint: dict[str, Any] = {
            "family": "captions",
            "model": settings.model if pinned else "folder",
            "weights": f"revision {settings.revision}" if pinned else _digest(self._folder),
            "prompt": settings.prompt,
            "longest": settings.longest,
            "preprocessing": pictures.PREPROCESSING,
            "precision": str(precision).removeprefix("torch."),
            "device": device.type,  # whose last digits decide between two words
            "code_version": code_version(__file__, pictures),
        }

    def prepare(self, raw: Sequence[bytes]) -> list[Any]:
        """RGB pictures, whole: the model's own processor cuts them."""
        return [pictures.decode(content) for content in raw]

    def size(self, item: Image) -> int:
        """All pictures cost the same."""
        return 0

    def encode(self, items: Sequence[Image]) -> Rows:
        """Captions as code points, int32; features (B, 0)."""
        lot = 1 if self._device.type == "cpu" else len(items)
        said: list[str] = []
        for first in range(0, len(items), lot):
            said += self._said(list(items[first : first + lot]))
        tokens = [np.array([ord(sign) for sign in one], dtype=np.int32) for one in said]
        words = np.array([len(one.split()) for one in said], dtype=np.int32)
        return Rows(tokens, np.zeros((len(said), 0), dtype=np.float32), words)

    def codebook(self, used: np.ndarray) -> np.ndarray:
        """There is none."""
        return np.zeros((len(used), 0), dtype=np.float32)

    def _said(self, lot: list[Image]) -> list[str]:
        """The captions of some pictures, in one line each, without the prompt before them."""
        mixed = self._precision != torch.float32
        try:
            given = self._given(lot)
            with torch.inference_mode(), torch.autocast(self._device.type, self._precision, enabled=mixed):
                ids = self._model.generate(**given, max_new_tokens=self._settings.longest, do_sample=False, num_beams=1)
        except (ValueError, TypeError, IndexError, KeyError) as error:
            raise UserError(
                f"{self._settings.model} says nothing about a picture with this prompt ({hub.first_line(error)}); "
                "change `prompt`, or choose another image-to-text model."
            ) from error
        asked = given.get("input_ids")
        if asked is not None and torch.equal(ids[:, : asked.shape[1]], asked):
            ids = ids[:, asked.shape[1] :]
        said = self._processor.batch_decode(ids, skip_special_tokens=True)
        return [_without(" ".join(one.split()), self._settings.prompt) for one in said]

    def _given(self, lot: list[Image]) -> dict[str, Any]:
        """What the model reads of some pictures and the prompt, on its device."""
        prompt, model = self._prompt, self._model
        found = self._processor(images=lot, text=[prompt] * len(lot) if prompt else None, return_tensors="pt")
        given = dict(found.to(self._device))
        if "token_type_ids" not in inspect.signature(model.forward).parameters:
            given.pop("token_type_ids", None)
        if prompt and model.config.model_type == "git":  # its tokenizer ends the prompt, behind which it goes on
            for name in ("input_ids", "attention_mask"):
                given[name] = given[name][:, :-1]
        return given

    @cached_property
    def _prompt(self) -> str:
        """The prompt as the model reads it: in its own template of talk, or behind the mark of the picture."""
        mark, prompt = getattr(self._processor, "image_token", None), self._settings.prompt
        if not isinstance(mark, str) or mark in prompt:
            return prompt
        if getattr(self._processor, "chat_template", None):
            content = [{"type": "image"}, {"type": "text", "text": prompt}]
            return self._processor.apply_chat_template(
                [{"role": "user", "content": content}], add_generation_prompt=True
            )
        return f"{mark}\n{prompt}"

    @cached_property
    def _processor(self) -> Any:
        from transformers import AutoProcessor

        try:
            processor = AutoProcessor.from_pretrained(self._folder, local_files_only=True)
        except (OSError, ValueError, KeyError, TypeError, ImportError, AttributeError) as error:
            raise UserError(f"{self._folder} holds nothing that cuts pictures and reads words for an image-to-text "
                            f"model ({hub.first_line(error)}).") from error  # fmt: skip
        if not hasattr(processor, "image_processor") or not hasattr(processor, "tokenizer"):
            raise UserError(f"{self._settings.model} does not read pictures and write words; choose an image-to-text "
                            "model.")  # fmt: skip
        processor.tokenizer.padding_side = "left"  # what is said goes on at the right
        return processor

    @cached_property
    def _model(self) -> Any:
        from transformers import AutoModelForImageTextToText
        from transformers.utils import logging

        logging.disable_progress_bar()
        half = self._precision != torch.float32
        try:
            found: Any = AutoModelForImageTextToText.from_pretrained(
                self._folder,
                dtype="auto" if half else torch.float32,
                local_files_only=True,
                use_safetensors=any(self._folder.glob("*.safetensors")),  # else *.bin, read without running code
                output_loading_info=True,
            )
        except (
            pickle.UnpicklingError, EOFError, OSError, ValueError, RuntimeError, KeyError, SafetensorError,
        ) as error:  # fmt: skip
            raise UserError(
                f"{self._folder} holds no image-to-text model that can be read ({hub.first_line(error)})."
            ) from error
        model, report = found
        if wrong := sorted([*report["missing_keys"], *map(str, report.get("mismatched_keys", ()))]):
            raise UserError(
                f"The weights in {self._folder} are of another model than its config.json: {len(wrong)} tensors are "
                f"missing or misshapen, such as {wrong[0]}."
            )
        return model.eval().requires_grad_(False).to(self._device)


def load(settings: Settings, *, device: torch.device, precision: torch.dtype) -> Captioner:
    """The captioner of a model. Raises UserError if its files are not there."""
    return Captioner(settings, device=device, precision=precision)


def table(inputs: Pictures, stores: Stores, refused: dict[bytes, InvalidInput]) -> dict[str, list] | None:
    """The columns of the table `captions`, a row for each picture of `inputs`; None if a part turned out to be corrupt.

    Status: ok; nothing (the model said nothing); refused (`error` says why). A caption that is not there is null.
    """
    said: dict[bytes, str] = {}
    try:
        for store, found in stores.find(inputs.keys):
            for at, name in enumerate(found.names):
                part = stores.read(store, name)
                lists = ragged(part["token_ids"])
                for row in np.unique(found.row[found.part == at]):
                    codes = lists.values[lists.offsets[row] : lists.offsets[row + 1]]
                    said[part["key"][int(row)].as_py()] = "".join(map(chr, codes.tolist()))
    except CorruptPart:
        return None
    columns: dict[str, list] = {name: [] for name in ("entity_id", "image_ix", "caption", "status", "error")}
    for entity, image_ix, key in zip(inputs.entity.tolist(), inputs.image_ix.tolist(), inputs.keys, strict=True):
        whole = bytes(key).ljust(KEY.itemsize, b"\0")
        if whole not in said and whole not in refused:
            return None
        caption = said.get(whole) or None
        status = "refused" if whole in refused else "ok" if caption else "nothing"
        row = (entity, image_ix, caption, status, str(refused[whole]) if whole in refused else None)
        for column, value in zip(columns.values(), row, strict=True):
            column.append(value)
    return columns


def _without(said: str, prompt: str) -> str:
    """What is said, without the prompt that some models say again; another case of letters is the same prompt."""
    prompt = " ".join(prompt.split())
    return said[len(prompt) :].strip() if prompt and said.lower().startswith(prompt.lower()) else said


def _digest(folder: Path) -> str:
    """One digest of all that decides a caption in a folder: weights, configs, vocabularies."""
    weights = {path.name for path in hub.weight_files(folder)}
    small = {path.name for end in ("*.json", "*.txt", "*.model", "*.jinja") for path in folder.glob(end)}
    digests = [f"{name} {file_sha256(folder / name)}" for name in sorted(weights | small)]
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()
