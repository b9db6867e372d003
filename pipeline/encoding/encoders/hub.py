"""Where a model's files lie: a folder, a Python package, or the Hugging Face cache, filled once and then offline."""

import logging
from importlib.util import find_spec
from pathlib import Path

from pipeline.errors import UserError
from pipeline.retry import PASSING, UNREACHABLE_RETRIES, RetryPolicy

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
    if not revision:
        raise UserError(
            f"The model {model} needs a pinned `revision` (a commit of its hub page), so that rows can be reused."
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

    wanted = ["*.json", "*.txt", "*.model", "*.safetensors"]
    try:
        return Path(snapshot_download(model, revision=revision, allow_patterns=wanted, local_files_only=True))
    except hub.LocalEntryNotFoundError:
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
        return Path(
            RETRY.call(
                lambda: snapshot_download(model, revision=revision, allow_patterns=wanted), (broken, OSError), passes
            )
        )
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


def first_line(error: Exception) -> str:
    """A library's complaint, short enough for a sentence."""
    return str(error).strip().split("\n")[0][:200] or type(error).__name__
