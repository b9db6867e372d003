"""Read all that DVC keeps for this project and compare it with its checksums (`make verify`).

DVC takes a file in its cache at its word as long as the file is write-protected, so a bad disk, or root, can change one
unnoticed. What is not what its name says is set aside, in `damaged/` beside the cache's `files/`, and outputs made of
it are marked as changed: `make repro` then builds, or pulls, just that again. Reads the whole cache once.
"""

import hashlib
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from ruamel.yaml import YAML
from tqdm import tqdm

from pipeline.errors import NO_JSON, UserError, counted
from stages.cli import arguments, stage
from stages.ops.share import dvc_config

log = logging.getLogger(__name__)

CACHE = Path(".dvc/cache")
LOCK = Path("dvc.lock")


@stage
def main() -> None:
    arguments(__doc__).parse_args()
    cache = Path(dvc_config("cache.dir") or CACHE)
    outputs = dict(_outputs(LOCK, cache))
    files = sorted((cache / "files" / "md5").glob("??/*"))
    damaged = [path for path in tqdm(files, unit=" files", desc="verify", disable=None) if not _sound(path)]
    for path in damaged:
        where = outputs.get(_name(path), "no output of dvc.lock")
        log.warning("damaged: %s (%s), set aside", path, where)
        _set_aside(path, cache / "damaged" / _name(path))
    changed = [Path(name) for name in outputs.values() if _changed(Path(name), outputs)]
    for path in changed:
        log.warning("changed: %s is not what dvc.lock says", path)
        os.utime(path)  # what DVC remembers of it counts no longer
    kept, others = counted(len(files), "file"), counted(len(changed), "output")
    log.info("%s in the cache, %d damaged; %s changed", kept, len(damaged), others)
    if damaged or changed:
        raise UserError(
            f"{counted(len(damaged) + len(changed), 'file')} damaged or changed; `make repro` builds what is missing."
        )


def _sound(path: Path) -> bool:
    return _md5(path) == _name(path).removesuffix(".dir") or path.suffix == ".unpacked"


def _changed(path: Path, outputs: dict[str, str]) -> bool:
    """Whether an output lies there with other bytes than dvc.lock says."""
    return path.is_file() and outputs.get(_md5(path)) is None


def _name(path: Path) -> str:
    """The checksum that a file of the cache is named by."""
    return path.parent.name + path.name


def _md5(path: Path) -> str:
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _outputs(lock: Path, cache: Path) -> Iterator[tuple[str, str]]:
    """(checksum, path) of every cached output of dvc.lock, files of folders one by one."""
    if not lock.exists():
        return
    stages = (YAML(typ="safe").load(lock.read_text(encoding="utf-8")) or {}).get("stages", {})
    for about in stages.values():
        for out in about.get("outs", ()):
            checksum, path = out.get("md5", ""), out["path"]
            yield checksum, path
            if checksum.endswith(".dir"):
                listing = cache / "files" / "md5" / checksum[:2] / checksum[2:]
                try:
                    entries = json.loads(listing.read_text(encoding="utf-8"))
                    yield from ((entry["md5"], f"{path}/{entry['relpath']}") for entry in entries)
                except (OSError, *NO_JSON, KeyError, TypeError):
                    continue  # gone or damaged: what it lists cannot be told apart


def _set_aside(path: Path, into: Path) -> None:
    try:
        into.parent.mkdir(exist_ok=True)
        os.replace(path, into)
    except OSError as error:
        raise UserError(f"{path} is damaged and cannot be set aside ({error.strerror}); ask its owner to.") from error


if __name__ == "__main__":
    main()
