"""Where a model's files lie: a folder, a Python package, or the Hugging Face cache, filled once and then offline."""

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pipeline.encoding.encoders import hub_files
from pipeline.errors import UserError
from pipeline.retry import PASSING, UNREACHABLE_RETRIES, RetryPolicy

_COMMIT = re.compile(r"[0-9a-f]{40}")
RETRY = RetryPolicy(retries=UNREACHABLE_RETRIES)


def locate(model: str, revision: str | None, only: Sequence[str] = (), one_of: Sequence[str] = ()) -> Path:
    """The folder with a model's files: of a Python package, a folder, or the Hugging Face cache (filled if need be).

    `only`: ends of a tensor's name, if no other tensor is needed; of a hub name just its bytes are fetched then.
    `one_of`: names of files of which a whole model has one beside its weights, such as a tokenizer's vocabulary.

    Raises UserError if the files are not there and cannot be had, or a hub name has no pinned revision.
    """
    if model.startswith("package:"):
        return _in_package(model)
    if Path(model).is_dir():
        return Path(model)
    if model.startswith((".", "/", "~")):
        raise UserError(f"There is no folder {model}; `model` names a hub model, a folder, or package:<name>/<folder>.")
    if not revision or not _COMMIT.fullmatch(revision):
        given = f", not {revision!r}, which may lead elsewhere tomorrow" if revision else ""
        raise UserError(
            f"The model {model} needs a pinned `revision`, a commit of its hub page (40 hexadecimal digits){given}; so "
            "rows can be reused."
        )
    return _from_hub(model, revision, only, one_of)


def weights_file(weights: str) -> Path:
    """The file that `weights` names: a path, or package:<Python package>/<file in it>. Raises UserError."""
    if not weights.startswith("package:"):
        return Path(weights)
    path = _inside_package(weights)
    if not path.is_file():
        raise UserError(f"The Python package of {weights} has no such file; check `weights`.")
    return path


def _inside_package(name: str) -> Path:
    package, _, inner = name.removeprefix("package:").partition("/")
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            f"{name} lies in the Python package {package}, which is not installed: pip install "
            f"{package.replace('_', '-')}."
        )
    return Path(next(iter(spec.submodule_search_locations))) / inner


def _in_package(model: str) -> Path:
    package, _, inner = model.removeprefix("package:").partition("/")
    folder = _inside_package(model)
    if not folder.is_dir():
        raise UserError(f"The Python package {package} has no folder {inner!r}; check `model: {model}`.")
    return folder


def _from_hub(model: str, revision: str, only: Sequence[str], one_of: Sequence[str]) -> Path:
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub import errors as hub

    apart = Path(constants.HF_HUB_CACHE).parent / "tessera" / model.replace("/", "--") / revision
    if only and _complete(apart):
        return apart
    try:
        folder = Path(snapshot_download(model, revision=revision, allow_patterns=["*.json"], local_files_only=True))
        if _complete(folder, only) and (not one_of or any((folder / name).is_file() for name in one_of)):
            return folder
    except hub.LocalEntryNotFoundError:
        pass
    # The base of the hub's errors is what its HTTP library raises of a connection that breaks, whichever library it is.
    broken: type[Exception] = hub.HfHubHTTPError.__mro__[1]

    def tries(action: Callable[[], Any]) -> Any:
        return RETRY.call(action, (broken, OSError), partial(_passes, broken))

    try:
        with _quiet():
            found = hub_files.fetch_tokenizer_and(only, model, revision, apart, tries) if only else None
            return found or hub_files.fetch_files(model, revision, only, tries)
    except hub.GatedRepoError as error:
        raise UserError(
            f"{model} is gated: accept its licence on its hub page, then run `hf auth login`, or point `model` at "
            "a folder."
        ) from error
    except hub.RepositoryNotFoundError as error:
        raise UserError(f"The hub knows no model {model}, or it is private; check the name or log in.") from error
    except (broken, OSError) as error:
        if isinstance(error, hub.RevisionNotFoundError) or isinstance(error.__cause__, hub.RevisionNotFoundError):
            raise UserError(f"{model} has no revision {revision}; take a commit of its hub page.") from error
        raise UserError(
            f"{model} at {revision} is not whole in the Hugging Face cache and cannot be fetched "
            f"({first_line(error)}); fetch it on a machine with a network, copy the cache (HF_HOME) here, or point "
            "`model` at a folder."
        ) from error


def _passes(broken: type[Exception], error: Exception) -> bool:
    """Whether what the hub's client raised may be another thing the next time."""
    from huggingface_hub import errors as hub

    if isinstance(error, hub.HfHubHTTPError):
        return error.response is not None and error.response.status_code in PASSING
    if isinstance(error, hub.OfflineModeIsEnabled):
        return False
    if isinstance(error, hub.LocalEntryNotFoundError):
        return not isinstance(error.__cause__, hub.OfflineModeIsEnabled | hub.RevisionNotFoundError)
    return isinstance(error, broken | ConnectionError | TimeoutError)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the hub's client and its HTTP library say of each request: what matters is said here."""
    loggers = [logging.getLogger(name) for name in ("huggingface_hub", "httpx", "httpx2", "httpcore")]
    levels = [one.level for one in loggers]
    for one in loggers:
        one.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for one, level in zip(loggers, levels, strict=True):
            one.setLevel(level)


def _complete(folder: Path, only: Sequence[str] = ()) -> bool:
    """Whether the weights are in the cache: all that the index names, or those that hold the tensor `only`."""
    try:
        index = index_of(folder) if only else None
        files = [folder / name for name in hub_files.files_of(index, only)] if index else weight_files(folder)
        return (folder / "config.json").is_file() and all(path.is_file() for path in files)
    except UserError:
        return False


def index_of(folder: Path) -> Path | None:
    """The index of weights that lie in several files, if that is how they are read."""
    found = next((folder / name for name in hub_files.WEIGHTS if (folder / name).is_file()), None)
    return found if found is not None and found.name.endswith(hub_files.INDEX) else None


def weight_files(folder: Path) -> list[Path]:
    """The files that a model's weights lie in, as its own loader chooses them: others beside them are not read.

    Raises UserError if there is none, or several and nothing says which.
    """
    if (index := index_of(folder)) is not None:
        return [folder / name for name in sorted(set(hub_files.shards(index).values()))]
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).is_file():
            return [folder / name]
    files = sorted(folder.glob("*.safetensors"))
    if len(files) > 1:
        raise UserError(
            f"{folder} holds {len(files)} files of weights ({files[0].name}, {files[1].name}, …) and no index; "
            "leave the model's own, as model.safetensors."
        )
    if not files:
        raise UserError(f"{folder} holds no weights: neither model.safetensors nor pytorch_model.bin.")
    return files


def first_line(error: Exception) -> str:
    """A library's complaint, short enough for a sentence."""
    return str(error).strip().split("\n")[0][:200] or type(error).__name__
