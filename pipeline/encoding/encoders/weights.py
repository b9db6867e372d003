"""Weights that have a public address are fetched once, through the mirror if there is one, and kept by their sha256."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pipeline.download import sources
from pipeline.errors import UserError
from pipeline.retry import RetryPolicy

RECORD = "sha256.json"  # checksums of files for which none is published, taken at the first fetch


def recorded(address: object, folder: str | Path) -> str | None:
    """The sha256 that the first fetch of an address into `folder` left there; None if nothing was fetched."""
    return sources.recorded(Path(folder) / RECORD).get(address) if isinstance(address, str) else None


def fetched(block: Mapping[str, Any], folder: str | Path, *, mirror: str | None, retry: RetryPolicy) -> dict[str, Any]:
    """An encoder's settings with the address under `weights` replaced by the path of the fetched file.

    `sha256` in the block is demanded of the file; without one, the first fetch records it in `<folder>/sha256.json` and
    later ones must agree. Raises UserError if the file cannot be had or is another.
    """
    block = dict(block)
    sha256 = block.pop("sha256", None)
    address = block.get("weights")
    if not isinstance(address, str) or not address.startswith(("http://", "https://")):
        if sha256 is not None:
            raise UserError("`sha256` belongs to a `weights` that is an address; remove it, or give the address.")
        return block
    parts = urlsplit(address)
    path = parts.path.strip("/") + (f"?{parts.query}" if parts.query else "")
    into = Path(folder) / f"{parts.netloc}-{path}".replace("/", "-").replace("?", "-").replace("%2F", "-").replace(
        "&", "-"
    )
    sources.fetch(
        address, sha256, into, mirror=sources.chosen_mirror(mirror), record=Path(folder) / RECORD, retry=retry
    )
    return {**block, "weights": str(into)}
