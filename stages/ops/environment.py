"""Before `make VENV=` installs: say that the active environment will use this folder, and which one it used so far."""

import json
import sys
from importlib.metadata import distributions
from pathlib import Path
from urllib.parse import unquote, urlparse
from urllib.request import url2pathname

PROJECT = "tessera-mmkgc"


def installed_from(paths: list[str]) -> Path | None:
    """The folder from which one of these site-packages has the project; None if none has it, or from no folder.

    A folder that has been installed from says so itself (its egg-info), so `paths` must not hold the present folder.
    """
    for found in distributions(name=PROJECT, path=paths):
        origin = found.read_text("direct_url.json")
        address = urlparse(json.loads(origin)["url"] if origin else "")
        if address.scheme == "file":
            return Path(url2pathname(unquote(address.path)))
    return None


def notice(here: Path, before: Path | None, environment: str) -> str:
    """What an installation of `here` changes in the environment, as one line; empty if it changes nothing."""
    if before == here:
        return ""
    if before is None:
        return f"VENV= is empty: installing {here} into the active environment, {environment}, as an editable package."
    return (
        f"VENV= is empty, and the active environment, {environment}, has Tessera from {before}: from now on it has it "
        f"from {here}. To go back: python -m pip install --editable {before}. To keep both: leave VENV= out."
    )


def main() -> None:
    here = Path.cwd().resolve()
    elsewhere = [path for path in sys.path if path and Path(path).resolve() != here]
    if text := notice(here, installed_from(elsewhere), sys.prefix):
        print(text)


if __name__ == "__main__":
    main()
