"""Why a run gives an answer: `run.explain("Red Hot Chili Peppers", "band member", "Flea (musician)")`.

Four things are told as far as the model has them: where the answer stands, and where it would stand had nobody a text
or a picture; how much each modality, expert and token counts for the entities; the train facts nearest to this one; and
the rules, walks and neighbours of mosaic.
"""

import copy
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import UserError
from pipeline.graph.vocabulary import SPLITS
from trainers.about import about_model
from trainers.answers.ask import World, graph_of, world_of
from trainers.answers.calibration import log_shares, read_calibration
from trainers.answers.embeddings import compared
from trainers.parts.mosaic.explain import Words, reasons
from trainers.parts.replace_modality import replace_modality
from trainers.training import data
from trainers.training.runs import Run
from trainers.training.train import check_inputs

PARTS = ("structure", "image", "text")
_FACTS = 3  # of each kind that are told
_TOKENS = 8


@dataclass(frozen=True)
class Support:
    """A train fact like the one explained: it has the same relation and one of its entities; the other is like its own.

    `likeness` is the cosine of the two entities' vectors, from -1 to 1.
    """

    head: str
    relation: str
    tail: str
    likeness: float


@dataclass(frozen=True)
class Explanation:
    """All is by labels, but for the two entities in `weights` and `tokens`, which may share one: these are by their
    keys, and `labels` is key -> label. `rank` is from 1 among the `rivals` entities that are no known answer, `without`
    the same of a model whose entities all lack a modality. `weights` is what counts -> part -> share, `tokens` entity
    -> the tokens attended to most with their shares; `reasons` are sentences, of mosaic alone.
    """

    head: str
    relation: str
    tail: str
    side: str
    rank: int
    rivals: int
    score: float
    probability: float | None
    without: dict[str, int] = field(default_factory=dict)
    weights: dict[str, dict[str, float]] = field(default_factory=dict)
    tokens: dict[str, list[tuple[str, float]]] = field(default_factory=dict)
    facts: list[Support] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)
    known: list[str] = field(default_factory=list)  # train, dev: where the fact stands that is explained

    def named(self, what: str) -> str:
        """What `weights` or `tokens` are of, in words: an entity's label, with its key where both have the same."""
        shared = len(set(self.labels.values())) < len(self.labels)
        return f"{self.labels[what]} ({what})" if shared and what in self.labels else self.labels.get(what, what)

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def lines(self) -> list[str]:
        """The explanation in words, a sentence a line."""
        sure = "" if self.probability is None else f", probability {self.probability:.3f}"
        lines = [
            f"{self.head} · {self.relation} · {self.tail}: {self.rank:,} of {self.rivals:,} {self.side}s that are not "
            f"known, score {self.score:.3f}{sure}"
        ]
        lines += [f"a fact of {split}, which the run has learnt from or was chosen by" for split in self.known]
        lines += [f"without {name}: {rank:,}" for name, rank in self.without.items()]
        for entity, parts in self.weights.items():
            shares = ", ".join(f"{part} {share:.0%}" for part, share in parts.items())
            lines.append(f"{self.named(entity)}: {shares}")
        for entity, tokens in ((one, found) for one, found in self.tokens.items() if found):
            shares = ", ".join(f"{token} {share:.1%}" for token, share in tokens)
            lines.append(f"{self.named(entity)} attends to {shares}")
        for one in self.facts:
            lines.append(f"train: {one.head} · {one.relation} · {one.tail} (likeness {one.likeness:.2f})")
        return lines + self.reasons


@dataclass(frozen=True)
class _Fact:
    """Ids of the fact that is explained."""

    head: int
    relation: int
    tail: int
    side: str

    @property
    def known(self) -> int:
        return self.head if self.side == "tail" else self.tail

    @property
    def answer(self) -> int:
        return self.tail if self.side == "tail" else self.head

    def query(self) -> tuple[Tensor, Tensor, str]:
        return torch.tensor([self.known]), torch.tensor([self.relation]), self.side


def explain(
    run: Run, head: str, relation: str, tail: str, *, side: str = "tail", graph: str | Path | None = None
) -> Explanation:
    """Why `run` gives this answer, the `side` of the fact (head, relation, tail) that is asked for.

    Names are keys, labels or aliases, as in `run.ask`. Raises UserError if one is unknown or means several, for another
    side, or if the tables are missing or others than those that the run was trained on.
    """
    if side not in ("head", "tail"):
        raise UserError(f"The side of an answer is 'head' or 'tail', and not {side!r}.")
    world = world_of(run, graph)
    folder = Path(graph) if graph is not None else graph_of(run)
    fact = _Fact(world.entities.find(head), world.relations.find(relation), world.entities.find(tail), side)
    scores = run.score(*fact.query()).cpu()
    rivals = _rivals(world, fact)
    calibration = read_calibration(run.path, run.about).get(side)
    probability = None
    known = [split for split in ("train", "dev") if fact.answer in world.facts[split].answers(*fact.query())[1]]
    if calibration is not None and not known:
        open_to = _rivals(world, fact, ("train", "dev"))  # as it was calibrated, and as `ask` answers
        shares = log_shares(scores, open_to[None], calibration.temperature)
        probability = float(calibration.probability(shares[0, fact.answer]))
    label, named, key = world.entities.label, world.relations.label, world.entities.key
    weights, tokens = _counted(run, fact, key)
    return Explanation(
        label[fact.head], named[fact.relation], label[fact.tail], side,
        rank=_rank(scores[0], rivals, fact.answer), rivals=int(rivals.sum()),
        score=float(scores[0, fact.answer]), probability=probability,
        without={name: _rank(one(*fact.query())[0].cpu(), rivals, fact.answer)
                 for name, one in _without(run, folder).items()},
        weights=weights, tokens=tokens, facts=_supports(run, world, fact),
        reasons=_reasons(run.model, fact, world), labels={key[one]: label[one] for one in (fact.head, fact.tail)},
        known=known,
    )  # fmt: skip


def _rivals(world: World, fact: _Fact, splits: Iterable[str] = SPLITS) -> Tensor:
    """(E,) bool: the entities that are no known answer in `splits`, and the answer itself."""
    rivals = torch.ones(len(world.entities.key), dtype=torch.bool)
    for split in splits:
        rivals[world.facts[split].answers(*fact.query())[1]] = False
    rivals[fact.answer] = True
    return rivals


def _rank(scores: Tensor, rivals: Tensor, answer: int) -> int:
    return int((scores[rivals] > scores[answer]).sum()) + 1


# ------------------------------------------------------------------------------------------- without a modality
_kept: dict[tuple[Path, str], dict[str, Any]] = {}  # of the run asked last: models without a modality are large


def _without(run: Run, folder: Path) -> dict[str, Any]:
    """By modality, what scores as the run would if no entity had it; empty for a model that holds none."""
    key = (run.path.resolve(), str(run.about.get("fingerprint")))
    if key not in _kept:
        found = _emptied(run, folder)
        _kept.clear()
        _kept[key] = found
    return _kept[key]


def _emptied(run: Run, folder: Path) -> dict[str, Any]:
    reads = about_model(run.about["model"]).reads
    names = sorted({path.rpartition(".")[2] for path, part in run.model.named_modules()
                    if hasattr(part, "replace_modality")})  # fmt: skip
    if not names or len(reads) != 1:
        return {}
    kind = str(reads[0])
    check_inputs(run.path, run.about, folder)
    given: dict[str, Any] = {kind: names}
    before = data.load(folder, folder.parent / "encoded", name=run.about["graph"], **given)
    found = {}
    for name in names:
        tables = getattr(before, kind)
        changed: dict[str, Any] = {kind: {**tables, name: _empty(tables[name])}}
        model: Any = replace_modality(copy.deepcopy(run.model), before, replace(before, **changed), kind)
        found[name] = model.eval().scorer()
    return found


def _empty(table: Any) -> Any:
    """Features or tokens of nobody."""
    if isinstance(table, data.Features):
        return data.Features(table.entity[:0], table.matrix[:0])
    return replace(table, entity=table.entity[:0], offsets=table.offsets[:1], values=table.values[:0])


# --------------------------------------------------------------------------------------------- what counts
_Shares = dict[str, dict[str, float]]
_Attended = dict[str, list[tuple[str, float]]]


def _counted(run: Run, fact: _Fact, key: list[str]) -> tuple[_Shares, _Attended]:
    """How much each part counts, and each token, by what the model says that there is to see in it."""
    model: Any = run.model
    shows = about_model(run.about["model"]).explains
    ends = list(dict.fromkeys((fact.head, fact.tail)))
    if shows == "gates":
        return _of_experts(model, fact, key), {}
    if shows == "attention":
        part = np.array(_places(model))
        attention = dict(zip(ends, model.attention(torch.tensor(ends)).cpu().numpy(), strict=True))
        shares = {key[one]: {name: float(attention[one][part == name].sum()) for name in dict.fromkeys(part.tolist())}
                  for one in ends}  # fmt: skip
        return shares, {key[one]: _attended(attention[one], part, list(model.tokens)) for one in ends}
    if shows == "modality_weights":
        weights = zip(ends, model.modality_weights(torch.tensor(ends)), strict=True)
        return {key[one]: {name: float(weight) for name, weight in zip(PARTS, row, strict=True)}
                for one, row in weights}, {}  # fmt: skip
    return {}, {}


def _of_experts(model: Any, fact: _Fact, key: list[str]) -> _Shares:
    """MoMoK: the fusion's weights of the known entity under the relation, and the gates of each modality's experts."""
    known, relation, _ = fact.query()
    directed = relation + (model.relations if fact.side == "head" else 0)
    found = {}
    if len(model.tables) > 1:
        weights = model.modality_weights(known, directed)[0].mean(0)
        found[key[fact.known]] = {name: float(one) for name, one in zip(model.tables, weights, strict=True)}
    for name, gates in model.gates(directed, known).items():
        found[f"experts of {name}"] = {str(at + 1): float(one) for at, one in enumerate(gates[0])}
    return found


def _places(model: Any) -> list[str]:
    """The part that each place of MyGO's sequence belongs to."""
    part = ["[ENT]"] + (["structure"] if model.has_structure else [])
    for name, embedding in model.tokens.items():
        part += [name] * embedding.index.shape[1]
    return part


def _attended(attention: np.ndarray, part: np.ndarray, modalities: list[str]) -> list[tuple[str, float]]:
    """MyGO: the tokens that an [ENT] attends to most, of its attention (T,) and the parts (T,) of its places."""
    first = {name: int((part == name).argmax()) for name in modalities}
    row = np.where(np.isin(part, modalities), attention, 0.0)
    order = [int(at) for at in np.argsort(-row, kind="stable")[:_TOKENS] if row[at] > 0]
    return [(f"{part[at]} token {at - first[str(part[at])] + 1}", float(row[at])) for at in order]


# ----------------------------------------------------------------------------------------- facts that speak for it
def _supports(run: Run, world: World, fact: _Fact) -> list[Support]:
    """Train facts (like, relation, tail) and (head, relation, like), the most alike of each."""
    vector = compared(run, len(world.entities.key))
    if vector is None:
        return []
    label, named = world.entities.label, world.relations.label[fact.relation]
    found = []
    for side, shared, own in (("head", fact.tail, fact.head), ("tail", fact.head, fact.tail)):
        _, others = world.facts["train"].answers(torch.tensor([shared]), torch.tensor([fact.relation]), side)
        others = others[others != own]
        likeness = _unit(vector[others.numpy()]) @ _unit(vector[[own]])[0]
        for at in np.argsort(-likeness, kind="stable")[:_FACTS]:
            other = label[int(others[at])]
            ends = (other, label[fact.tail]) if side == "head" else (label[fact.head], other)
            found.append(Support(ends[0], named, ends[1], float(likeness[at])))
    return sorted(found, key=lambda one: -one.likeness)


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def _reasons(model: Any, fact: _Fact, world: World) -> list[str]:
    """Mosaic: what each kind of evidence adds to the score above the mean entity's, then the evidence itself."""
    if not hasattr(model, "contributions"):
        return []
    number, named = len(world.relations.label), world.relations.label
    directed = fact.relation + (number if fact.side == "head" else 0)
    worth = sorted(model.contributions(fact.known, directed, fact.answer).items(), key=lambda one: -abs(one[1]))
    words = Words(
        world.entities.label.__getitem__, lambda one: named[one % number] + (" (backwards)" if one >= number else "")
    )
    lines = [f"{value:+8.2f}  {name}" for name, value in worth]
    for one in reasons(model.evidence(), fact.known, directed, fact.answer, words):
        lines.append(f"{one.kind}{'' if one.sure is None else f' {one.sure:.2f}'}: {one.says}")
    return lines
