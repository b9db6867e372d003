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


def settled(read: str) -> bool:
    """Whether the last check read `read`, and all that it wrote still lies there."""
    if not KEPT.exists():
        return False
    kept = KEPT.read_text(encoding="utf-8", errors="replace").splitlines()
    if len(kept) < 2:  # of another version, or spoilt
        return False
    before, wrote, *answered = kept
    # Where answers of the web are kept, nobody is asked and `web.contact` may be empty: more of them never hurt.
    return (before, wrote) == (read, _written()) and all(Path(folder).exists() for folder in answered)


def settle(read: str) -> None:
    """Keep what the check has read, as `digest` gave it before, and what it wrote."""
    answered = map(str, sorted(Path("data").glob("*/web")))
    tables.write_text(KEPT, "\n".join([read, _written(), *answered, ""]))


def digest() -> str:
    """Of all that the check reads: params.yaml, configs/ and the code."""
    code = [path for name in PACKAGES for kind in ("*.py", "*.c") for path in (ROOT / name).rglob(kind)]
    return _of([Path("params.yaml"), *Path("configs").rglob("*.yaml"), *code])


def _written() -> str:
    return _of(path for name in WRITTEN for path in Path(name).rglob("*") if path.is_file())


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # what reads it next says what is wrong with it
        return b""


def _of(files: Iterable[Path]) -> str:
    found = hashlib.sha256(sys.version.encode())
    for path in sorted(files):
        found.update(f"\0{path}\0".encode() + hashlib.sha256(_bytes(path)).digest())
    return found.hexdigest()
