"""Names that some systems lack must not stop an import: macOS has no `os.sched_getaffinity`."""

import importlib.util
import os
from pathlib import Path

import pytest

from pipeline.cores import usable_cores

ROOT = Path(__file__).parent.parent
MODULES = sorted(
    path.relative_to(ROOT).as_posix().removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    for room in ("pipeline", "trainers", "stages")
    for path in (ROOT / room).rglob("*.py")
    if path.name != "__main__.py"
)


@pytest.fixture
def other_system(monkeypatch):
    for name in ("sched_getaffinity", "sched_setaffinity", "posix_fadvise", "posix_fallocate"):
        monkeypatch.delattr(os, name, raising=False)


def test_every_module_can_be_imported_where_names_of_linux_are_missing(other_system):
    assert len(MODULES) > 100
    for name in MODULES:
        spec = importlib.util.find_spec(name)
        spec.loader.exec_module(importlib.util.module_from_spec(spec))  # anew, whoever imported it before


def test_cores_are_counted_where_the_scheduler_does_not_say(other_system):
    assert usable_cores() == os.cpu_count()
