"""Texts of entities out of the answers that the web gave."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.modalities.texts import Described
from pipeline.wikimedia.answers import (
    ARTICLE,
    ENTITY,
    REDIRECT,
    Get,
    aliases_of,
    article_of,
    description_of,
    entity_of,
    introduction_of,
    label_of,
    load,
    subject,
)


def described(folder: str | Path, keys: Sequence[str], source: str = "wikidata") -> list[Described | None]:
    """For each entity's key what the web said of it in words, or None.

    `source` "wikidata": label, description, aliases. "wikipedia": the description is the introduction of the article
    where there is one, else Wikidata's. Raises UserError if the folder holds no answers.
    """
    get = load(folder, (ENTITY, REDIRECT) if source == "wikidata" else (ENTITY, REDIRECT, ARTICLE))
    return [_described(entity_of(subject(key), get), get, source) for key in keys]


def _described(entity: Mapping | None, get: Get, source: str) -> Described | None:
    label, description, origin = label_of(entity), description_of(entity), "wikidata"
    page = article_of(entity)
    introduction = introduction_of(get(ARTICLE, page)) if source == "wikipedia" and page else None
    if introduction:
        description, origin = introduction, "wikipedia"
    label = label or page
    if not label:
        return None
    return Described(label, description or None, aliases_of(entity), origin)
