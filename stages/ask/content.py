"""What the pages show, as plain values: the same that their `.json` gives."""

from dataclasses import dataclass, field

from stages.ask.names import Offers


@dataclass(frozen=True)
class Entity:
    """An entity; `picture` says whether /picture/<id>.webp has one."""

    id: int
    key: str
    label: str
    description: str
    picture: bool


@dataclass(frozen=True)
class Answer:
    """One answer of one model. `badges` are of known, right; `models` how many of the models have it among theirs."""

    rank: int
    entity: Entity
    score: float
    probability: float | None
    badges: list[str]
    models: int
    why: str  # the address that tells why


@dataclass(frozen=True)
class Column:
    """One model's answers; `calibrated`: whether its scores have probabilities."""

    model: str
    name: str
    calibrated: bool
    answers: list[Answer]


@dataclass(frozen=True)
class Asked:
    """A question as it was typed, and as it was understood; no `columns` while something of it is missing or wrong.

    `agreement` is the mean share of answers that two models have in common, None for a single one.
    """

    entity: str
    relation: str
    side: str
    k: int
    hide: bool
    known: Entity | None = None
    relation_key: str = ""
    relation_label: str = ""
    error: str = ""
    columns: list[Column] = field(default_factory=list)
    agreement: float | None = None
    offers: Offers = field(default_factory=lambda: Offers([], []))
