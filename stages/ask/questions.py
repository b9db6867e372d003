"""Answers questions for the page: several runs of one graph, asked alike."""

import io
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from urllib.parse import urlencode

import numpy as np
import pandas as pd
import pyarrow.dataset as ds
import torch
from PIL import Image

from pipeline.errors import UserError
from pipeline.modalities import MODALITIES
from stages.ask.content import Answer, Asked, Column, Entity
from stages.ask.names import Plausible, TypeAhead
from stages.report.tables import display
from trainers.answers.ask import world_of
from trainers.answers.explain import Explanation
from trainers.training.runs import Run, load_run

BADGES = {"known_in_train": "known, train", "known_in_dev": "known, dev", "right_in_test": "right in test"}
LONGEST = 200  # characters of a description
MOST = 100  # answers of one model
_SIDE = 96  # pixels of a picture


@dataclass(frozen=True)
class Typed:
    """A question as it comes with an address."""

    entity: str
    relation: str
    side: str
    k: int
    hide: bool

    @classmethod
    def of(cls, query: Mapping[str, str]) -> "Typed":
        """What the address says, and what holds where it says nothing that can be used."""
        k = query.get("k", "")
        side = "head" if query.get("side") == "head" else "tail"
        number = min(MOST, max(1, int(k))) if k.isdecimal() and len(k) < 9 else 10
        return cls(query.get("entity", "").strip(), query.get("relation", "").strip(), side, number, "hide" in query)

    def kept(self) -> dict[str, str]:
        """What of the question the page's links carry on to the next one."""
        return {"side": self.side, "k": str(self.k)} | ({"hide": "yes"} if self.hide else {})


class Questions:
    """The runs of one graph and what is known of it. Threads may ask at once; they are answered one after another.

    Raises UserError if a run is missing or damaged, or was trained on another graph than the others.
    """

    def __init__(self, graph: Path, runs: list[Path]):
        self.folder = graph
        self.runs: dict[str, Run] = {path.name: load_run(path) for path in runs}
        worlds = [world_of(run, graph / "graph") for run in self.runs.values()]
        self.world = worlds[0]
        self.type_ahead, self.plausible = TypeAhead(self.world), Plausible(self.world)
        self.pictures = _Pictures(graph)
        self._lock = threading.Lock()

    def entity(self, entity: int) -> Entity:
        names = self.world.entities
        text = " ".join((names.description[entity] or "").split())
        shown = text if len(text) <= LONGEST else text[: LONGEST - 1].rsplit(" ", 1)[0] + " …"
        return Entity(entity, names.key[entity], names.label[entity], shown, entity in self.pictures)

    def ask(self, typed: Typed) -> Asked:
        """Each model's best answers, and how far they agree; with an error in a sentence if it is no question."""
        asked = Asked(typed.entity, typed.relation, typed.side, typed.k, typed.hide)
        try:
            known = self.world.entities.find(typed.entity) if typed.entity else None
            asked = replace(asked, offers=self.plausible(known, typed.side))
            if known is None:
                return asked
            asked = replace(asked, known=self.entity(known))
            if not typed.relation:
                return asked
            relation = self.world.relations.find(typed.relation)
        except UserError as error:
            return replace(asked, error=str(error))
        named = self.world.relations
        asked = replace(asked, relation_key=named.key[relation], relation_label=named.label[relation])
        tables = {model: self._answers(run, known, relation, typed) for model, run in self.runs.items()}
        count = Counter(key for table in tables.values() for key in table["key"])
        columns = [self._column(model, table, known, relation, typed, count) for model, table in tables.items()]
        return replace(asked, columns=columns, agreement=_agreement([set(table["key"]) for table in tables.values()]))

    def why(self, model: str, head: str, relation: str, tail: str, side: str) -> Explanation:
        """Why a model gives an answer. Raises UserError if there is no such model, name or side."""
        if model not in self.runs:
            raise UserError(f"There is no run of {model!r} here; there are {', '.join(self.runs)}.")
        with self._lock:
            return self.runs[model].explain(head, relation, tail, side=side, graph=self.folder / "graph")

    def _answers(self, run: Run, known: int, relation: int, typed: Typed) -> pd.DataFrame:
        names = self.world.entities.key[known], self.world.relations.key[relation]
        # Known answers stand anywhere, so as many more are asked for as there are.
        more = 0
        if typed.hide:
            query = torch.tensor([known]), torch.tensor([relation])
            more = sum(len(self.world.facts[one].answers(*query, typed.side)[1]) for one in ("train", "dev"))
        given = {"head" if typed.side == "tail" else "tail": names[0]}
        with self._lock:
            table = run.ask(relation=names[1], k=typed.k + more, graph=self.folder / "graph", **given)
        if typed.hide:
            table = table[~(table["known_in_train"] | table["known_in_dev"])]
        return table.head(typed.k)

    def _column(
        self, model: str, table: pd.DataFrame, known: int, relation: int, typed: Typed, count: Counter
    ) -> Column:
        names = self.world.entities
        answers = []
        for row in table.to_dict("records"):
            entity = names.find(row["key"])
            head, tail = (known, entity) if typed.side == "tail" else (entity, known)
            why = {"model": model, "head": names.key[head], "relation": self.world.relations.key[relation],
                   "tail": names.key[tail], **typed.kept()}  # fmt: skip
            probability = row.get("probability")
            answers.append(Answer(
                row["rank"], self.entity(entity), row["score"],
                None if probability is None or np.isnan(probability) else probability,
                [badge for flag, badge in BADGES.items() if row[flag]], count[row["key"]], f"/why?{urlencode(why)}",
            ))  # fmt: skip
        return Column(model, display(model), "probability" in table, answers)


def _agreement(found: list[set[str]]) -> float | None:
    """The mean share (Jaccard) of answers that two models have in common."""
    shares = [len(a & b) / max(1, len(a | b)) for a, b in combinations(found, 2)]
    return float(np.mean(shares)) if shares else None


class _Pictures:
    """Who has a picture, and the first one of each, made small; read when it is asked for."""

    def __init__(self, graph: Path):
        parts = [str(part) for part in MODALITIES["image"].files(graph)]
        self._dataset = ds.dataset(parts, format="parquet") if parts else None
        self._has: set[int] = set()
        if self._dataset is not None:
            there = self._dataset.to_table(columns=["entity_id"], filter=ds.field("bytes").is_valid())
            self._has = set(there["entity_id"].to_pylist())

    def __contains__(self, entity: int) -> bool:
        return entity in self._has

    def __getitem__(self, entity: int) -> bytes:
        """A WebP of the picture's middle: drawn anew, so that nothing of a file from outside reaches the page."""
        if entity not in self._has or self._dataset is None:
            raise KeyError(entity)
        wanted = (ds.field("entity_id") == entity) & ds.field("bytes").is_valid()
        rows = self._dataset.to_table(columns=["image_ix", "bytes"], filter=wanted).sort_by("image_ix")
        try:
            small = _middle(rows["bytes"][0].as_py())
        except (
            OSError,
            SyntaxError,
            ValueError,
            Image.DecompressionBombError,
        ) as error:  # no picture, whatever it says it is
            raise KeyError(entity) from error
        out = io.BytesIO()
        small.save(out, "WEBP", quality=70)
        return out.getvalue()


def _middle(data: bytes) -> Image.Image:
    """The square in a picture's middle, small. Only what the tables hold by their contract is opened: JPEG and PNG."""
    with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as image:
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        box = (left, top, left + side, top + side)
        return image.convert("RGB").resize((_SIDE, _SIDE), Image.Resampling.LANCZOS, box)
