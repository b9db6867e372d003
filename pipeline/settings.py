"""Plain values checked against what they are for: a `Settings` dataclass, or a block of pydantic's.

The fields say all: their types, and limits such as `AtLeastOne`. What one field cannot say (one value must divide the
other) stands in `__post_init__`, as a ValueError that names the keys.
"""

import dataclasses
import datetime
import difflib
import functools
import re
import reprlib
import typing
from collections.abc import Mapping, Sequence
from typing import Annotated, TypeVar

from annotated_types import Ge, Gt, Lt
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from pipeline.errors import UserError

Count = Annotated[int, Ge(0)]
AtLeastOne = Annotated[int, Ge(1)]
NotNegative = Annotated[float, Ge(0)]
Positive = Annotated[float, Gt(0)]
Dropout = Annotated[float, Ge(0), Lt(1)]  # a probability; 1 would leave nothing
# Of a model's page on the hub. A branch such as `main` moves on, and rows of two models would be taken for one's.
Commit = Annotated[str, Field(pattern="^[0-9a-f]{40}$")]

STRICT = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

B = TypeVar("B", bound=BaseModel)
T = TypeVar("T")


class Misfit(UserError):
    """A value that cannot be used. `loc` is the way to it; `said(block)` the complaint, with the block it is in."""

    def __init__(self, loc: Sequence[str | int], problem: str, hint: str):
        self.loc, self.problem, self.hint = tuple(loc), problem, hint
        super().__init__(self.said())

    def said(self, block: str = "") -> str:
        """ "unknown key 'x' in a.b; …", "the key a.b.x is missing; …" or "a.b.x cannot be 3: …"."""
        way = [block, *map(str, self.loc)] if block else list(map(str, self.loc))
        if self.problem == "unknown":
            inside = f" in {'.'.join(way[:-1])}" if way[:-1] else ""
            return f"unknown key {way[-1]!r}{inside}; {self.hint}"
        if self.problem == "missing":
            return f"the key {'.'.join(way)} is missing; {self.hint}"
        return f"{'.'.join(way)} {self.problem}: {self.hint}" if self.problem else self.hint


def check(block: type[B], values: Mapping[str, object]) -> B:
    """`values` as a `block`. Raises Misfit."""
    try:
        return block.model_validate(dict(values))
    except ValidationError as error:
        raise _misfit(error, block) from error


def build(kind: type[T], values: Mapping[str, object]) -> T:
    """`values` as an object of the dataclass `kind`; what is left out has the class's default. Raises Misfit."""
    given = {key: tuple(one) if isinstance(one, list) else one for key, one in values.items()}
    found = check(_block(kind), given)  # type: ignore[arg-type]  # any class can be hashed
    try:
        return kind(**{key: getattr(found, key) for key in values})
    except ValueError as error:
        named = [word for word in re.findall(r"\w+", str(error)) if word in values]
        raise Misfit(named[:1], "cannot be used" if named else "", f"{error}.") from error


@functools.cache
def _block(kind: type) -> type[BaseModel]:
    """What pydantic checks for a dataclass: its fields, whose defaults stay the dataclass's."""
    hints = typing.get_type_hints(kind, include_extras=True)
    given: dict[str, typing.Any] = {}
    for field in dataclasses.fields(kind):
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        given[field.name] = (hints[field.name], ... if required else None)
    return create_model(kind.__name__, __config__=STRICT, **given)


def nearest(name: str, known: Sequence[str], cutoff: float = 0.5) -> str:
    """ "did you mean 'x'?", or what is known if nothing is near."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=cutoff)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known) or 'none'}."


def shown(value: object) -> str:
    """A value as one word or two of a sentence."""
    if isinstance(value, datetime.date):  # a datetime is one, too
        return f"the date {value}"
    return "empty" if value is None else reprlib.repr(value)


def _misfit(error: ValidationError, block: type[BaseModel]) -> Misfit:
    """The first of pydantic's complaints; an unknown key goes first, since it is why another is missing."""
    complaints = error.errors()
    first = min(complaints, key=lambda one: one["type"] != "extra_forbidden")
    loc = _way(first["loc"], block)
    if first["type"] == "extra_forbidden":
        return Misfit(loc, "unknown", nearest(str(loc[-1]), known_keys(block, loc[:-1])))
    if first["type"] == "missing":
        return Misfit(loc, "missing", "give it a value.")
    if first["type"] == "value_error":  # of a block as a whole: it names the keys that contradict one another
        key = re.search(r"`([\w.]+)", first["msg"])
        return Misfit((*loc, *(key[1].split(".") if key else ())), "", f"{_reason(first)}.")
    same = [one for one in complaints if _way(one["loc"], block) == loc]
    reasons = list(dict.fromkeys(_reason(one) for one in same))
    hint = " or ".join(reasons)
    if any(one["type"] == "string_type" for one in same) and isinstance(first["input"], int | float | datetime.date):
        hint += ", so put it in quotes"
    return Misfit(loc, f"cannot be {shown(first['input'])}", f"{hint}.")


def _way(loc: Sequence[str | int], block: type[BaseModel]) -> tuple[str | int, ...]:
    """The keys of a complaint's place, without the names that pydantic gives to the members of a union."""
    annotation: object = block
    way: list[str | int] = []
    for part in loc:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            field = annotation.model_fields.get(str(part))
            annotation = _inner(field.annotation) if field else None
        elif isinstance(part, int) or typing.get_origin(annotation) is dict:
            annotation = _inner(typing.get_args(annotation)[-1]) if typing.get_args(annotation) else None
        else:
            break
        way.append(part)
    return tuple(way)


def _inner(annotation: object) -> object:
    """What stands in an annotation beside None, if that is one thing."""
    if typing.get_origin(annotation) is Annotated:
        return _inner(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (list, tuple, dict):
        return annotation
    rest = [one for one in typing.get_args(annotation) if one is not type(None)]
    return _inner(rest[0]) if len(rest) == 1 and typing.get_origin(annotation) is not typing.Literal else annotation


def known_keys(block: type[BaseModel], way: Sequence[str | int] = ()) -> list[str]:
    """The keys that `block` knows at this place."""
    here: object = block
    for part in way:
        if isinstance(here, type) and issubclass(here, BaseModel):
            here = _inner(here.model_fields[str(part)].annotation)
        else:
            here = _inner(typing.get_args(here)[-1])
    return list(here.model_fields) if isinstance(here, type) and issubclass(here, BaseModel) else []


def _reason(complaint: Mapping[str, typing.Any]) -> str:
    message = str(complaint["msg"]).removeprefix("Value error, ")
    return message[:1].lower() + message[1:]
