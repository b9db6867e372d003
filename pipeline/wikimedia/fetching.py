"""Labels, descriptions, aliases, article introductions and pictures of entities, from Wikidata, Wikipedia and Commons.

An entity is asked for by its Q-id, or by the English Wikipedia title that DBpedia and YAGO name it by. Five steps, each
leaving its answers in a work store as they come: entities (`wbgetentities`, 50 at a time); titles that are redirected
today (`action=query`, 50); introductions (`prop=extracts`, 20); pictures (`Special:FilePath` at a fixed width); their
licences and authors (`prop=imageinfo|extmetadata`, 50). What the store has is not asked for again.
"""

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote

from pipeline.errors import NO_JSON
from pipeline.wikimedia.answers import (
    ARTICLE,
    ENTITY,
    FILE,
    LANGUAGES,
    PICTURE,
    REDIRECT,
    TITLE,
    Kept,
    article_of,
    by_id,
    by_page,
    by_title,
    entity_of,
    file_page,
    no_title,
    picture_key,
    picture_names,
    redirection,
    words,
)
from pipeline.wikimedia.client import Client, CrawlPolicy, Reply
from pipeline.wikimedia.store import FAILED, MISSING, OK, REFUSED, Answer, WebStore, now

log = logging.getLogger(__name__)

WIDTHS = (250, 330, 500, 960)  # what Commons serves; any other width is refused
BATCH, INTRODUCTIONS = 50, 20  # the services' own limits
_QUERY_BYTES = 6000  # of the names in an address, percent-encoded; longer ones are refused by servers on the way
_PICTURE_BYTES = 32 * 2**20
# A batch with one of these is asked again in halves, to find whose fault it is.
_ONE_IS_WRONG = {"no-such-entity", "invalid-title", "invalidtitle", "invalid-entity-id", "toolong", "toomanyvalues"}
_PASSING_CODES = {"maxlag", "ratelimited", "readonly", "internal_api_error_DBQueryError", "failed-save", "timeout"}


@dataclass(frozen=True)
class Addresses:
    """Where the services are. `wikipedia` None: titles are not followed through redirections, and no introductions."""

    wikidata: str = "https://www.wikidata.org"
    commons: str = "https://commons.wikimedia.org"
    wikipedia: str | None = "https://en.wikipedia.org"


@dataclass(frozen=True)
class Wanted:
    """What to fetch: of which entities (`subjects`), up to how many pictures each and how wide, and what else."""

    subjects: Sequence[str]
    pictures: int = 0  # an entity; 0: none
    width: int = 500
    licences: bool = True
    introductions: bool = False


@dataclass
class Progress:
    """How far one step is; handed to the callback a few times a second."""

    step: str
    total: int
    done: int = 0
    failed: int = 0
    received: int = 0  # bytes
    started: float = field(default_factory=time.monotonic)

    @property
    def rate(self) -> float:
        """How many are done per second."""
        return self.done / max(time.monotonic() - self.started, 1e-9)

    @property
    def left(self) -> float:
        """Seconds until this step ends, at the rate so far."""
        return (self.total - self.done) / self.rate if self.done else float("inf")


def fetch(
    wanted: Wanted,
    store: WebStore,
    policy: CrawlPolicy,
    addresses: Addresses = Addresses(),
    progress: Callable[[Progress], None] = lambda state: None,
) -> list[tuple[str, str]]:
    """Fetch what the store lacks of `wanted`; returns the (kind, key) of all the answers that belong to it.

    Raises UserError if the policy name no contact, a host forbids us, or cannot be reached.
    """
    if wanted.width not in WIDTHS:
        raise ValueError(f"width {wanted.width} is none of {WIDTHS}")
    return asyncio.run(_Fetch(wanted, store, policy, addresses, progress).all())


class _Fetch:
    """One run: the steps in order, each over what the store lacks."""

    def __init__(self, wanted, store, policy, addresses, progress):
        self._wanted, self._store, self._policy = wanted, store, policy
        self._at, self._progress = addresses, progress
        self._reported = 0.0

    async def all(self) -> list[tuple[str, str]]:
        subjects = list(dict.fromkeys(self._wanted.subjects))
        keys = [(ENTITY, one) for one in subjects]
        async with Client(self._policy) as self._client:
            await self._entities(subjects)
            if self._at.wikipedia:
                keys += await self._redirections(subjects)
            if self._wanted.introductions and self._at.wikipedia:
                keys += await self._introductions(subjects)
            if self._wanted.pictures:
                names = self._picture_names(subjects)
                keys += await self._pictures(names)
                if self._wanted.licences:
                    keys += await self._licences(names)
        self._store.commit()
        return keys

    # ------------------------------------------------------------------------------------------ entities
    async def _entities(self, subjects: Iterable[str]) -> None:
        known = self._store.known(ENTITY)
        absent = [one for one in subjects if one not in known]
        ids = [one for one in absent if not one.startswith(TITLE)]
        titles = [one.removeprefix(TITLE) for one in absent if one.startswith(TITLE)]
        titles = self._possible(titles, ENTITY, self._at.wikidata, TITLE)
        state = Progress("entities", len(ids) + len(titles))
        batches = [("ids", batch) for batch in _batched(ids, BATCH)]
        batches += [("titles", batch) for batch in _batched(titles, BATCH)]
        await self._work(batches, lambda one: self._entity_batch(one[0], one[1], state))

    async def _entity_batch(self, what: str, batch: Sequence[str], state: Progress) -> None:
        query = {
            "action": "wbgetentities", what: "|".join(batch), "languages": "|".join(LANGUAGES),
            "sitefilter": "enwiki", "props": "labels|descriptions|aliases|claims|sitelinks",
        }  # fmt: skip
        if what == "titles":
            query["sites"] = "enwiki"
        prefix = TITLE if what == "titles" else ""

        def keep(answer: dict) -> Kept:
            return by_title(answer, batch) if what == "titles" else by_id(answer, batch)

        async def halves(part: Sequence[str]) -> None:
            await self._entity_batch(what, part, state)

        await self._ask(self._at.wikidata, query, batch, ENTITY, prefix, keep, halves, state)

    async def _redirections(self, subjects: Iterable[str]) -> list[tuple[str, str]]:
        """Titles that Wikidata does not know may be redirections on Wikipedia: ask where they lead, then for that."""
        status = self._store.known(ENTITY)
        lost = [one.removeprefix(TITLE) for one in subjects if one.startswith(TITLE) and status.get(one) == MISSING]
        lost = [one for one in lost if no_title(one) is None]
        known = self._store.known(REDIRECT)
        absent = [one for one in lost if one not in known]
        state = Progress("redirections", len(absent))

        async def batch_of(batch: Sequence[str]) -> None:
            query = {
                "action": "query", "titles": "|".join(batch), "redirects": "1", "prop": "pageprops",
                "ppprop": "wikibase_item",
            }  # fmt: skip
            await self._ask(
                self._at.wikipedia, query, batch, REDIRECT, "",
                lambda answer: by_page(answer, batch, lambda page: page.get("pageprops")), batch_of, state,
            )  # fmt: skip

        await self._work(_batched(absent, BATCH), batch_of)
        targets = {one: redirection(self._store.get(REDIRECT, one)) for one in lost}
        found = list(dict.fromkeys(target for target in targets.values() if target))
        await self._entities(found)
        return [(REDIRECT, one) for one in lost] + [(ENTITY, target) for target in found]

    # ------------------------------------------------------------------------------------------ texts
    async def _introductions(self, subjects: Iterable[str]) -> list[tuple[str, str]]:
        titles = []
        for one in subjects:
            entity = entity_of(one, self._store.get)
            name = article_of(entity)
            if name:
                titles.append(name)
        titles = list(dict.fromkeys(titles))
        known = self._store.known(ARTICLE)
        absent = self._possible([one for one in titles if one not in known], ARTICLE, self._at.wikipedia or "")
        state = Progress("introductions", len(absent))

        async def batch_of(batch: Sequence[str]) -> None:
            query = {
                "action": "query", "titles": "|".join(batch), "redirects": "1", "prop": "extracts", "exintro": "1",
                "explaintext": "1", "exlimit": str(INTRODUCTIONS),
            }  # fmt: skip
            await self._ask(
                self._at.wikipedia, query, batch, ARTICLE, "",
                lambda answer: by_page(answer, batch, lambda page: page if page.get("extract") else None),
                batch_of, state,
            )  # fmt: skip

        await self._work(_batched(absent, INTRODUCTIONS), batch_of)
        return [(ARTICLE, one) for one in titles]

    # ------------------------------------------------------------------------------------------ pictures
    def _picture_names(self, subjects: Iterable[str]) -> list[str]:
        names: dict[str, None] = {}
        for one in subjects:
            for name in picture_names(entity_of(one, self._store.get))[: self._wanted.pictures]:
                names[name] = None
        return list(names)

    async def _pictures(self, names: Sequence[str]) -> list[tuple[str, str]]:
        known = self._store.known(PICTURE)
        width = self._wanted.width
        absent = [name for name in names if picture_key(name, width) not in known]
        state = Progress("pictures", len(absent))

        async def one(name: str) -> None:
            url = f"{self._at.commons}/wiki/Special:FilePath/{quote(name, safe='')}?width={width}"
            reply = await self._client.get(url, passing=_error_page, limit=_PICTURE_BYTES)
            key = picture_key(name, width)
            if reply.status == 200 and not reply.fault:
                answer = Answer(PICTURE, key, OK, reply.body, None, reply.attempts, now(), file_page(name))
            else:
                status, error = _not_had(reply)
                answer = Answer(PICTURE, key, status, None, error, reply.attempts, now(), file_page(name))
            self._store.put(answer)
            self._count(state, 1, answer.status == FAILED, len(reply.body))

        await self._work(absent, one)
        return [(PICTURE, picture_key(name, width)) for name in names]

    async def _licences(self, names: Sequence[str]) -> list[tuple[str, str]]:
        """Licence and author of the files; where the service cannot tell, their rows stay without."""
        had = self._store.known(PICTURE)
        names = [name for name in names if had.get(picture_key(name, self._wanted.width)) == OK]
        known = self._store.known(FILE)
        absent = self._possible([name for name in names if name not in known], FILE, self._at.commons)
        state = Progress("licences", len(absent))

        async def batch_of(batch: Sequence[str]) -> None:
            query = {
                "action": "query", "titles": "|".join(f"File:{name}" for name in batch), "prop": "imageinfo",
                "iiprop": "extmetadata|sha1|size|mime",
                "iiextmetadatafilter": "LicenseShortName|LicenseUrl|Artist|Credit|AttributionRequired",
            }  # fmt: skip
            await self._ask(
                self._at.commons, query, batch, FILE, "",
                lambda answer: by_page(answer, batch, lambda page: page.get("imageinfo"), "File:"), batch_of, state,
            )  # fmt: skip

        await self._work(_batched(absent, BATCH), batch_of)
        return [(FILE, name) for name in names]

    # ------------------------------------------------------------------------------------------ what all steps share
    def _possible(self, titles: Sequence[str], kind: str, base: str, prefix: str = "") -> list[str]:
        """Those that can be titles; of the others, one of which would spoil its batch, the store keeps the reason."""
        reasons = {one: no_title(one) for one in titles}
        for one, reason in reasons.items():
            if reason is not None:
                self._store.put(Answer(kind, prefix + one, MISSING, None, reason, 0, now(), base))
        return [one for one, reason in reasons.items() if reason is None]

    async def _ask(
        self,
        base: str,
        query: dict[str, str],
        batch: Sequence[str],
        kind: str,
        prefix: str,
        keep: Callable[[dict], Kept],
        halves: Callable[[Sequence[str]], Awaitable[None]],
        state: Progress,
    ) -> None:
        """One request to an API for a batch; its answers go to the store one by one, so that batches may change."""
        url = f"{base}/w/api.php"
        reply = await self._client.get(url, {**query, "format": "json", "maxlag": "5"}, passing=_api_fault)
        answer = _json(reply.body) if reply.status == 200 and not reply.fault else None
        code = words(answer, "error", "code")
        if code in _ONE_IS_WRONG and len(batch) > 1:
            middle = len(batch) // 2
            await halves(batch[:middle])
            await halves(batch[middle:])
            return
        if answer is None:
            status, error = _not_had(reply)
            rows: Kept = dict.fromkeys(batch, (status, None))
        elif code:
            error = f"{code}: {answer['error'].get('info', '')}"
            rows = dict.fromkeys(batch, (MISSING if code in _ONE_IS_WRONG else REFUSED, None))
            if code not in _ONE_IS_WRONG:
                log.warning("%s refuses %s (%s)", base, state.step, error)
        else:
            rows, error = keep(answer), None
        for one, (status, body) in rows.items():
            data = json.dumps(body, ensure_ascii=False, sort_keys=True).encode() if body is not None else None
            self._store.put(Answer(kind, prefix + one, status, data, error, reply.attempts, now(), base))
        self._count(
            state, len(batch), any(status == FAILED for status, _ in rows.values()) * len(batch), len(reply.body)
        )

    def _count(self, state: Progress, done: int, failed: int, received: int) -> None:
        state.done += done
        state.failed += failed
        state.received += received
        if time.monotonic() - self._reported > 0.2 or state.done >= state.total:
            self._reported = time.monotonic()
            self._progress(state)

    async def _work(self, items: Iterable, one: Callable[..., Awaitable[None]]) -> None:
        """Do all items, so many tasks at once that those that wait to try again keep no request from leaving."""
        waiting = iter(items)

        async def worker() -> None:
            for item in waiting:
                await one(item)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(8 * self._policy.concurrency):
                    group.create_task(worker())
        except BaseExceptionGroup as several:
            raise several.exceptions[0] from None


def _batched(names: Iterable[str], most: int) -> Iterator[list[str]]:
    """Batches of at most `most` names, and short enough for one address."""
    batch: list[str] = []
    size = 0
    for name in names:
        length = len(quote(name, safe="")) + 3
        if batch and (len(batch) == most or size + length > _QUERY_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(name)
        size += length
    if batch:
        yield batch


def _json(body: bytes) -> dict | None:
    try:
        value = json.loads(body)
    except NO_JSON:
        return None
    return value if isinstance(value, dict) else None


def _api_fault(reply: Reply) -> str | None:
    """Why an API's answer of status 200 is a passing fault: a page for people, or an error that passes."""
    answer = _json(reply.body)
    if answer is None:
        return "an HTML page in place of JSON" if b"<html" in reply.body[:1024].lower() else "no JSON"
    code = words(answer, "error", "code")
    return code if code in _PASSING_CODES else None


def _error_page(reply: Reply) -> str | None:
    """Commons' pages for people in trouble come with status 200 too."""
    if reply.kind.startswith("text/html") or reply.body[:64].lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return "an HTML page in place of a picture"
    return None


def _not_had(reply: Reply) -> tuple[str, str]:
    """(status, why) of a reply that brought nothing."""
    if reply.status == 0:
        return FAILED, str(reply.fault)
    if reply.status in (404, 410):
        return MISSING, f"status {reply.status}"
    return REFUSED, reply.fault or f"status {reply.status}"
