"""Rows of pictures out of the answers that Wikidata and Commons gave."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pipeline.modalities.parts import FAILED, MISSING, NONE, REFUSED, absent, row
from pipeline.modalities.pictures import Picture, clean_many
from pipeline.wikimedia import store
from pipeline.wikimedia.answers import (
    ENTITY,
    FILE,
    PICTURE,
    Get,
    description_of,
    entity_of,
    file_page,
    label_of,
    licence_of,
    load,
    picture_key,
    picture_names,
    subject,
)
from pipeline.wikimedia.store import OK, Answer

_STATUS = {store.MISSING: MISSING, store.REFUSED: REFUSED, store.FAILED: FAILED}

Places = dict[str, list[tuple[int, int, str]]]  # key of a picture -> (entity_id, image_ix, name) of all that show it


def from_commons(
    folder: Path, keys: Sequence[str], work: Callable[[bytes], Picture], width: int, per_entity: int | None
) -> tuple[Iterator[dict], dict]:
    """The rows of all entities' pictures, and what the answers say about the graph.

    `keys` are the entities' keys by entity_id. Entities without a picture get a row that says why. Pictures are read
    part by part and cleaned in parallel, so memory does not grow with their number. Raises UserError if `folder` holds
    no answers.
    """
    get = load(folder)
    places: Places = defaultdict(list)
    without: list[dict] = []
    found: Counter = Counter()
    days: set[str] = set()
    for entity_id, key in enumerate(keys):
        asked = subject(key)
        entity = entity_of(asked, get)
        names = picture_names(entity)[:per_entity]
        found["entities"] += 1
        found["known_to_wikidata"] += entity is not None
        found["with_label"] += label_of(entity) is not None
        found["with_description"] += description_of(entity) is not None
        found["with_picture_named"] += bool(names)
        found["with_several_named"] += len(names) > 1
        days |= _day(get(ENTITY, asked))
        for index, name in enumerate(names):
            places[picture_key(name, width)].append((entity_id, index, name))
        if not names:
            without.append(_without(entity_id, entity, get(ENTITY, asked)))
    summary = {"web": {**found, "asked_from": min(days, default=None), "asked_to": max(days, default=None)}}
    return _rows(folder, places, without, work, get), summary


def _day(answer: Answer | None) -> set[str]:
    return {answer.fetched_at.date().isoformat()} if answer is not None else set()


def _without(entity_id: int, entity: dict | None, answer: Answer | None) -> dict:
    if entity is not None:
        return absent(entity_id, 0, NONE, "Wikidata names no picture (P18)")
    if answer is None or answer.status == store.MISSING:
        reason = f": {answer.error}" if answer is not None and answer.error else ""
        return absent(entity_id, 0, MISSING, f"no such entity in Wikidata{reason}")
    return absent(entity_id, 0, _STATUS[answer.status], f"Wikidata was not read: {answer.error}")


def _rows(
    folder: Path, places: Places, without: list[dict], work: Callable[[bytes], Picture], get: Get
) -> Iterator[dict]:
    yield from without
    seen: set[str] = set()
    for answer, result in clean_many(_bytes(folder, places), work):
        seen.add(answer.key)
        for entity_id, index, name in places[answer.key]:
            licence, author = licence_of(get(FILE, name))
            about = {"attempts": answer.attempts, "fetched_at": answer.fetched_at, "licence": licence, "author": author}
            yield row(entity_id, index, file_page(name), result, **about)
    for answer in store.read(folder, PICTURE):
        if answer.status == OK:
            continue
        seen.add(answer.key)
        for entity_id, index, name in places.get(answer.key, ()):
            about = {"attempts": answer.attempts, "fetched_at": answer.fetched_at}
            yield absent(entity_id, index, _STATUS[answer.status], answer.error, file_page(name), **about)
    for key in [one for one in places if one not in seen]:
        for entity_id, index, name in places[key]:
            yield absent(entity_id, index, FAILED, "not fetched", file_page(name))


def _bytes(folder: Path, places: Places) -> Iterator[tuple[Answer, bytes]]:
    for answer in store.read(folder, PICTURE):
        if answer.status == OK and answer.body is not None and answer.key in places:
            yield answer, answer.body
