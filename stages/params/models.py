"""The settings of a model on a graph: its blocks in configs/models/ against the `Settings` of its trainer."""

from typing import Any

from pipeline.settings import Misfit, build
from stages.params import Params
from trainers.about import module_of


def model_settings(params: Params, model: str, graph: str = "common") -> Any:
    """The trainer's `Settings` of `model` on `graph`: `common` of its file, overridden by the graph's own block.

    Without a graph, `common` alone.
    Raises UserError naming file, line and key if something in the two blocks cannot be used.
    """
    blocks = params.model_blocks[model]
    own = blocks.get(graph, {})
    try:
        return build(module_of(model).Settings, {**blocks["common"], **own})
    except Misfit as found:
        part = graph if found.loc and found.loc[0] in own else "common"
        raise params.model_blocks.file(model).misfit(found, part) from found
