"""Reads params.yaml and checks it: the one place that knows which keys exist, of which type, within which limits.

What a key means stands in params.yaml itself. The blocks of the models are checked against the `Settings` of each
trainer by `model_settings`, so that nothing but the train stage (and the check before it) needs to import a trainer.
"""

import difflib
import json
import math
import reprlib
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipeline.errors import UserError

PATH = Path("params.yaml")
# Hyperparameters that count something without which there is no model.
_AT_LEAST_ONE = frozenset(
    ("epochs", "batch_size", "negatives", "dimension", "width", "relation_width", "dim", "hidden", "heads", "experts")
)
_MOST_VALUES = 100_000  # of params.yaml with its aliases written out; the project's own has some five hundred


class Blocks(dict):
    """Blocks by name; asking for a name that has none is a user's slip, not ours."""

    def __missing__(self, name: str) -> None:
        near = difflib.get_close_matches(name, self, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(self) or 'none'}."
        raise UserError(f"{PATH} has no block {name!r}; {hint}")


Named = AfterValidator(Blocks)
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
AtLeastOne = Annotated[int, Field(ge=1)]


class Block(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Sources(Block):
    mirror: str | None
    timeout: Annotated[float, Field(gt=0)]
    retries: Count


class Web(Block):
    contact: str | None
    rate: Annotated[float, Field(gt=0)]
    concurrency: AtLeastOne
    attempts: AtLeastOne
    timeout: Annotated[float, Field(gt=0)]
    backoff: Annotated[float, Field(gt=0)]
    wikidata: str
    commons: str
    wikipedia: str | None


class PinnedFile(Block):
    address: str
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None


class GraphText(Block):
    source: Literal["table", "links", "qid", "title", "wikidata", "wikipedia", "none"]
    unfound: Literal["none", "label"]


class GraphImages(Block):
    source: Literal["drawings", "folder", "commons", "none"]
    path: str | None = None


class ReleasedFiles(Block):
    features: str | None = None
    tokens: str | None = None
    codebook: str | None = None
    index: str | None = None
    tokens_per_picture: AtLeastOne | None = None
    padding_rows: Count | None = None
    placeholders: Literal["drop", "keep"] = "drop"


class Released(Block):
    text: ReleasedFiles | None = None
    image: ReleasedFiles | None = None


class Graph(Block):
    form: Literal["openke", "names"]
    folder: str | None
    files: dict[str, PinnedFile]
    split: Literal["clean", "released"]
    dev_share: Annotated[float, Field(ge=0, le=0.5)]
    split_seed: Count
    text: GraphText
    images: GraphImages
    encoded: Literal["here", "released"]
    released: Released


class Text(Block):
    encoder: str
    fields: Annotated[list[Literal["label", "description", "aliases"]], Field(min_length=1)]
    joined_by: str


class Images(Block):
    encoder: str
    short_side: Annotated[int, Field(ge=16)]
    max_pixels: Annotated[int, Field(ge=256, le=178_000_000)]
    quality: Annotated[int, Field(ge=1, le=95)]
    per_entity: AtLeastOne | None
    width: Literal[250, 330, 500, 960]
    licences: bool
    retry: Literal["none", "failed"]


class Encode(Block):
    batch_size: AtLeastOne
    device: str
    precision: Literal["auto", "float32", "bfloat16"]
    store_failure: Literal["stop", "continue"]
    executor: Literal["local", "ray"]
    ray_address: str


class Train(Block):
    device: str
    precision: Literal["auto", "float32", "bfloat16"]
    evaluate_every: AtLeastOne
    patience: Count
    checkpoint_every: Count
    processes: AtLeastOne
    dev_sample: AtLeastOne | None
    train_on: Literal["train", "train+dev"]


class Evaluate(Block):
    memory: AtLeastOne
    reference_protocol: Literal["adamf_mat", "momok", "mygo"] | None


class Studies(Block):
    seeds: AtLeastOne
    shares: Annotated[list[Share], Field(min_length=1)]
    noise: Annotated[list[Annotated[float, Field(ge=0)]], Field(min_length=1)]
    experts: AtLeastOne
    tokens: Annotated[list[AtLeastOne], Field(min_length=1)]
    pictures: Annotated[list[AtLeastOne], Field(min_length=1)]
    text_encoders: Annotated[list[str], Field(min_length=1)]
    image_encoders: Annotated[list[str], Field(min_length=1)]


class Params(BaseModel):
    """All of params.yaml except the models' blocks, which stay as they are read (`models_blocks`)."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    graphs: Annotated[list[str], Field(min_length=1)]
    models: list[str]
    seed: Count
    sources: Sources
    web: Web
    store: str | None
    graph: Annotated[dict[str, Graph], Named]
    text: Text
    images: Images
    encoders: dict[str, dict]
    encode: Encode
    train: Train
    evaluate: Evaluate
    studies: Studies
    model_blocks: Annotated[dict[str, Annotated[dict[str, dict], Named]], Named]


def load_params(path: Path = PATH) -> Params:
    """Read and check params.yaml.

    Raises UserError naming the key, its line and the nearest known key if anything in it cannot be used.
    """
    values, lines = _read(path)
    known = set(Params.model_fields) - {"model_blocks"}
    blocks = {
        name: block
        for name, block in values.items()
        if name not in known and isinstance(block, dict) and "common" in block
    }
    rest = {name: value for name, value in values.items() if name not in blocks}
    try:
        params = Params(**rest, model_blocks=blocks)
    except ValidationError as error:
        raise UserError(_sentence(path, error, lines, values)) from error
    _check_names(path, params, lines)
    return params


def model_settings(params: Params, model: str, graph: str, settings: type, path: Path = PATH) -> object:
    """The settings of `model` on `graph`: its block's `common`, overridden by the graph's own block.

    `settings` is the trainer's frozen dataclass of hyperparameters. Raises UserError like load_params.
    """
    block = params.model_blocks[model]
    merged: dict[str, object] = {}
    known = [field.name for field in fields(settings)]
    adapter = TypeAdapter(settings)
    for part in ("common", graph):
        for key, value in (block[part] or {}).items():
            if key not in known:
                where = f"{path}, line {line_of((model, part, key), path)}: "
                raise UserError(where + _unknown(key, f"{model}.{part}", known))
            merged[key] = value

    def refusal(key: str, reason: str) -> UserError:
        part = graph if key in (block[graph] or {}) else "common"
        line = line_of((model, part, key), path)
        return UserError(f"{path}, line {line}: {model}.{part}.{key} cannot be {merged.get(key)!r}: {reason}.")

    try:
        found = adapter.validate_json(json.dumps(merged), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        raise refusal(str(first["loc"][0]) if first["loc"] else "common", _reason(first)) from error
    for key in merged:
        if reason := _out_of_range(key, getattr(found, key)):
            raise refusal(key, reason)
    return found


def _out_of_range(key: str, value: object) -> str | None:
    """Why a hyperparameter cannot have this value, by what all models mean by its name; None if it can."""
    for number in value if isinstance(value, tuple) else (value,):
        if isinstance(number, bool) or not isinstance(number, int | float):
            continue
        if not math.isfinite(number) or number < 0:
            return "input should be a finite number of at least 0"
        if key in _AT_LEAST_ONE and number < 1:
            return "input should be at least 1"
        if "dropout" in key and number >= 1:
            return "input should be below 1"
    return None


def line_of(key: Sequence[str | int], path: Path = PATH) -> int:
    """The line (from 1) on which a key stands; that of its nearest enclosing key if it stands nowhere."""
    return _line(_read(path)[1], key)


def _read(path: Path) -> tuple[dict, object]:
    """The values as plain Python, and the tree that knows the lines."""
    try:
        text = path.read_text(encoding="utf-8")
        values, lines = YAML(typ="safe").load(text), YAML(typ="rt").load(text)
    except FileNotFoundError as error:
        raise UserError(f"{path} is not there; run from the project's folder.") from error
    except RecursionError as error:
        raise UserError(f"{path} nests its keys too deep to be read; take the project's own and edit it.") from error
    except (YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise UserError(f"{path}{where}: this is no YAML ({_problem(error)}).") from error
    _refuse_bomb(path, values)
    if not isinstance(values, dict):
        raise UserError(f"{path} holds no keys; take the project's own params.yaml and edit it.")
    return values, lines


def _refuse_bomb(path: Path, values: object) -> None:
    """A few lines of aliases of aliases stand for more values than any memory holds, or for endlessly many."""
    waiting, seen = [values], 0
    while waiting:
        one = waiting.pop()
        seen += 1
        if seen > _MOST_VALUES:
            raise UserError(f"{path} stands for over {_MOST_VALUES:,} values; write out what its aliases (*) repeat.")
        waiting.extend(one.values() if isinstance(one, dict) else one if isinstance(one, list) else ())


def _problem(error: Exception) -> str:
    """What the reader of YAML says, on one line."""
    return " ".join(str(getattr(error, "problem", None) or error).split())


def _line(lines: object, key: Sequence[str | int]) -> int:
    """Walk down as far as the key exists and keep the last line seen."""
    line = 1
    for part in key:
        try:
            position = lines.lc.item(part) if isinstance(part, int) else lines.lc.key(part)
            line, lines = position[0] + 1, lines[part]
        except (KeyError, IndexError, AttributeError, TypeError):
            break
    return line


def _sentence(path: Path, error: ValidationError, lines: object, values: dict) -> str:
    """The first of pydantic's complaints as one sentence with the place to look at."""
    first = min(error.errors(), key=lambda one: (one["type"] != "extra_forbidden", one["loc"]))
    loc = tuple(first["loc"])
    if loc[0] == "model_blocks":  # which no key of the file is called
        loc = loc[1:]
    where = f"{path}, line {_line(lines, loc)}: "
    name = ".".join(map(str, loc))
    if first["type"] == "extra_forbidden":
        return where + _unknown(str(loc[-1]), ".".join(map(str, loc[:-1])), _known_keys(loc[:-1]))
    if first["type"] == "missing":
        return f"{where}the key {name} is missing; the project's own params.yaml shows what it may be."
    return f"{where}{name} cannot be {reprlib.repr(first['input'])}: {_reason(first)}."


def _known_keys(loc: Sequence[str | int]) -> list[str]:
    """The keys that the schema knows at this place."""
    block: type[BaseModel] = Params
    for part in loc:
        annotation = block.model_fields[part].annotation if part in block.model_fields else None
        inner = [kind for kind in getattr(annotation, "__args__", ()) if isinstance(kind, type)]
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            block = annotation
        elif inner and issubclass(inner[-1], BaseModel):
            block = inner[-1]  # dict[str, Block]: the next part is a name, which keeps the block
    return [name for name in block.model_fields if name != "model_blocks"]


def _unknown(key: str, block: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"known there: {', '.join(known)}."
    return f"unknown key {key!r}{f' in {block}' if block else ''}; {hint}"


def _reason(complaint: dict) -> str:
    message = complaint["msg"]
    return message[0].lower() + message[1:]


def _check_names(path: Path, params: Params, lines: object) -> None:
    """Names that must be blocks: each graph, each model with a block for each graph, each encoder."""

    def require(name: str, known: Sequence[str], key: Sequence[str | int], what: str) -> None:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known) or 'none'}."
            raise UserError(f"{path}, line {_line(lines, key)}: there is no {what} {name!r}; {hint}")

    for place, graph in enumerate(params.graphs):
        require(graph, list(params.graph), ("graphs", place), "block under `graph:` for")
    for place, model in enumerate(params.models):
        require(model, list(params.model_blocks), ("models", place), "block for the model")
        for graph in params.graphs:
            if graph not in params.model_blocks[model]:
                raise UserError(
                    f"{path}, line {_line(lines, (model,))}: {model} has no block for the graph {graph!r}; "
                    f"add `{graph}: {{}}` under `{model}:`, or what differs there."
                )
    require(params.text.encoder, list(params.encoders), ("text", "encoder"), "block under `encoders:` for")
    require(params.images.encoder, list(params.encoders), ("images", "encoder"), "block under `encoders:` for")
    for key in ("text_encoders", "image_encoders"):
        for place, name in enumerate(getattr(params.studies, key)):
            require(name, list(params.encoders), ("studies", key, place), "block under `encoders:` for")
