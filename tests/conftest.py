"""What several tests want: real files, where they are at hand; and the order in which files are run."""

import os
from collections import Counter
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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first, then long ones: several processes, a file each, end at about the same time."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    tests = Counter(item.path for item in items)
    items.sort(key=lambda item: (item.path not in slow, -tests[item.path], item.path))
