"""What several tests want: real files, where they are at hand."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def _folder(variable: str, name: str) -> Path:
    given = os.environ.get(variable)
    folder = Path(given) if given else ROOT.parent / "shared" / name
    if not folder.is_dir():
        pytest.skip(f"no real files: {variable} names no folder, and {folder} is none")
    return folder


@pytest.fixture(scope="session")
def mirror() -> Path:
    """A folder that holds the pinned files as <host>/<path>."""
    return _folder("TESSERA_MIRROR", "mirror")


@pytest.fixture(scope="session")
def photos() -> Path:
    """A folder of real photographs."""
    return _folder("TESSERA_PHOTOS", "photos")
