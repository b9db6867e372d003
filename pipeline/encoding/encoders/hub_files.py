"""What of a model's page on the hub is needed, and fetching it: one file after the other, so that a kill costs one.

A page holds the same weights many times (TensorFlow, Flax, ONNX, GGUF, half precision, the authors' own `consolidated`
form). Read is what the model's own loader would choose, as the index file says where there is one; everything else
stays there. Who wants tokens alone needs one tensor, the input embedding, and gets just its bytes.
"""

import json
import logging
import math
import struct
import uuid
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from pipeline import tables
from pipeline.errors import NO_JSON, UserError

log = logging.getLogger(__name__)

SMALL = (".json", ".txt", ".model")  # what configs and tokenizers lie in
INDEX = ".index.json"
# In the order in which transformers looks for them; a name that ends in `.index.json` leads to several files.
WEIGHTS = ("model.safetensors", f"model.safetensors{INDEX}", "pytorch_model.bin", f"pytorch_model.bin{INDEX}")
NEVER = ("consolidated", ".fp16.", ".bf16.", "adapter_", "tf_", "flax_", "rust_")
TOLD_EVERY = 10.0  # seconds between two lines of a log
LINE = "{desc}: {percentage:.0f} % ({n_fmt} of {total_fmt}B), {rate_fmt}, {remaining} left"
WORTH_TELLING = 10**6  # bytes
HEADER_MOST = 100_000_000  # bytes of a safetensors file's header, as the format limits it


class Told(tqdm):
    """Bytes, speed and time left of one file, as lines of the log; in the shape in which the hub's client wants it."""

    def __init__(self, *arguments: Any, **options: Any):
        options.pop("name", None)  # the hub's own client gives its bars names
        fixed = {"disable": False, "mininterval": TOLD_EVERY, "miniters": 1, "unit": "B", "unit_scale": True}
        super().__init__(*arguments, **{**options, **fixed})

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Say how far it is."""
        if self.n and (self.total or 0) >= WORTH_TELLING:
            log.info("%s", self.format_meter(**{**self.format_dict, "ncols": None, "bar_format": LINE}))


def listed(model: str, revision: str) -> dict[str, int]:
    """The files of a page by their names, with their sizes in bytes (0 where the hub does not say)."""
    from huggingface_hub import HfApi

    about = HfApi().model_info(model, revision=revision, files_metadata=True)
    return {one.rfilename: one.size or 0 for one in about.siblings or ()}


def small_files(names: Iterable[str]) -> list[str]:
    """Configs and the tokenizer's files: those at the top, without indexes of weights."""
    return sorted(name for name in names if "/" not in name and name.endswith(SMALL) and not name.endswith(INDEX))


def weights_or_index(model: str, names: Iterable[str]) -> str:
    """The one file of weights that is read, or the index of several.

    Raises UserError if there is none, or several without an index.
    """
    top = {name for name in names if "/" not in name and not any(part in name for part in NEVER)}
    if found := next((name for name in WEIGHTS if name in top), None):
        return found
    others = sorted(name for name in top if name.endswith(".safetensors"))
    if len(others) != 1:
        said = f"{len(others)} files of weights and no index" if others else "no weights as safetensors or *.bin"
        raise UserError(f"The hub's page of {model} holds {said}; point `model` at a folder with the ones you mean.")
    return others[0]


def shards(index: Path) -> dict[str, str]:
    """Tensor -> file, as an index of weights says. Raises UserError if it is none."""
    try:
        found = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        return {str(tensor): str(file) for tensor, file in found.items()}
    except (*NO_JSON, KeyError, AttributeError, TypeError) as error:
        raise UserError(f"{index} is no index of weights ({str(error)[:100]}); fetch it again.") from error


def fetch_files(model: str, revision: str, only: Sequence[str], tries: Callable) -> Path:
    """Put what the model's loader reads into the Hugging Face cache; the snapshot's folder.

    With `only`, ends of a tensor's name, no other of several files of weights is fetched than the one that holds it.
    `tries(action)` calls an action until it passes. Raises what the hub's client raises, and UserError of a page
    without weights.
    """
    sizes = tries(lambda: listed(model, revision))
    chosen = weights_or_index(model, sizes)
    names = [*small_files(sizes), chosen]
    index = _get(model, revision, chosen, tries) if chosen.endswith(INDEX) else None
    names += sorted(files_of(index, only)) if index else []
    _tell(model, revision, [sizes.get(name, 0) for name in names])
    paths = [_get(model, revision, name, tries) for name in names]
    return paths[-1].parent


def files_of(index: Path, only: Sequence[str] = ()) -> set[str]:
    """The files that an index names, or the one of them that holds the tensor `only`."""
    where = shards(index)
    return {where[_meant(where, only, str(index.parent))]} if only else set(where.values())


def fetch_tokenizer_and(tensor: Sequence[str], model: str, revision: str, folder: Path, tries: Callable) -> Path | None:
    """Put configs, tokenizer and one tensor into `folder`; None if the page's weights are not in safetensors.

    `tensor` are ends of names, the first that fits is meant. What is fetched is the tensor's bytes alone.
    """
    sizes = tries(lambda: listed(model, revision))
    chosen = weights_or_index(model, sizes)
    if ".bin" in chosen:
        return None
    small = small_files(sizes)
    _tell(model, revision, [sizes[name] for name in small])
    folder.mkdir(parents=True, exist_ok=True)
    for name in small:
        content = _get(model, revision, name, tries).read_bytes()
        tables.write_bytes(folder / name, content)  # another process may be reading it
    file = chosen
    if chosen.endswith(INDEX):
        where = shards(_get(model, revision, chosen, tries))
        file = where[_meant(where, tensor, model)]
    tries(lambda: _one_tensor(model, revision, file, tensor, folder / "model.safetensors"))
    return folder


def _tell(model: str, revision: str, sizes: Sequence[int]) -> None:
    log.info("fetching %s at %s: %d files, %s", model, revision, len(sizes), tqdm.format_sizeof(sum(sizes), "B"))


def _get(model: str, revision: str, name: str, tries: Callable) -> Path:
    from huggingface_hub import constants, hf_hub_download

    return Path(
        tries(
            lambda: hf_hub_download(
                model, name, revision=revision, cache_dir=constants.HF_HUB_CACHE, tqdm_class=Told, etag_timeout=30
            )
        )
    )


def _meant(names: Iterable[str], ends: Sequence[str], model: str) -> str:
    names = sorted(names, key=len)
    for end in ends:
        for name in names:
            if name == end or name.endswith(f".{end}"):
                return name
    raise UserError(f"{model} holds no input embedding ({', '.join(ends)}): it is no language model's checkpoint.")


def _one_tensor(model: str, revision: str, file: str, ends: Sequence[str], into: Path) -> None:
    """Write a safetensors file that holds one tensor of another on the hub, asking for its bytes alone."""
    from huggingface_hub import hf_hub_url

    url = hf_hub_url(model, file, revision=revision)
    (length,) = struct.unpack("<Q", b"".join(_bytes(url, 0, 8)))
    if not 0 < length <= HEADER_MOST:
        raise UserError(f"{file} of {model} is no safetensors file; point `model` at a folder with the weights.")
    try:
        header = json.loads(b"".join(_bytes(url, 8, 8 + length)))
        name = _meant(header, ends, model)
        about = header[name]
        first, last = (8 + length + int(one) for one in about["data_offsets"])
    except (*NO_JSON, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{file} of {model} is no safetensors file ({str(error)[:100]}).") from error
    head = json.dumps({name: {**about, "data_offsets": [0, last - first]}}).encode()
    head += b" " * (-len(head) % 8)
    part = into.with_name(f"{into.name}.{uuid.uuid4().hex}.part")  # another process may be writing its own
    with open(part, "wb") as sink, Told(total=last - first, desc=f"{name} of {file}") as bar:
        sink.write(struct.pack("<Q", len(head)) + head)
        for block in _bytes(url, first, last):
            sink.write(block)
            bar.update(len(block))
    if math.prod(about["shape"]) == 0 or part.stat().st_size != 8 + len(head) + last - first:
        raise ConnectionError(f"{file} ended before its tensor {name} did")
    part.replace(into)


def _bytes(url: str, first: int, last: int) -> Iterable[bytes]:
    """Bytes first … last - 1 of a file on the hub, in blocks."""
    from huggingface_hub import get_session
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

    headers = {**build_hf_headers(), "Range": f"bytes={first}-{last - 1}", "Accept-Encoding": "identity"}
    with get_session().stream("GET", url, headers=headers, follow_redirects=True) as answer:
        hf_raise_for_status(answer)
        if answer.status_code != 206:
            raise ConnectionError(f"{url} does not give parts of a file")
        yield from answer.iter_bytes()
