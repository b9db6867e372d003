"""The settings of a model on a graph: its blocks in configs/models/ against the `Settings` of its trainer."""

from typing import Any

from pipeline.settings import Misfit, build
from stages.params import Params
from trainers.about import module_of


def model_settings(params: Params, model: str, graph: str) -> Any:
    """The trainer's `Settings` of `model` on `graph`: `common` of its file, overridden by the graph's own block.

    Raises UserError naming file, line and key if something in the two blocks cannot be used.
    """
    blocks = params.model_blocks[model]
    own = blocks.get(graph, {})
    try:
        found = build(module_of(model).Settings, {**blocks["common"], **own})
        _within_limits(found)
        return found
    except Misfit as found:
        part = graph if found.loc and found.loc[0] in own else "common"
        raise params.model_blocks.file(model).misfit(found, part) from found


# Hyperparameters that count something without which there is no model.
_AT_LEAST_ONE = frozenset(
    ("epochs", "batch_size", "negatives", "dimension", "relation_dimension", "hidden_dimension", "heads", "experts")
)


def _within_limits(settings: Any) -> None:
    """Raise Misfit for a hyperparameter that cannot have its value, by what all models mean by its name."""
    for key, value in vars(settings).items():
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, bool) or not isinstance(number, int | float):
                continue
            least = 1 if key in _AT_LEAST_ONE else 0
            if number < least:
                raise Misfit([key], f"cannot be {number}", f"input should be greater than or equal to {least}.")
            if "dropout" in key and number >= 1:
                raise Misfit([key], f"cannot be {number}", "input should be less than 1.")
