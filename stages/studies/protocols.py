"""What each study does, in words and as a list of points. `STUDIES` is the one table of what `make study` knows.

A study of the data changes what is trained on or asked with (training/perturb.py); an ablation changes settings. What a
point does not change is as params.yaml has it. `docs/studies.md` says how to read the results.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch

from pipeline.errors import UserError
from pipeline.modalities import MODALITIES, used
from stages.params import Studies
from stages.studies.runs import Point
from trainers.about import module_of
from trainers.training.data import Data
from trainers.training.perturb import Change

FEATURES, TOKENS = ("features",), ("tokens",)
ANY = FEATURES + TOKENS


@dataclass(frozen=True)
class Subject:
    """What is studied: one model's settings on one graph, and the values that params.yaml gives the studies."""

    graph: str
    model: str
    settings: Any
    values: Studies
    data: Callable[[], Data]
    encode: Callable[[Mapping[str, str]], Path]  # modality -> encoder; gives a folder like data/<graph>/encoded

    @property
    def modalities(self) -> tuple[str, ...]:
        """Those that the settings read from tables."""
        return tuple(used(self.settings.modalities))


@dataclass(frozen=True)
class Study:
    """What is done, and with which models it can be done.

    `reads`: it is for the models that read one of these and nothing else; () for all. `setting`: of these, the ones
    with this hyperparameter. x, series and panel name columns; a numeric x makes lines, else dots.
    """

    title: str
    protocol: str
    points: Callable[[Subject], Sequence[Point]]
    reads: tuple[str, ...]
    x: str
    x_label: str
    series: str | None = None
    panel: str | None = None
    setting: str | None = None

    def fits(self, model: str) -> bool:
        """Whether the study can be done with this model."""
        module: Any = module_of(model)
        has = self.setting is None or self.setting in {field.name for field in fields(module.Settings)}
        return has and (not self.reads or module.ABOUT.reads in {(kind,) for kind in self.reads})


def missing(of: Subject) -> list[Point]:
    """What is taken × when × share. The whole is shared by all of them, and so are runs trained alike."""
    taken = [(name,) for name in of.modalities] + ([of.modalities] if len(of.modalities) > 1 else [])
    whens = {"at training": (True, False), "at test": (False, True), "at both": (True, True)}
    points = []
    for (when, (train, test)), which in itertools.product(whens.items(), taken):
        for share in _shares(of.values.shares):
            change = Change("missing", share, of=which)
            columns = {"when": when, "missing": " and ".join(which), "share_percent": _percent(share)}
            asked = change if test else None
            points.append(Point(columns, of.settings, change if train else None, asked, reference=share == 0))
    return points


def feature_noise(of: Subject) -> list[Point]:
    return _degrees(of, "feature_noise", of.values.noise, "sigma", lambda sigma: sigma)


def token_noise(of: Subject) -> list[Point]:
    return _degrees(of, "token_noise", of.values.shares, "share_percent", _percent)


def wrong_pictures(of: Subject) -> list[Point]:
    if "image" not in of.modalities:
        raise UserError(
            f"{of.model} on {of.graph} uses no pictures; add image to modalities in configs/models/{of.model}.yaml."
        )
    points = []
    for share in _shares(of.values.shares):
        change = Change("swapped", share, of=("image",))
        columns = {"share_percent": _percent(share)}
        points.append(Point(columns, of.settings, change, change, reference=share == 0))
    return points


def wrong_links(of: Subject) -> list[Point]:
    return _links(of, "wrong_links", of.values.shares)


def sparse_links(of: Subject) -> list[Point]:
    return _links(of, "fewer_links", [share for share in of.values.shares if share < 1])


def modalities(of: Subject) -> list[Point]:
    """All subsets that are not empty, small ones first."""
    every = tuple(name for name in ("structure", *MODALITIES) if name in of.settings.modalities)
    subsets = [some for size in range(1, len(every) + 1) for some in itertools.combinations(every, size)]
    return [
        Point({"modalities": " + ".join(some)}, replace(of.settings, modalities=some), reference=some == every)
        for some in subsets
    ]


def adversary(of: Subject) -> list[Point]:
    return _with_and_without(of, "adversarial_weight", 0.1, "adversaries")


def _with_and_without(of: Subject, key: str, usual: float, what: str) -> list[Point]:
    """A term of the loss at its weight, or at the usual one where the settings switch it off; and without it."""
    weight = getattr(of.settings, key) or usual
    return [
        Point({"training": f"with {what} (μ = {weight:g})"}, replace(of.settings, **{key: weight}), reference=True),
        Point({"training": "without (μ = 0)"}, replace(of.settings, **{key: 0.0})),
    ]


def experts(of: Subject) -> list[Point]:
    """1 … n experts, with and without mutual information; with one expert there is none, so both begin alike."""
    given = of.settings.information_weight or 1e-4
    points = []
    most = max(of.values.experts, of.settings.experts)
    for term, weight in ((f"with mutual information (μ = {given:g})", given), ("without (μ = 0)", 0.0)):
        for number in range(1, most + 1):
            settings = replace(of.settings, experts=number, information_weight=weight if number > 1 else 0.0)
            points.append(Point({"term": term, "experts": number}, settings, reference=settings == of.settings))
    return points


def tokens(of: Subject) -> list[Point]:
    """Each modality's number in turn, the other's as in params.yaml."""
    points = []
    for name in of.modalities:
        key = f"{name}_tokens"
        # The reference's view of the text leaves its last token out, so there must be two.
        drops = name == "text" and of.settings.contrastive_weight and of.settings.contrastive_text_view == "reference"
        numbers = sorted({*of.values.tokens, getattr(of.settings, key)})
        for number in (number for number in numbers if number > bool(drops)):
            settings = replace(of.settings, **{key: number})
            points.append(Point({"of": name, "tokens": number}, settings, reference=settings == of.settings))
    return points


def contrast(of: Subject) -> list[Point]:
    return _with_and_without(of, "contrastive_weight", 0.01, "contrast")


def pictures(of: Subject) -> list[Point]:
    """1, 2, 4, … pictures of an entity, up to the most that any has."""
    if "image" not in of.modalities:
        raise UserError(
            f"{of.model} on {of.graph} uses no pictures; add image to modalities in configs/models/{of.model}.yaml."
        )
    have = torch.unique(of.data().tokens["image"].entity, return_counts=True)[1]
    most = int(have.max()) if len(have) else 0
    if most < 2:
        raise UserError(
            f"No entity of {of.graph} has more than one picture, so there is nothing to leave out; take a graph that "
            "has, or raise images.per_entity."
        )
    points = []
    for number in sorted({number for number in of.values.pictures if number < most} | {most}):
        change = Change("first_pictures", number, of=("image",)) if number < most else None
        points.append(Point({"pictures": number}, of.settings, change, change, reference=number == most))
    return points


def encoders(of: Subject) -> list[Point]:
    """Every combination of one encoder per modality. A modality that the settings do not use has one row: none."""
    tried = {
        name: getattr(of.values, f"{name}_encoders", [modality.encoder]) if name in of.modalities else ["none"]
        for name, modality in MODALITIES.items()
    }
    first = tuple(names[0] for names in tried.values())
    points = []
    for some in itertools.product(*tried.values()):
        chosen = {name: encoder for name, encoder in zip(tried, some, strict=True) if encoder != "none"}
        columns = {f"{name}_encoder": encoder for name, encoder in zip(tried, some, strict=True)}
        points.append(Point(columns, of.settings, encoded=of.encode(chosen), reference=some == first))
    return points


def _degrees(of: Subject, name: str, strengths: Sequence[float], column: str, shown: Callable) -> list[Point]:
    """One change of the modalities, each alone and all together, in training and in test."""
    done_to = [(one,) for one in of.modalities] + ([of.modalities] if len(of.modalities) > 1 else [])
    points = []
    for which in done_to:
        for strength in _shares(strengths):
            change = Change(name, strength, of=which)
            columns = {"noise_on": " and ".join(which), column: shown(strength)}
            points.append(Point(columns, of.settings, change, change, reference=strength == 0))
    return points


def _links(of: Subject, name: str, shares: Sequence[float]) -> list[Point]:
    """A change of the train triples. What is asked with are modalities, which stay."""
    points = []
    for share in _shares(shares):
        change = Change(name, share)
        points.append(Point({"share_percent": _percent(share)}, of.settings, change, change, reference=share == 0))
    return points


def _shares(given: Sequence[float]) -> list[float]:
    """Ascending, with 0, which is the reference."""
    return sorted({0.0, *given})


def _percent(share: float) -> float:
    return round(100 * share, 6)


STUDIES = {
    "missing": Study(
        "Missing modality",
        "Text, image or both are taken away from a share of all entities, drawn by the seed and nested: who lacks them "
        "at 20 % lacks them at 40 %. At training: the model is trained without them and gets the encoders' own rows "
        "back at test. At test: it is trained with them, and at test each such row is what the model takes for a "
        "missing one. At both: they are never there.",
        missing, ANY, "share_percent", "entities without (%)", "missing", "when",
    ),
    "feature_noise": Study(
        "Noise on features",
        "Normal noise is added to every feature, before training; sigma is its standard deviation in units of each "
        "dimension's own deviation over the entities. One draw, scaled.",
        feature_noise, FEATURES, "sigma", "noise (deviations of the feature)", "noise_on",
    ),
    "token_noise": Study(
        "Noise on tokens",
        "A share of all tokens, drawn by the seed and nested, is replaced by other tokens of the codebook, before "
        "training.",
        token_noise, TOKENS, "share_percent", "tokens replaced (%)", "noise_on",
    ),
    "wrong_pictures": Study(
        "Wrong pictures",
        "A share of the entities with pictures, drawn by the seed and nested, pass theirs on in a circle, before "
        "training: each of them has another's. Nobody loses or gains coverage.",
        wrong_pictures, ANY, "share_percent", "entities with a wrong picture (%)",
    ),
    "wrong_links": Study(
        "Wrong links in train",
        "In a share of the train triples, drawn by the seed and nested, the head or the tail is replaced by a random "
        "entity, so that the result is a fact of no split. Dev, test and the filter stay.",
        wrong_links, (), "share_percent", "wrong train triples (%)",
    ),
    "sparse_links": Study(
        "Sparse links",
        "A share of the train triples, drawn by the seed and nested, is removed, but never the last one of an entity "
        "or of a relation; where that spares too many, fewer go (column train_triples). The filter still knows them.",
        sparse_links, (), "share_percent", "train triples removed (%)",
    ),
    "modalities": Study(
        "Modalities",
        "The model is trained with every subset of its modalities.",
        modalities, ANY, "modalities", "modalities",
    ),
    "adversary": Study(
        "Modality adversarial training",
        "The model with its adversaries and without (μ = 0); all else is the same.",
        adversary, FEATURES, "training", "training", setting="adversarial_weight",
    ),
    "experts": Study(
        "Experts",
        "The model with 1 … n experts a modality, with the mutual information between them in the loss and without. "
        "One expert is the control: neither a mixture nor mutual information.",
        experts, FEATURES, "experts", "experts a modality (number)", "term", setting="experts",
    ),
    "tokens": Study(
        "Tokens a modality",
        "The model with more and fewer tokens of one modality an entity, the most frequent first; the other modality's "
        "number is as the model's file says.",
        tokens, TOKENS, "tokens", "tokens an entity (number)", "of", setting="text_tokens",
    ),
    "contrast": Study(
        "Contrastive loss",
        "The model with its fine-grained contrastive loss and without (μ = 0); all else is the same.",
        contrast, TOKENS, "training", "training", setting="contrastive_weight",
    ),
    "pictures": Study(
        "Pictures an entity",
        "The model with the first n pictures of each entity, in the order of image_ix, from which its tokens are "
        "chosen.",
        pictures, TOKENS, "pictures", "pictures an entity, at most (number)",
    ),
    "encoders": Study(
        "Encoders",
        "Every text encoder with every picture encoder; all else is the same.",
        encoders, ANY, "text_encoder", "text encoder", "image_encoder",
    ),
}  # fmt: skip
