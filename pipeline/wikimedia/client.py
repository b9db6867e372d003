"""A polite HTTP client: says who asks, keeps to a rate per host and a number at once, waits when asked to, retries.

What passes (timeouts, resets, 429, 5xx, bodies cut short, error pages with status 200) is tried again, after the time
that Retry-After names or else after an exponential backoff with full jitter. What does not pass (404, 410, other 4xx)
is an answer. A host that refuses several times in a row is left alone by all requests for as long as it said.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType

import aiohttp
from yarl import URL

from pipeline.errors import UserError
from pipeline.retry import PASSING, RetryPolicy, retry_after

PROJECT = "Tessera/0.1 (multi-modal knowledge graph completion; {contact})"
LONGEST_WAIT = 300.0  # seconds; a host that asks for more is not asked again
_REDIRECTS = {301, 302, 303, 307, 308}
_REFUSALS_IN_A_ROW = 3  # then the host means us, not one request
_DEAD_IN_A_ROW = 8  # requests given up one after the other: the host, or the network, is gone
_MARGIN = 1.05  # spacing a little wider than the rate asks, since arrivals jitter
_CLOSING = 0.5  # seconds that a broken connection keeps its place among those under way
_LATE = 0.02  # seconds that a late start may catch up; more would let requests leave in bunches


def check_contact(contact: str | None) -> None:
    """Raises UserError if this is neither an e-mail address nor a URL."""
    if contact is None or ("@" not in contact and not contact.startswith(("http://", "https://"))):
        said = "null" if contact is None else repr(contact)
        raise UserError(
            f"web.contact in params.yaml is {said}; Wikimedia asks every program to name a person: "
            "put your e-mail address or a URL there."
        )


@dataclass(frozen=True)
class CrawlPolicy:
    """How the client behaves towards its hosts.

    contact: an e-mail address or URL that goes into the User-Agent; rate: requests per second and host; concurrency:
    requests under way at once, over all hosts; retry: what happens to those that fail, where `timeout` is for a whole
    request. A host that asks for a wait longer than `retry.longest_wait` is not asked again.
    """

    contact: str | None
    rate: float = 5.0
    concurrency: int = 4
    retry: RetryPolicy = field(default_factory=lambda: RetryPolicy(timeout=60.0, retries=7, longest_wait=LONGEST_WAIT))

    def check(self) -> None:
        """Raises UserError if the contact is none."""
        check_contact(self.contact)


@dataclass(frozen=True)
class Reply:
    """What came of a request. `status` is 0 when nothing came; `fault` is why a request was given up, else None."""

    status: int
    body: bytes
    kind: str  # the Content-Type
    attempts: int  # how often it was asked, redirections not counted
    fault: str | None = None


class _Host:
    """The pace of one host: when the next request may leave, and how often it refused or failed in a row."""

    def __init__(self, rate: float):
        self._gap = _MARGIN / rate
        self._next = 0.0
        self._lock = asyncio.Lock()
        self.refusals, self.dead, self.forbidden = 0, 0, 0

    async def turn(self) -> None:
        async with self._lock:  # one after the other, so that gaps are between requests as they leave
            while (wait := self._next - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            self._next = max(self._next, time.monotonic() - _LATE) + self._gap

    def pause(self, seconds: float) -> None:
        self._next = max(self._next, time.monotonic() + seconds)


class _Passing(Exception):
    """A fault that will pass; `wait` is what the host asked for, in seconds."""

    def __init__(self, why: str, wait: float | None = None, broken: bool = False):
        super().__init__(why)
        self.wait = wait
        self.broken = broken


class Client:
    """An async context manager that makes polite GET requests. Raises UserError if the policy name no contact."""

    def __init__(self, policy: CrawlPolicy):
        policy.check()
        self._policy = policy
        self._hosts: dict[str, _Host] = {}
        self._slots = asyncio.Semaphore(policy.concurrency)
        self.requests = 0

    async def __aenter__(self) -> "Client":
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._policy.concurrency),
            timeout=aiohttp.ClientTimeout(total=self._policy.retry.timeout),
            headers={"User-Agent": PROJECT.format(contact=self._policy.contact), "Accept-Encoding": "gzip"},
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        # By itself aiohttp asks again where a kept connection breaks, past the host's pace and our count of attempts.
        self._session._retry_connection = False
        return self

    async def __aexit__(self, kind: type | None, value: BaseException | None, trace: TracebackType | None) -> None:
        await self._session.close()

    async def get(
        self,
        url: str,
        query: Mapping[str, str] | None = None,
        *,
        passing: Callable[[Reply], str | None] = lambda reply: None,
        limit: int = 64 * 2**20,
        redirects: int = 3,
    ) -> Reply:
        """GET an address, following up to `redirects` redirections, each at its own host's pace.

        `passing` looks at an answer of status 200 and returns why it is a passing fault, or None. Bodies beyond `limit`
        bytes are an answer with a fault. Raises UserError if the host forbids us or cannot be reached at all.
        """
        where = URL(url, encoded=True)
        if query:
            where = where.with_query(query)
        attempts = 0
        while True:
            reply = await self._insist(where, passing, limit)
            attempts += reply.attempts
            if reply.status not in _REDIRECTS or reply.fault:
                return Reply(reply.status, reply.body, reply.kind, attempts, reply.fault)
            if redirects == 0:
                return Reply(reply.status, b"", reply.kind, attempts, "too many redirections")
            redirects -= 1
            where = where.join(URL(reply.kind, encoded=True))

    async def _insist(self, url: URL, passing: Callable[[Reply], str | None], limit: int) -> Reply:
        """One address without redirections, tried until it answers or the attempts are spent."""
        host = self._hosts.setdefault(url.authority, _Host(self._policy.rate))
        retry = self._policy.retry
        for attempt in range(1, retry.retries + 2):
            try:
                reply = await self._once(url, host, passing, limit, attempt)
            except _Passing as fault:
                why, wait = str(fault), fault.wait
            else:
                host.refusals = host.dead = 0
                self._forbidden(host, url, reply)
                return reply
            if wait is not None and wait > retry.longest_wait:
                why = f"{why}; asked to wait {wait:.0f} s"
                break
            wait = retry.delay(attempt, wait)
            if host.refusals >= _REFUSALS_IN_A_ROW:
                host.pause(wait)
            if attempt <= retry.retries:
                await asyncio.sleep(wait)
        host.dead += 1
        if host.dead >= _DEAD_IN_A_ROW:
            raise UserError(
                f"{url.host} does not answer ({why}); what came before is kept: run again when it can be reached."
            )
        return Reply(0, b"", "", attempt, why)

    async def _once(
        self, url: URL, host: _Host, passing: Callable[[Reply], str | None], limit: int, attempt: int
    ) -> Reply:
        async with self._slots:
            await host.turn()
            self.requests += 1
            try:
                async with self._session.get(url, allow_redirects=False) as answer:
                    body = await _bounded(answer, limit)
                    status, headers = answer.status, answer.headers
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                # The other side may still be at work on it: keep the place, so that no more are under way than allowed.
                await asyncio.sleep(_CLOSING)
                raise _Passing(_in_words(error)) from error
        if status in PASSING:
            host.refusals += status in (429, 503)
            raise _Passing(f"status {status}", retry_after(headers.get("Retry-After")))
        if status in _REDIRECTS and headers.get("Location"):
            return Reply(status, b"", headers["Location"], attempt)
        if body is None:
            return Reply(status, b"", headers.get("Content-Type", ""), attempt, f"larger than {limit:,} bytes")
        reply = Reply(status, body, headers.get("Content-Type", ""), attempt)
        why = passing(reply) if status == 200 else None
        if why:
            wait = retry_after(headers.get("Retry-After"))
            host.refusals += wait is not None
            raise _Passing(why, wait)
        return reply

    def _forbidden(self, host: _Host, url: URL, reply: Reply) -> None:
        host.forbidden = host.forbidden + 1 if reply.status in (401, 403) else 0
        if host.forbidden >= _REFUSALS_IN_A_ROW:
            said = reply.body[:200].decode("utf-8", "replace").strip()
            raise UserError(
                f"{url.host} forbids what we ask ({reply.status}: {said}); check web.contact in params.yaml."
            )


async def _bounded(answer: aiohttp.ClientResponse, limit: int) -> bytes | None:
    """The body, or None if it has more than `limit` bytes."""
    if (answer.content_length or 0) > limit:
        return None
    parts, size = [], 0
    async for part in answer.content.iter_any():
        size += len(part)
        if size > limit:
            return None
        parts.append(part)
    return b"".join(parts)


def _in_words(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "body cut short"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"no connection ({error.os_error.strerror or error.os_error})"
    return "connection lost"
