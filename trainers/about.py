"""What a model says about itself, and which models there are: one per file of trainers/models/, named as the file is.

A model is there when its file is. What the file holds is said by `ModelModule`; what others need to know of the model
(the report, the studies, the tests) it says of itself in `ABOUT`. Names are known without importing a model, and so
without importing torch.
"""

import difflib
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, cast

from pipeline.errors import UserError

MODELS = tuple(
    sorted(path.stem for path in (Path(__file__).parent / "models").glob("*.py") if not path.stem.startswith("_"))
)


Ties = Literal["ahead", "lot", "half"]
Choice = Literal["last", "each metric's best on test", "best MRR on test"]


@dataclass(frozen=True)
class PaperProtocol:
    """The way in which the code of a paper's authors measures. Each model's file holds that of its own paper."""

    name: str  # of the model
    ties: Ties
    choice: Choice
    evaluate_every: int | None  # epochs between two looks at test; None: only after the last
    nan_first: bool  # its comparisons count nothing above a NaN
    words: str
    epochs: int  # that the paper trains
    encoders: str  # that the paper uses

    @property
    def split(self) -> str:
        """The split it was run on: `split: released` in the graph's file."""
        return "released"


@dataclass(frozen=True)
class About:
    """What a model says about itself."""

    name: str  # as its paper writes it
    papers: tuple[str, ...]  # keys of their entries in stages/report/citations.toml, its own first
    reads: tuple[Literal["features", "tokens"], ...] = ()  # of `modalities` in its Settings; (): the graph only
    protocol: PaperProtocol | None = None  # how the authors' code measures, where that code is known
    # What there is to see in a trained model, and the method that shows it: `modality_weights` of the fusion, `gates`
    # of the experts, `attention` on the tokens. None: nothing, and the case study is not for this model.
    explains: Literal["modality_weights", "gates", "attention"] | None = None
    # MRR on train above which it comes when it learns a tiny graph of three circles by heart (the contract test). Less
    # where its score cannot express them, 0 where it learns nothing by heart; the model says why.
    memorises: float = 0.8


class ModelModule(Protocol):
    """What a model's file holds."""

    __name__: str
    ABOUT: About
    Settings: type  # a frozen dataclass of hyperparameters
    Learner: Callable[..., Any]  # see trainers.training.learner.Learner

    def build(self, data: Any, settings: Any, generator: Any, /) -> Any:
        """The model on the CPU, an nn.Module with a method `scorer()`; its random start comes from `generator`."""


def module_of(model: str) -> ModelModule:
    """The module of a model. Raises UserError if there is no model of this name."""
    if model not in MODELS:
        near = difflib.get_close_matches(model, MODELS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(MODELS)}."
        raise UserError(f"There is no model {model!r}; {hint}")
    return cast(ModelModule, importlib.import_module(f"trainers.models.{model}"))


def about_model(model: str) -> About:
    """What a model says about itself. Raises UserError if there is no model of this name."""
    return module_of(model).ABOUT


def protocol_of(model: str) -> PaperProtocol:
    """How the code of this model's authors measures. Raises UserError if that is not known."""
    found = about_model(model).protocol
    if found is None:
        known = ", ".join(name for name in MODELS if about_model(name).protocol)
        raise UserError(f"How the authors of {model} measure is not known; known of: {known}.")
    return found
