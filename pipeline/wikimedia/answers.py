"""What the services' answers say: entities, their pictures' names, introductions, licences; and reading them back."""

import html
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pipeline.graph.matching import q_id, title
from pipeline.wikimedia import store
from pipeline.wikimedia.store import MISSING, OK, Answer

ENTITY, REDIRECT, ARTICLE, PICTURE, FILE = "entity", "redirect", "article", "picture", "file"
TITLE = "enwiki:"  # before a title where a Q-id could stand
# The languages that are asked for, the first that says something wins. Since 2024 names that are alike in all languages
# stand under "mul" alone; some entities have only a variant of English.
LANGUAGES = ("en", "mul", "en-us", "en-gb", "en-ca")
# What MediaWiki allows in no title: `|` would even be read as two titles, and refuse the whole batch.
_NO_TITLE = re.compile(r"[\x00-\x1f\x7f#<>\[\]{|}\ufffd]")
_TITLE_BYTES = 255

Get = Callable[[str, str], Answer | None]  # (kind, key) -> the answer that came
Kept = dict[str, tuple[str, object | None]]  # key -> (status, what is kept of its answer)


def subject(key: str) -> str:
    """What an entity is asked for by: its Q-id if its key tells one, else its Wikipedia title.

    >>> subject("http://www.wikidata.org/entity/Q42"), subject("<http://dbpedia.org/resource/Douglas_Adams>")
    ('Q42', 'enwiki:Douglas Adams')
    """
    return q_id(key) or TITLE + title(key)


def no_title(name: str) -> str | None:
    """Why no page of a wiki can have this title; None if one can.

    >>> no_title("A|B"), no_title("C++")
    ("no title holds '|'", None)
    """
    wrong = _NO_TITLE.search(name)
    if wrong:
        return f"no title holds {wrong.group()!r}"
    size = len(_spaced(name).encode("utf-8", "surrogatepass"))
    if not size:
        return "an empty title"
    return f"no title is longer than {_TITLE_BYTES} bytes; this has {size:,}" if size > _TITLE_BYTES else None


def at(value: object, *path: str | int) -> object | None:
    """What lies below `value`, step by step; None where the answer has another shape.

    The services write an empty table as [], and any answer may be somebody else's.

    >>> at({"labels": {"en": {"value": "x"}}}, "labels", "en", "value"), at({"labels": []}, "labels", "en", "value")
    ('x', None)
    """
    for step in path:
        if isinstance(step, str) and isinstance(value, Mapping):
            value = value.get(step)
        elif isinstance(step, int) and isinstance(value, list) and step < len(value):
            value = value[step]
        else:
            return None
    return value


def _table(value: object, *path: str | int) -> Mapping:
    found = at(value, *path)
    return found if isinstance(found, Mapping) else {}


def words(value: object, *path: str | int) -> str | None:
    """As `at`, if a text lies there."""
    found = at(value, *path)
    return found if isinstance(found, str) else None


def _list(value: object, *path: str | int) -> list:
    found = at(value, *path)
    return found if isinstance(found, list) else []


# ---------------------------------------------------------------------------------- out of one answer for a batch
def by_id(answer: Mapping, batch: Sequence[str]) -> Kept:
    """The entities of `wbgetentities` by the Q-ids that were asked."""
    entities = _table(answer, "entities")
    return {one: _kept(entities.get(one)) for one in batch}


def by_title(answer: Mapping, batch: Sequence[str]) -> Kept:
    """The entities of `wbgetentities` by the titles that were asked: the answer is keyed by Q-id, so by sitelink."""
    found, unnamed, missing = {}, [], set()
    for entity in _table(answer, "entities").values():
        name = words(entity, "sitelinks", "enwiki", "title")
        if name:
            found[_spaced(name)] = entity
        elif asked := words(entity, "title"):
            missing.add(_spaced(asked))
        else:
            unnamed.append(entity)
    # An entity that does not say which article it belongs to is that of the one title that nothing else answers.
    open_titles = [one for one in batch if _spaced(one) not in found and _spaced(one) not in missing]
    if len(open_titles) == len(unnamed) == 1:
        found[_spaced(open_titles[0])] = unnamed[0]
    return {one: _kept(found.get(_spaced(one))) for one in batch}


def _kept(entity: object) -> tuple[str, dict | None]:
    """What is kept of an entity: all that was asked for, except statements other than of pictures (megabytes)."""
    if not isinstance(entity, Mapping) or "missing" in entity:
        return MISSING, None
    kept = {name: entity[name] for name in ("id", "labels", "descriptions", "aliases", "redirects") if name in entity}
    if "enwiki" in _table(entity, "sitelinks"):
        kept["sitelinks"] = {"enwiki": entity["sitelinks"]["enwiki"]}
    if "P18" in _table(entity, "claims"):
        kept["claims"] = {"P18": entity["claims"]["P18"]}
    return OK, kept


def by_page(answer: Mapping, batch: Sequence[str], pick: Callable[[Mapping], object | None], prefix: str = "") -> Kept:
    """What `pick` takes of each page of `action=query`, by the titles that were asked.

    The service answers under normalised titles and under those that redirections lead to.
    """
    query = _table(answer, "query")
    steps = [step for name in ("normalized", "redirects") for step in _list(query, name)]
    leads = {words(step, "from"): words(step, "to") for step in steps}
    pages = {words(page, "title"): page for page in _table(query, "pages").values() if isinstance(page, Mapping)}
    kept: Kept = {}
    for one in batch:
        name, seen = prefix + one, set()
        while (target := leads.get(name)) and name not in seen:
            seen.add(name)
            name = target
        page = pages.get(name, pages.get(_spaced(name)))
        value = pick(page) if page is not None and "missing" not in page else None
        kept[one] = (OK, value) if value is not None else (MISSING, None)
    return kept


def _content(answer: Answer) -> Any:
    """What an answer holds, which is JSON; `at` looks into it."""
    return json.loads(answer.body or b"null")


def _spaced(name: str) -> str:
    return name.replace("_", " ").strip()


# ------------------------------------------------------------------------------------------ out of kept answers
def entity_of(one: str, get: Get) -> dict | None:
    """The entity that a subject stands for, through a redirection if need be; None if nobody knows it."""
    answer = get(ENTITY, one)
    if answer is not None and answer.status == OK:
        return _content(answer)
    target = redirection(get(REDIRECT, one.removeprefix(TITLE))) if one.startswith(TITLE) else None
    answer = get(ENTITY, target) if target else None
    return _content(answer) if answer is not None and answer.status == OK else None


def redirection(answer: Answer | None) -> str | None:
    """The Q-id that a title leads to."""
    if answer is None or answer.status != OK:
        return None
    return words(_content(answer), "wikibase_item")


def picture_names(entity: Mapping | None) -> list[str]:
    """Names of an entity's pictures (P18): preferred before normal, deprecated ones and "no value" left out."""
    usable = [
        (at(one, "rank") != "preferred", name)
        for one in _list(entity, "claims", "P18")
        if at(one, "rank") != "deprecated" and (name := words(one, "mainsnak", "datavalue", "value"))
    ]
    usable.sort(key=lambda one: one[0])
    return list(dict.fromkeys(name for _, name in usable))


def picture_key(name: str, width: int) -> str:
    """The key of a picture's bytes in the store: another width is another picture."""
    return f"{name}?width={width}"


def file_page(name: str) -> str:
    """The page of a file on Commons, which a picture's row names as its source."""
    return "https://commons.wikimedia.org/wiki/File:" + quote(name.replace(" ", "_"), safe="/(),:!*'")


def licence_of(answer: Answer | None) -> tuple[str | None, str | None]:
    """(licence, author) of a file, as plain text; None where Commons does not say."""
    if answer is None or answer.status != OK:
        return None, None
    about = _table(_content(answer), 0, "extmetadata")
    return _plain(at(about, "LicenseShortName", "value")), _plain(at(about, "Artist", "value"))


def _plain(value: object) -> str | None:
    text = html.unescape(re.sub(r"<[^>]*>", " ", str(value or "")))
    return " ".join(text.split()) or None


def label_of(entity: Mapping | None) -> str | None:
    """The English label, else the one for all languages, else that of a variant of English (LANGUAGES)."""
    return _first(entity, "labels")


def description_of(entity: Mapping | None) -> str | None:
    """The description, in the languages of the label."""
    return _first(entity, "descriptions")


def _first(entity: Mapping | None, what: str) -> str | None:
    found = (words(entity, what, language, "value") for language in LANGUAGES)
    return next((text for text in found if text), None)


def aliases_of(entity: Mapping | None) -> tuple[str, ...]:
    """The English aliases and those for all languages, each once; where there are none, those of a variant."""
    english, everywhere, *variants = (_aliases(entity, language) for language in LANGUAGES)
    return tuple(dict.fromkeys(english + everywhere)) or next(filter(None, variants), ())


def _aliases(entity: Mapping | None, language: str) -> tuple[str, ...]:
    return tuple(name for one in _list(entity, "aliases", language) if (name := words(one, "value")))


def article_of(entity: Mapping | None) -> str | None:
    """The title of the English Wikipedia's article."""
    return words(entity, "sitelinks", "enwiki", "title")


def introduction_of(answer: Answer | None) -> str | None:
    """The introduction of an article as plain text."""
    text = words(_content(answer), "extract") if answer is not None and answer.status == OK else None
    return text.strip() or None if text else None


# ------------------------------------------------------------------------------------------ the published answers
def load(folder: str | Path, kinds: Iterable[str] = (ENTITY, REDIRECT, ARTICLE, FILE)) -> Get:
    """The published answers of some kinds, in memory, to be asked like the work store.

    Raises UserError if the folder holds no answers.
    """
    answers = {(kind, answer.key): answer for kind in kinds for answer in store.read(folder, kind)}
    return lambda kind, key: answers.get((kind, key))
