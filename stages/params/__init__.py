"""Reads params.yaml and configs/ and checks them: the one place that knows which keys exist and within which limits.

What a key means stands in the files themselves. The blocks of models and encoders stay as they are read, so that only
the check and the stages that use them import a trainer or an encoder: `stages.params.models`, `stages.params.encoders`.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ConfigDict

from pipeline.errors import UserError
from pipeline.settings import Misfit, check, nearest, shown
from stages.params.files import File
from stages.params.schema import RELEASED_FILES, Choices, Graph, ReleasedFiles, Studies

__all__ = ["PATH", "RELEASED_FILES", "Blocks", "Graph", "Params", "ReleasedFiles", "Studies", "load_params"]

PATH = Path("params.yaml")
WHAT = {"graphs": "graph", "models": "model", "encoders": "encoder"}  # the folders of configs/, and what a file is
# Names are parts of file names, of DVC's stages (`train@mini-rotate`) and of its expressions (${text.encoder}).
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
# Blocks that stood in params.yaml before there was configs/.
MOVED = {"graph": "configs/graphs/<graph>.yaml", "encoders": "configs/encoders/<encoder>.yaml"}


class Blocks(dict):
    """What the files of one folder of configs/ hold, by name; asking for another name is a user's slip, not ours."""

    def __init__(self, what: str, folder: Path, found: Mapping[str, object]):
        super().__init__(found)
        self.what, self.folder = what, folder

    def file(self, name: str) -> File:
        """The file itself, which knows the lines."""
        return File(self.folder / f"{name}.yaml")

    def __missing__(self, name: str) -> None:
        raise UserError(f"There is no {self.what} {name!r} in {self.folder}; {nearest(name, list(self), 0.4)}")


class Params(Choices):
    """All that a user chooses: params.yaml, and the files of configs/ by their names."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    path: Path
    graph: Blocks  # of Graph
    encoders: Blocks  # as read
    model_blocks: Blocks  # as read


def load_params(path: Path = PATH) -> Params:
    """Read and check params.yaml, and configs/ beside it.

    Raises UserError naming the file, the line, the key and the nearest known key if anything in them cannot be used.
    """
    file = File(path)
    folders = {kind: path.parent / "configs" / kind for kind in WHAT}
    _refuse_moved(file)
    choices = _checked(file, Choices)
    _refuse_unfit(file, choices)
    files = {kind: _files(folder) for kind, folder in folders.items()}
    graphs = {name: _checked(one, Graph).of(name) for name, one in files["graphs"].items()}
    found: dict[str, Mapping[str, object]] = {
        "graphs": graphs,
        "models": {name: _model(one, list(graphs)) for name, one in files["models"].items()},
        "encoders": {name: one.values for name, one in files["encoders"].items()},
    }
    blocks = {kind: Blocks(WHAT[kind], folders[kind], values) for kind, values in found.items()}
    _refuse_unknown(file, choices, blocks)
    return Params.model_construct(
        **dict(choices),
        path=path,
        graph=blocks["graphs"],
        encoders=blocks["encoders"],
        model_blocks=blocks["models"],
    )


def _files(folder: Path) -> dict[str, File]:
    """The files of one folder of configs/ by their names. Raises UserError for a name that DVC cannot carry."""
    if not folder.is_dir():
        raise UserError(f"{folder} is not there; run from the project's folder.")
    found = {}
    for path in sorted(folder.glob("*.y*ml")):
        if path.name.startswith("."):  # an editor's or a file system's own
            continue
        if path.suffix != ".yaml":
            raise UserError(f"{path} is not read; call it {path.stem}.yaml.")
        if said := _unfit(path.stem):
            raise UserError(f"{path}: {said}; rename the file.")
        found[path.stem] = File(path)
    return found


def _unfit(name: str) -> str | None:
    """Why DVC cannot carry a name; None if it can."""
    if name == "common":
        return "'common' is what models call the settings of all graphs"
    if not NAME.fullmatch(name):
        return f"the name {name!r} cannot be used: a name is letters (a-z), digits, _ and -, a letter or a digit first"
    return None


def _checked(file: File, block: type) -> Any:
    try:
        return check(block, file.values)
    except Misfit as found:
        raise file.misfit(found) from found


def _model(file: File, graphs: Sequence[str]) -> dict[str, dict]:
    """The blocks of a model: `common`, and one for each graph on which something differs."""
    if "common" not in file.values:
        raise file.misfit(Misfit(["common"], "missing", "it holds the settings of all graphs."))
    for name, block in file.values.items():
        if name not in ("common", *graphs):
            raise file.misfit(Misfit([name], "unknown", nearest(str(name), ["common", *graphs])))
        if not isinstance(block, dict):
            raise file.misfit(Misfit([name], f"cannot be {shown(block)}", "it takes keys and their values, or {}."))
    return file.values


def _refuse_moved(file: File) -> None:
    """Point whoever has a params.yaml of before to where its blocks stand now."""
    folder = file.path.parent / "configs" / "models"
    for key, block in file.values.items():
        if key in MOVED or (isinstance(block, dict) and "common" in block):
            there = MOVED.get(key, folder / f"{key}.yaml")
            raise file.refusal((key,), f"unknown key {key!r}; what stood there stands in {there} now.")


def _names(choices: Choices) -> Iterator[tuple[tuple[str | int, ...], str, str]]:
    """Each place of params.yaml that names a file of configs/, the name, and the folder it must lie in."""
    for key in ("graphs", "models"):
        for place, name in enumerate(getattr(choices, key)):
            yield (key, place), name, key
    yield ("text", "encoder"), choices.text.encoder, "encoders"
    yield ("images", "encoder"), choices.images.encoder, "encoders"
    for key in ("text_encoders", "image_encoders"):
        for place, name in enumerate(getattr(choices.studies, key)):
            yield ("studies", key, place), name, "encoders"


def _refuse_unfit(file: File, choices: Choices) -> None:
    """Names must be fit to be part of DVC's names, and what is built must be named once."""
    for way, name, kind in _names(choices):
        key = ".".join(map(str, way))
        if said := _unfit(name):
            raise file.refusal(way, f"{key}: {said}.")
        if kind in ("graphs", "models") and name in getattr(choices, kind)[: int(way[-1])]:
            raise file.refusal(way, f"{key}: {name!r} stands there twice; remove one.")


def _refuse_unknown(file: File, choices: Choices, known: Mapping[str, Blocks]) -> None:
    """Names must be those of files in configs/."""
    for way, name, kind in _names(choices):
        if name not in known[kind]:
            blocks = known[kind]
            hint = nearest(name, list(blocks), 0.4)
            raise file.refusal(way, f"there is no {blocks.what} {name!r} in {blocks.folder}; {hint}")
