"""Whether the check has said yes to exactly these files before, so that it need not read every model again.

To check the settings of models and encoders is to import them, and PyTorch with them: seconds, at each `make repro`
twice. What they are checked from are files, so the digest of these, kept beside what the check wrote, tells whether it
would say and write the same.
"""

import hashlib
import sys
from collections.abc import Iterable
from pathlib import Path

from pipeline import tables
from pipeline.versions import PACKAGES, ROOT

KEPT = Path("data/.checked/settled")
WRITTEN = ("data/.checked/graphs", "data/.checked/settings", "data/.code")


def settled() -> bool:
    """Whether the last check read what lies here now, and all that it wrote still lies there."""
    if not KEPT.exists():
        return False
    digest, *answered = KEPT.read_text(encoding="utf-8").splitlines()
    # Where answers of the web are kept, nobody is asked and `web.contact` may be empty: more of them never hurt.
    return digest == _digest() and all(Path(folder).exists() for folder in answered)


def settle() -> None:
    """Keep what the check has read and written, once it is over."""
    tables.write_text(KEPT, "\n".join([_digest(), *map(str, sorted(Path("data").glob("*/web"))), ""]))


def _digest() -> str:
    """Of params.yaml, configs/, the code, and what the check wrote."""
    digest = hashlib.sha256(sys.version.encode())
    for path in sorted(_files()):
        digest.update(f"\0{path}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _files() -> Iterable[Path]:
    yield Path("params.yaml")
    yield from Path("configs").rglob("*.yaml")
    for name in PACKAGES:
        yield from (ROOT / name).rglob("*.py")
        yield from (ROOT / name).rglob("*.c")
    for name in WRITTEN:
        yield from (path for path in Path(name).rglob("*") if path.is_file())
