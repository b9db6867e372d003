"""What is known of a graph's entities in words, and which words of it are encoded."""

import logging
from collections.abc import Sequence
from pathlib import Path

from pipeline import tables
from pipeline.errors import counted
from pipeline.modalities import beyond_images, texts
from pipeline.versions import code_version
from pipeline.wikimedia import texts as web_texts
from stages.cli import arguments, stage
from stages.params import load_params

log = logging.getLogger(__name__)

LINKS, DESCRIPTIONS = "DB15K_SameAsLink.txt", "entity2wikidata.json"


@stage
def main() -> None:
    name = arguments(__doc__, "graph").parse_args().graph
    params = load_params()
    settings = params.graph[name].text
    folder = Path("data") / name
    entities = tables.read(folder / "graph" / "entities.parquet", "entities").sort_by("entity_id")
    keys, labels = entities["key"].to_pylist(), entities["label"].to_pylist()
    if settings.source == "beyond_images":
        base, _ = look_up(settings.base, keys, folder)
        archive = folder / "raw" / beyond_images.ARCHIVE
        found, odd = beyond_images.described(keys, labels, base, archive, name, settings.captions)
        log.info("%s: %s with captions", name, counted(odd["with_captions"], "entity", "entities"))
    else:
        found, odd = look_up(settings.source, keys, folder)
    if params.text.captions.model:
        found, odd["with_own_captions"] = captioned(folder / "captions.parquet", labels, found)
        log.info("%s: %s with captions made here", name, counted(odd["with_own_captions"], "entity", "entities"))
    columns, counts = texts.rows(
        labels, found, fields=params.text.fields, separator=params.text.separator,
        fallback=settings.fallback,
    )  # fmt: skip
    provenance = {"stage": "text", "source": settings.source, "fallback": settings.fallback}
    if settings.source == "beyond_images":
        provenance |= {"base": settings.base, "captions": settings.captions}
    if params.text.captions.model:
        provenance["own_captions"] = tables.provenance(folder / "captions.parquet")
    provenance |= {"fields": list(params.text.fields), "separator": params.text.separator}
    provenance["code_version"] = code_version(texts, web_texts, beyond_images)
    tables.write(folder / "text.parquet", "text", columns, provenance)
    tables.write_json(folder / "text.json", {"source": settings.source, **counts, **odd})
    if odd.get("other_entities"):
        log.warning("%s: %s of text.tsv left out, of entities that the graph does not have", name,
                    counted(odd["other_entities"], "row"))  # fmt: skip
    if odd.get("without_label"):
        log.warning("%s: %s of text.tsv without a label; it was read out of the key", name,
                    counted(odd["without_label"], "row"))  # fmt: skip
    log.info("%s: %s of %s entities found, %s with a description, %s with a text", name,
             *(f"{counts[key]:,}" for key in ("found", "entities", "with_description", "with_text")))  # fmt: skip


def captioned(
    path: Path, labels: Sequence[str], found: Sequence[texts.Described | None]
) -> tuple[list[texts.Described | None], int]:
    """For each entity what is known of it, then its pictures' captions, each once; how many entities have some."""
    table = tables.read(path, "captions")
    said: dict[int, dict[str, None]] = {}
    rows = sorted(zip(*(table[name].to_pylist() for name in ("entity_id", "image_ix", "caption")), strict=True))
    for entity, _, caption in rows:
        if caption is not None:
            said.setdefault(entity, {})[caption] = None
    joined = [
        texts.with_captions(one, label, list(said[entity]), "captions") if entity in said else one
        for entity, (one, label) in enumerate(zip(found, labels, strict=True))
    ]
    return joined, len(said)


def look_up(source: str, keys: Sequence[str], folder: Path) -> tuple[list[texts.Described | None], dict[str, int]]:
    """The words for each entity, from where the graph's file says, and counts of what was odd there."""
    raw = folder / "raw"
    if source == "table":
        return texts.by_table(keys, raw)
    if source in ("wikidata", "wikipedia"):
        return web_texts.described(folder / "web", keys, source), {}
    if source == "none":
        return [None] * len(keys), {}
    known = texts.read_wikidata(raw / DESCRIPTIONS)
    if source == "links":
        return texts.by_links(keys, texts.read_links(raw / LINKS), known), {}
    return (texts.by_qid if source == "qid" else texts.by_title)(keys, known), {}


if __name__ == "__main__":
    main()
