"""Where a model's files lie: a folder, a Python package, or the Hugging Face cache, filled once and then offline."""

import json
import logging
import re
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from pipeline.errors import NO_JSON, UserError
from pipeline.retry import PASSING, UNREACHABLE_RETRIES, RetryPolicy

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SMALL = ["*.json", "*.txt", "*.model"]
RETRY = RetryPolicy(retries=UNREACHABLE_RETRIES)


def locate(model: str, revision: str | None, whole: bool = True) -> Path:
    """The folder with a model's files: of a Python package, a folder, or the Hugging Face cache (filled if need be).

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
    return _from_hub(model, revision, whole)


def _in_package(model: str) -> Path:
    package, _, inner = model.removeprefix("package:").partition("/")
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"The model {model} lies in the Python package {package}, which is not installed; install it.")
    folder = Path(next(iter(spec.submodule_search_locations))) / inner
    if not folder.is_dir():
        raise UserError(f"The Python package {package} has no folder {inner!r}; check `model: {model}`.")
    return folder


def _from_hub(model: str, revision: str, whole: bool) -> Path:
    from huggingface_hub import errors as hub
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(model, revision=revision, allow_patterns=_SMALL, local_files_only=True))
        if _complete(folder):
            return folder
    except hub.LocalEntryNotFoundError:
        pass
    logging.getLogger(__name__).info("fetching %s at %s", model, revision)
    # The base of the hub's errors is what its HTTP library raises of a connection that breaks, whichever library it is.
    broken: type[Exception] = hub.HfHubHTTPError.__mro__[1]

    def passes(error: Exception) -> bool:
        if isinstance(error, hub.HfHubHTTPError):
            return error.response is not None and error.response.status_code in PASSING
        if isinstance(error, hub.OfflineModeIsEnabled):
            return False
        if isinstance(error, hub.LocalEntryNotFoundError):
            return not isinstance(error.__cause__, hub.OfflineModeIsEnabled | hub.RevisionNotFoundError)
        return isinstance(error, broken | ConnectionError | TimeoutError)

    try:
        fetch = partial(snapshot_download, model, revision=revision)
        folder = Path(RETRY.call(lambda: fetch(allow_patterns=[*_SMALL, "*.safetensors"]), (broken, OSError), passes))
        # Older models have pickles alone: read, but no code in them is run.
        if not any(folder.glob("*.safetensors")):
            RETRY.call(lambda: fetch(allow_patterns=["pytorch_model*.bin"]), (broken, OSError), passes)
        if not _complete(folder):  # without a network the client is content with what is in the cache
            raise UserError(
                f"{model} at {revision} lies in the Hugging Face cache in part, and the hub does not give the rest; "
                "try again with a network, or point `model` at a folder."
            )
        return folder
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
            f"{model} at {revision} is not in the Hugging Face cache and cannot be fetched ({first_line(error)}); "
            "fetch it on a machine with a network, copy the cache (HF_HOME) here, or point `model` at a folder."
        ) from error


def _complete(folder: Path) -> bool:
    """Whether all the weights that the snapshot's index names, or the one file of them, are in the cache."""
    try:
        return (folder / "config.json").is_file() and all(path.is_file() for path in weight_files(folder))
    except UserError:
        return False


def index_of(folder: Path) -> Path | None:
    """The index of weights that lie in several files, if there is one."""
    names = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
    return next((folder / name for name in names if (folder / name).is_file()), None)


def weight_files(folder: Path) -> list[Path]:
    """The files that a model's weights lie in, as its own loader chooses them: others beside them are not read.

    Raises UserError if there is none, or several and nothing says which.
    """
    if (index := index_of(folder)) is not None:
        try:
            return [folder / name for name in sorted(set(json.loads(index.read_text())["weight_map"].values()))]
        except (*NO_JSON, KeyError, AttributeError, TypeError) as error:
            raise UserError(f"{index} is no index of weights ({first_line(error)}); fetch it again.") from error
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
