"""What lies outside the project's own outputs and decides them: folders, archives and files that a graph's file in
configs/ names.

The stage `check` puts a link to each below data/<graph>/watched, and the stage that reads it depends on the link. DVC
looks behind links: it compares names, sizes, times and inodes with what it knows, and reads contents where they differ.

    folder           the graph's `folder`                  for download
    images           `images.path`                         for images
    released/text/   the files under `released.text`       for encode_text
    released/image/  the files under `released.image`      for encode_images

Where nothing is watched lies a file that says so: an address of fsspec, whose files nobody can compare without asking
for each, is watched by its name alone. Where the place is gone, nothing lies; `dvc repro` then stops at its reader, and
`dvc repro --allow-missing` takes what was read of it before.
"""

import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from pipeline import tables
from pipeline.errors import UserError
from pipeline.modalities import MODALITIES
from stages.params import RELEASED_FILES, Graph

log = logging.getLogger(__name__)

NOTHING = "Nothing is watched here.\n"


def watch(name: str, graph: Graph, data: Path = Path("data")) -> None:
    """Bring the links of one graph up to date.

    Raises UserError if a folder holds a link that leads nowhere, at which DVC would stop.
    """
    base = data / name / "watched"
    _link(base / "folder", graph.folder, f"configs/graphs/{name}.yaml, folder")
    _link(
        base / "images",
        graph.images.path if graph.images.source == "folder" else None,
        f"configs/graphs/{name}.yaml, images.path",
    )
    for kind in MODALITIES:
        files = getattr(graph.released, kind, None) if graph.encoded == "released" else None
        named = {key: getattr(files, key, None) for key in RELEASED_FILES}
        _links(base / "released" / kind, {key: path for key, path in named.items() if path and Path(path).exists()})


def _links(folder: Path, targets: Mapping[str, str]) -> None:
    """A folder with a link for each target, and nothing else."""
    if not targets:
        _link(folder, None, "")
        return
    if not folder.is_dir():
        folder.unlink(missing_ok=True)
    for path in folder.glob("*"):
        if path.name not in targets:
            path.unlink()
    for name, target in targets.items():
        _link(folder / name, target, name)


def _link(place: Path, target: str | None, key: str) -> None:
    """Make `place` a link to a path, or a file that says that there is nothing to watch."""
    if target is None or "://" in target:
        if not place.is_file() or place.is_symlink():
            _remove(place)
            tables.write_text(place, NOTHING)
        return
    if not Path(target).exists():
        _remove(place)
        log.warning("%s: there is no %s; `dvc repro --allow-missing` goes on with what was read of it.", key, target)
        return
    _refuse_dead_links(Path(target))
    # Relative within the project, which may be moved as a whole.
    inside = Path(target).absolute().is_relative_to(Path.cwd())
    wanted = os.path.relpath(target, place.parent) if inside else os.path.abspath(target)
    if not (place.is_symlink() and os.readlink(place) == wanted):
        _remove(place)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(wanted)


def _remove(place: Path) -> None:
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)


def _refuse_dead_links(target: Path) -> None:
    for folder, folders, files in os.walk(target):
        for name in (*folders, *files):
            path = os.path.join(folder, name)
            if os.path.islink(path) and not os.path.exists(path):
                raise UserError(f"{path} is a link that leads nowhere, at which DVC stops; remove it or mend it.")
