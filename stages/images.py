"""Pictures of a graph's entities: clean and bounded; one that could not be had is a row that says why."""

import logging
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import pyarrow as pa

from pipeline import tables
from pipeline.errors import UserError, counted
from pipeline.graph.matching import Names, match_files
from pipeline.modalities import drawings, pictures
from pipeline.modalities.archives import Archive, TooLarge, open_archive
from pipeline.modalities.drawings import draw, skipped
from pipeline.modalities.parts import NONE, Counts, Parts, absent, row
from pipeline.modalities.pictures import InvalidImage, Picture, clean, clean_many
from pipeline.versions import code_version
from pipeline.wikimedia import images
from pipeline.wikimedia.images import from_commons
from stages.cli import arguments, stage
from stages.params import Params, load_params
from stages.progress import Bar

log = logging.getLogger(__name__)


@stage
def main() -> None:
    graph = arguments(__doc__, "graph").parse_args().graph
    params = load_params()
    folder = Path("data") / graph
    source = params.graph[graph].images.source
    entities = tables.read(folder / "graph" / "entities.parquet", "entities").sort_by("entity_id")
    about: dict[str, object] = {"source": source}
    provenance = {
        "stage": "images", "source": source, "short_side": params.images.short_side, "quality": params.images.quality,
        "max_pixels": params.images.max_pixels, "code_version": code_version(pictures, drawings, images),
    }  # fmt: skip
    counts = Counts(entities.num_rows)
    pictured: set[int] = set()
    with Parts(folder / "images", provenance) as parts:
        rows = _rows(params, graph, folder, entities, about)
        for one in Bar(rows, unit=" pictures", desc=f"images {graph}"):
            parts.add(one)
            counts.add(one)
            pictured.add(one["entity_id"])
        for entity in [one for one in range(entities.num_rows) if one not in pictured]:
            one = absent(entity, 0, NONE, "the source has no picture of it")
            parts.add(one)
            counts.add(one)
    result = counts.result()
    tables.write_json(folder / "images.json", {**about, **result})
    log.info("%s: %s of %s entities have a picture", graph, f"{result['with_picture']:,}", f"{result['entities']:,}")


def _rows(params: Params, graph: str, folder: Path, entities: pa.Table, about: dict) -> Iterator[dict]:
    """The rows of one graph's pictures, from where params.yaml says; `about` receives what the source tells."""
    settings = params.graph[graph].images
    work = partial(
        clean, short_side=params.images.short_side, max_pixels=params.images.max_pixels, quality=params.images.quality
    )
    if settings.source == "none":
        return
    if settings.source == "drawings":
        yield from _drawn(folder, entities, work)
    elif settings.source == "folder":
        if settings.path is None:
            raise UserError(f"graph.{graph}.images.path is null; name a folder or archive of <entity>/<file>.")
        with open_archive(settings.path) as archive:
            yield from rows_of_archive(archive, settings.path, entities, work, params.images.per_entity, about)
    elif settings.source == "commons":
        keys = entities["key"].to_pylist()
        rows, told = from_commons(folder / "web", keys, work, params.images.width, params.images.per_entity)
        about |= told
        yield from rows


def _drawn(folder: Path, entities: pa.Table, work) -> Iterator[dict]:
    relations = tables.read(folder / "graph" / "relations.parquet", "relations")
    train = tables.read(folder / "graph" / "triples.parquet", "triples")
    drawings = draw(train, entities, relations, skipped(folder / "raw"))
    for entity, result in clean_many(drawings, work):
        yield row(entity, 0, "drawing", result)


def rows_of_archive(
    archive: Archive, path: str, entities: pa.Table, work, per_entity: int | None, about: dict
) -> Iterator[dict]:
    names = Names(entities["key"].to_pylist(), entities["label"].to_pylist())
    matched, places = match_files(archive.names, names)
    about |= {"path": path, "files": len(archive.names), "left_out": dict(archive.skipped), "names": matched.counts()}
    if archive.links:
        log.warning(
            "%s: %s left out, since they lead outside of the folder: %s%s", path, counted(len(archive.links), "link"),
            ", ".join(archive.links[:3]), ", …" if len(archive.links) > 3 else "",
        )  # fmt: skip
    if not places:
        raise UserError(
            f"{path}: none of its {len(archive.names):,} files is named as an entity of the graph "
            f"(it has {', '.join(map(repr, matched.unmatched[:3])) or 'no files'}; expected <entity>/<file>)."
        )
    waiting: dict[int, deque[str]] = defaultdict(deque)
    for name, (entity, _) in places.items():
        waiting[entity].append(name)
    found: Counter[int] = Counter()
    while wanted := _next_files(waiting, found, per_entity):
        for name, result in _read_and_clean(archive, wanted, work):
            found[places[name][0]] += not isinstance(result, InvalidImage)
            yield row(*places[name], name, result)


def _next_files(waiting: Mapping[int, deque[str]], found: Mapping[int, int], per_entity: int | None) -> list[str]:
    """Of each entity as many files, in their order, as it lacks pictures: what turned out to be none fills no place."""
    wanted = []
    for entity, names in waiting.items():
        lacking = len(names) if per_entity is None else per_entity - found[entity]
        wanted += [names.popleft() for _ in range(min(lacking, len(names)))]
    return wanted


def _read_and_clean(archive: Archive, names: Sequence[str], work) -> Iterator[tuple[str, Picture | InvalidImage]]:
    too_large: list[tuple[str, TooLarge]] = []

    def members() -> Iterator[tuple[str, bytes]]:
        for name, data in archive.read(names):
            if isinstance(data, TooLarge):
                too_large.append((name, data))
            else:
                yield name, data

    yield from clean_many(members(), work)
    for name, reason in too_large:
        yield name, InvalidImage(str(reason))


if __name__ == "__main__":
    main()
