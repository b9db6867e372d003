"""What the templates are given: plain values, one class per kind of thing that the page shows.

Never dicts: a template that asks a dict for `.clear` or `.items` gets the dict's method of that name, without a word.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from markupsafe import Markup

from stages.report.inputs import Graph, Run
from stages.report.verdict import Difference

Leak = Literal["yes", "no", "note"]


@dataclass(frozen=True)
class Finding:
    """One sentence on a graph's files, and whether it speaks of a leak."""

    text: str
    leak: Leak


@dataclass(frozen=True)
class Counts:
    """What the page shows of an audit: rows of each split, as released and in use, and degrees of entities in train."""

    split: str
    entities: int
    relations: int
    used: dict[str, int]
    released: dict[str, int]
    degree: dict[str, float]  # "median", "one in twenty", "most"; empty where there is no entity


@dataclass(frozen=True)
class Published:
    """A published row. `figures`: metrics in percent as printed, None where not printed."""

    model: str
    graph: str
    printed_in: str
    figures: dict[str, float | None]


@dataclass(frozen=True)
class Cell:
    """One metric of one run as the page shows it; the optional lines are empty where there is nothing to say."""

    metric: str
    heading: str
    text: str
    clear: bool = False  # better than every other run, by the paired test
    interval: str = ""
    as_the_paper: str = ""
    published: str = ""


@dataclass(frozen=True)
class Measured:
    """How a paper's own code measured this training: `reported` is metric -> fraction."""

    name: str
    words: str
    reported: dict[str, float]


@dataclass(frozen=True)
class Result:
    """One run's row of the results table; `low`, `high` bound the interval of its MRR."""

    run: Run
    label: str
    place: int
    mrr: float
    low: float
    high: float
    cells: list[Cell]
    published: Published | None
    marks: list[str]
    measured: Measured | None
    against: Difference | None  # None: this is the best


@dataclass(frozen=True)
class Results:
    """The results of one graph: a row per run, the lettered reasons, published rows of models that were not run.

    Rows are by MRR, the best first. `sentence` says who is best; `facts` are terms and what they are of these runs.
    """

    sentence: str
    facts: list[tuple[str, str]]
    headings: list[str]
    rows: list[Result]
    reasons: list[tuple[str, str]]
    published_headings: list[str]
    others: list[tuple[Published, list[str]]]

    @property
    def best(self) -> Result:
        """The run of the highest MRR."""
        return max(self.rows, key=lambda row: row.mrr)

    @property
    def measured(self) -> list[Measured]:
        """The papers' ways of measuring that were asked for, each once."""
        return list({row.measured.name: row.measured for row in self.rows if row.measured}.values())


@dataclass(frozen=True)
class Missing:
    """How many entities have one outcome of looking for a text, a picture."""

    what: str
    status: str
    entities: int
    share: float


@dataclass(frozen=True)
class Lead:
    """Which model is best in a cell, by how much, and whether a paired bootstrap bears the lead out."""

    place: int
    lead: float
    clear: bool


@dataclass(frozen=True)
class Column:
    """A column of `Wins`: what the entity has in words, and in letters."""

    label: str
    short: str


@dataclass(frozen=True)
class Wins:
    """Test MRR by relation category × coverage of the known entity or of the answer (`end`).

    `cells` (models, rows, columns) is NaN where there are few queries; `queries` (rows, columns); `best` (rows,
    columns) is None where there are few queries or one model only.
    """

    end: str
    rows: tuple[str, ...]
    columns: tuple[Column, ...]
    cells: np.ndarray
    queries: np.ndarray
    best: list[list[Lead | None]]


@dataclass(frozen=True)
class GroupRow:
    """One group of queries and the MRR that each model has there, None where there are few queries."""

    what: str
    value: str
    queries: int
    mrr: list[float | None]


@dataclass(frozen=True)
class Citation:
    """One entry of citations.toml as the page shows it."""

    key: str
    title: str
    author: str
    where: str
    year: int
    eprint: str
    bibtex: str


@dataclass(frozen=True)
class Entity:
    """An entity as queries and answers show it; `link` is its address, empty where its key is none."""

    id: int
    label: str
    description: str
    link: str


@dataclass(frozen=True)
class Answer:
    """One of a model's answers: whether test says that it is right, whether it is the one asked for, its place among
    the answers that are not known from train and dev, and its score."""

    entity: Entity
    right: bool
    asked: bool
    place: int
    score: float


@dataclass(frozen=True)
class Answers:
    """One model's best answers to one query; `rank` is the evaluator's of the asked one, None if it was not ranked."""

    model: str
    rank: float | None
    best: list[Answer]


@dataclass(frozen=True)
class Query:
    """One test query, the kind of example that it is, the side that it asks for, and what each model answers."""

    kind: str
    side: str
    relation: str
    known: Entity
    answer: Entity
    models: list[Answers]


@dataclass(frozen=True)
class MissingFact:
    """A fact that a model holds for probable and the graph does not have."""

    head: str
    relation: str
    tail: str
    probability: float | None


@dataclass(frozen=True)
class Completed:
    """What the page shows of one model's completions; `errors` are the calibration errors by the side asked for."""

    model: str
    number: int
    errors: dict[str, float]
    chosen: int
    of_test: int
    precision: float | None
    best: list[MissingFact]


@dataclass(frozen=True)
class Study:
    """A study that was run: its figures as SVG, its pictures as data URIs, its table as text."""

    title: str
    protocol: str
    header: list[str]
    rows: list[list[str]]
    figures: list[Markup]
    pictures: list[str]


@dataclass(frozen=True)
class Curve:
    """A figure of one model (empty: of all), and what the terms in it mean."""

    figure: Markup
    model: str
    terms: list[tuple[str, str]]


@dataclass(frozen=True)
class Trained:
    """What the page shows of one graph's runs."""

    results: Results
    figure: Markup
    differences: Markup
    curves: list[Curve]
    wins: list[Wins]
    heat: list[Curve]
    by_group: list[GroupRow]
    completed: list[Completed]
    reliability: Markup
    queries: list[Query]
    kinds: list[tuple[str, int]]  # of example, by its rule in words, with the number of test queries of that kind
    thumbnails: dict[int, str]


@dataclass(frozen=True)
class Section:
    """All that the page shows of one graph; `trained` is None where no model was trained on it."""

    graph: Graph
    runs: list[Run]
    counts: Counts | None
    findings: list[Finding]
    coverage: Markup
    missing: list[Missing]
    fused: list[tuple[Entity, str, str]]  # entities that are two things, and the relations of the one and the other
    fused_table: str  # the same, all of it, as a data: URI of CSV
    trained: Trained | None
