"""What the check makes of configs/: every file checked, and the settings that hold written where DVC compares them.

data/.checked/graphs/<graph>.json              the graph's keys, those that its file leaves out too
data/.checked/settings/<graph>/<model>.json    the model's settings on this graph

The stages have these files as their params, so that a change runs again only the graphs and models for which it makes
a difference: a block for one graph trains no other, and `common` none that overrides the key.
"""

import itertools
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from pipeline import tables
from pipeline.encoding import encoders
from pipeline.errors import UserError
from pipeline.modalities import MODALITIES
from pipeline.wikimedia.client import check_contact
from stages.params import Params
from stages.params.encoders import encoder_settings
from stages.params.files import File
from stages.params.models import model_settings
from trainers.about import about_model, protocol_of

GRAPHS, SETTINGS = Path("data/.checked/graphs"), Path("data/.checked/settings")


def check(params: Params) -> None:
    """Check every file of models and encoders, also of those that are not chosen.

    Raises UserError naming file, line and key.
    """
    _check_contact(params)
    for name in params.encoders:
        encoder_settings(params, name)
    for way, name, kind in _chosen_encoders(params):
        reads = encoder_settings(params, name)[0].KIND
        if reads != kind:
            key = ".".join(map(str, way))
            said = f"{key} cannot be {name!r}: it encodes {reads}, not {kind}; choose another encoder."
            raise File(params.path).refusal(way, said)
        if hint := encoders.unpinned(params.encoders[name]):
            raise params.encoders.file(name).refusal(("revision",), hint)
    _check_captions(params)
    _check_what_models_read(params)
    if params.evaluate.reference_protocol is not None:
        try:
            protocol_of(params.evaluate.reference_protocol)
        except UserError as error:
            way = ("evaluate", "reference_protocol")
            raise File(params.path).refusal(way, f"{'.'.join(way)}: {error}") from error
    for place, model in enumerate(params.complete.models):
        if model not in params.models:
            said = f"complete.models: {model!r} is not among the `models` that are trained; add it there, or remove it."
            raise File(params.path).refusal(("complete", "models", place), said)
    for model, blocks in params.model_blocks.items():
        for graph in dict.fromkeys((*params.graphs, *blocks)):
            model_settings(params, model, graph)


def _check_contact(params: Params) -> None:
    """The crawl needs a contact; say so before anything is downloaded. Answers that are here ask nobody."""
    for graph in params.graphs:
        block = params.graph[graph]
        asks = block.images.source == "commons" or block.text.source in ("wikidata", "wikipedia")
        if asks and not (Path("data") / graph / "web").exists():
            try:
                check_contact(params.web.contact)
            except UserError as error:
                raise File(params.path).refusal(("web", "contact"), f"{graph}: {error}") from error


def _check_captions(params: Params) -> None:
    """A captioner of the hub needs a commit, as an encoder does."""
    block = params.text.captions
    if block.model and (hint := encoders.unpinned(block.model_dump())):
        raise File(params.path).refusal(("text", "captions", "revision"), f"text.captions: {hint}")


def _check_what_models_read(params: Params) -> None:
    """A model that reads tokens alone, or features alone, needs an encoder that gives them.

    What an encoder does not give would be missing for all entities, and the model trained without the modality.
    """
    for graph, model in itertools.product(params.graphs, params.models):
        reads = about_model(model).reads
        if reads and not hasattr(model_settings(params, model, graph), "modalities"):
            raise UserError(
                f"trainers/models/{model}.py reads {' and '.join(reads)} but its Settings have no `modalities`, which "
                "say of what; add modalities: tuple[Literal['structure', 'text', 'image'], ...]."
            )
        chosen = getattr(model_settings(params, model, graph), "modalities", ())
        for modality in (one for one in MODALITIES.values() if one.name in chosen and len(reads) == 1):
            block = getattr(params, modality.key, None)
            given = getattr(params.graph[graph].released, modality.name, None)
            if params.graph[graph].encoded == "released" and given is not None:
                _check_released(params, graph, model, modality.name, reads[0])
                continue
            source = getattr(getattr(params.graph[graph], modality.key, None), "source", None)
            if block is None or source == "none":  # nobody has one: the model is trained without it, and says so
                continue
            if reads[0] not in encoders.gives(*encoder_settings(params, block.encoder)):
                way = (modality.key, "encoder")
                said = f"it gives no {reads[0]}, which {model} reads of the {modality.plural} of {graph}"
                out = f"choose another, or take {modality.name} out of modalities in configs/models/{model}.yaml."
                raise File(params.path).refusal(way, f"{'.'.join(way)} cannot be {block.encoder!r}: {said}; {out}")


def _check_released(params: Params, graph: str, model: str, modality: str, reads: str) -> None:
    """Released files must be of the kind that a model reads."""
    given = getattr(params.graph[graph].released, modality)
    if getattr(given, reads) is None:
        make = "import the graph again with --tokens 8 (docs/your-own-graph.md)" if reads == "tokens" else "name some"
        raise params.graph.file(graph).refusal(
            ("released", modality),
            f"released.{modality} has no {reads}, which {model} reads; {make}, or take {modality} out of modalities in "
            f"configs/models/{model}.yaml.",
        )


def write(params: Params) -> None:
    """Write what holds for the chosen graphs and models, and remove what held for others."""
    files = {GRAPHS / f"{graph}.json": params.graph[graph].model_dump() for graph in params.graphs}
    files |= {
        SETTINGS / graph / f"{model}.json": asdict(model_settings(params, model, graph))
        for graph in params.graphs
        for model in params.models
    }
    for folder in (GRAPHS, SETTINGS):
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.rglob("*.json"):
            if path not in files:
                path.unlink()
    for path, values in files.items():
        tables.write_json(path, values)


def _chosen_encoders(params: Params) -> Iterator[tuple[tuple[str | int, ...], str, str]]:
    """Each place of params.yaml that names an encoder, the name, and what it must read."""
    for modality in MODALITIES.values():
        block = getattr(params, modality.key, None)
        if block is not None:
            yield (modality.key, "encoder"), block.encoder, modality.name
    for place, name in enumerate(params.studies.text_encoders):
        yield ("studies", "text_encoders", place), name, "text"
    for place, name in enumerate(params.studies.image_encoders):
        yield ("studies", "image_encoders", place), name, "image"
