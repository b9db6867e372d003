"""Point this clone at storage that a group shares: `make share DIR=<folder or address>`.

A folder that every machine mounts becomes DVC's cache itself: nothing is copied, outputs are links into it. Any other
address (ssh://, s3://, webdavs://, …) becomes DVC's remote, to which `dvc push --run-cache` sends results and from
which `make repro` takes them. Either way the feature store moves there too, so that no row is encoded twice.
"""

import argparse
import os
import stat
import subprocess
import sys
from pathlib import Path

from ruamel.yaml import YAML

from pipeline.errors import UserError
from pipeline.modalities.addresses import UNOPENABLE, opened
from stages.cli import stage
from stages.params import PATH

REMOTE = "shared"
# Read and write for the group, and new files belong to the folder's group, not to their maker's own.
GROUP = stat.S_IRWXU | stat.S_IRWXG | stat.S_ISGID | stat.S_IROTH | stat.S_IXOTH


@stage
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("place", nargs="?", help="a folder that all machines mount, or an address")
    options = parser.parse_args()
    if not options.place:
        raise UserError(
            "Say where: make share DIR=/a/folder, ssh://host/folder, s3://bucket/prefix or webdavs://host/path."
        )
    place = options.place.rstrip("/")
    share_address(place) if "://" in place else share_folder(Path(place))


def share_folder(folder: Path) -> None:
    """Use `folder`/cache as DVC's cache and `folder`/store as the feature store.

    Raises UserError if the folder cannot be made or written.
    """
    folder = folder.expanduser().resolve()
    for part in (folder, folder / "cache", folder / "store"):
        _make_for_group(part)
    _dvc("config", "--local", "cache.dir", str(folder / "cache"))
    _dvc("config", "--local", "cache.shared", "group")
    # Links cost no space; a copy is the last resort, between file systems that know none.
    _dvc("config", "--local", "cache.type", "reflink,symlink,copy")
    set_store(str(folder / "store"))
    print(
        f"DVC's cache is {folder / 'cache'}, the feature store {folder / 'store'}. `make repro` uses both from now on."
    )


def share_address(place: str) -> None:
    """Use `place`/dvc as DVC's default remote and `place`/store as the feature store.

    Raises UserError if the place is on a WebDAV server that does not let us make a folder there.
    """
    if place.startswith(("webdav", "dav")):
        _make_on_webdav(f"{place}/dvc")
    _dvc("remote", "add", "--local", "--force", "--default", REMOTE, f"{place}/dvc")
    set_store(f"{place}/store")
    print(
        f"DVC's remote is {place}/dvc, the feature store {place}/store. `make repro` takes from the remote what is "
        "there; `dvc push --run-cache` sends it what is new. Logins: dvc remote modify --local "
        f"{REMOTE} <user, password, keyfile, endpointurl, …>."
    )


def _make_on_webdav(place: str) -> None:
    """DVC makes no folders above its own on WebDAV, so the remote's must be there."""
    try:
        filesystem, path = opened(place)
        if not filesystem.isdir(path):
            filesystem.makedirs(path, exist_ok=True)
    except UNOPENABLE as error:
        raise UserError(
            f"{place} cannot be made ({error}); check the address, install the extra `webdav`, and put your login into "
            '~/.config/fsspec/webdav.json: {"webdav": {"auth": ["user", "password"]}}.'
        ) from error


def set_store(address: str, path: Path = PATH) -> None:
    """Write the key `store` of params.yaml; every other line stays as it is."""
    text = path.read_text(encoding="utf-8")
    tree = YAML(typ="rt").load(text)
    line = tree.lc.key("store")[0]
    lines = text.splitlines(keepends=True)
    lines[line] = f"store: {address}\n"
    temporary = path.with_suffix(".part")
    temporary.write_text("".join(lines), encoding="utf-8")
    os.replace(temporary, path)


def _make_for_group(folder: Path) -> None:
    try:
        made = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        if made:
            folder.chmod(GROUP)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(13, "no right to write")
    except OSError as error:
        raise UserError(
            f"{folder} cannot be shared ({error.strerror}); choose a folder in which you may write, or ask its owner "
            f"for `chmod g+rwxs {folder}`."
        ) from error


def dvc_config(key: str) -> str:
    """What DVC's configuration says, empty if nothing."""
    done = subprocess.run([*DVC, "config", key], capture_output=True, text=True, check=False)
    return done.stdout.strip()


DVC = (sys.executable, "-m", "dvc")


def _dvc(*arguments: str) -> None:
    done = subprocess.run([*DVC, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"dvc {' '.join(arguments)} failed: {done.stderr.strip() or done.stdout.strip()}")


if __name__ == "__main__":
    main()
