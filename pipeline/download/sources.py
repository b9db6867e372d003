"""Files with pinned addresses: fetched whole or not at all, checked by sha256, resumed after an interruption.

A mirror (a folder, or an address, that holds `<host>/<path>` of each file) is asked before the address itself, so that
machines without a network work. What has come so far waits in a work folder, named by the address, so that the next
try goes on from there with an HTTP Range request, even after the process died.
"""

import errno
import hashlib
import json
import logging
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from urllib.parse import unquote, urlsplit

import httpx
from filelock import FileLock, Timeout

from pipeline import tables
from pipeline.errors import NO_JSON, UserError
from pipeline.retry import PASSING, UNREACHABLE_RETRIES, RetryPolicy, retry_after

log = logging.getLogger(__name__)

MIRROR = "TESSERA_MIRROR"
_AGENT = "Tessera/0.1 (multi-modal knowledge graph completion)"
_CHUNK = 1 << 20  # bytes; so much progress also counts as a connection that works


@dataclass(frozen=True)
class Fetched:
    """A file that is where it should be: its size in bytes, its sha256, and where it came from."""

    path: Path
    size: int
    sha256: str
    origin: str


@dataclass
class _Version:
    """Which version of a file an unfinished body belongs to: the server's strong ETag, if it sends one."""

    tag: str | None = None


class _Final(Exception):
    """This place does not give the file, and asking it again will not help."""


class _Passing(Exception):
    """Something went wrong that may go right the next time."""

    def __init__(self, reason: str, wait: float | None = None, reached: bool = True):
        super().__init__(reason)
        self.wait, self.reached = wait, reached  # seconds the server asked for; whether there was a server at all


def chosen_mirror(configured: str | None = None) -> str | None:
    """The mirror to ask first: that of the variable TESSERA_MIRROR, else the configured one, else None."""
    return os.environ.get(MIRROR) or configured


def fetch(
    address: str,
    sha256: str | None,
    into: str | Path,
    *,
    work: str | Path | None = None,
    mirror: str | None = None,
    record: str | Path | None = None,
    retry: RetryPolicy | None = None,
) -> Fetched:
    """Bring the file at `address` (http or https) to the path `into`, unless it is there already.

    A process that finds another at it waits, and then uses that one's file. `work` is the folder in which an unfinished
    file waits, and the lock files stay (default: that of `into`). `mirror` is asked first. Where no
    checksum is published, `sha256` is None: then the file's checksum is written to the JSON file `record` the first
    time and demanded ever after.
    Raises UserError if no place gives the file, its checksum is another, or the disk is full.
    """
    into, retry = Path(into), retry or RetryPolicy()
    work = Path(work) if work is not None else into.parent
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname or ".." in parts.path.split("/"):
        raise UserError(f"{address!r} is not an address that can be fetched; give a whole http or https address.")
    with _writable(into):
        for folder in (into.parent, work):
            folder.mkdir(parents=True, exist_ok=True)
    name = hashlib.sha256(address.encode()).hexdigest()[:20]
    with _locked(work / f"{name}.lock", str(into)):
        expected = sha256 or (recorded(record).get(address) if record else None)
        if expected and into.is_file() and _sha256(into) == expected:
            return Fetched(into, into.stat().st_size, expected, "where it was already")
        part_path = work / f"{name}.part"
        with _unfinished(part_path) as part:
            origin = _from_somewhere(_places(parts, mirror), part, address, expected, retry)
            part.seek(0)
            found, size = hashlib.file_digest(part, "sha256").hexdigest(), part.seek(0, os.SEEK_END)
            with _writable(into):
                _move(part_path, into)
        if record and not expected:
            _note(Path(record), work, address, found)
    return Fetched(into, size, found, origin)


def _note(record: Path, work: Path, address: str, sha256: str) -> None:
    """Add a checksum to the record, which several addresses share."""
    lock = hashlib.sha256(os.fspath(record.resolve()).encode()).hexdigest()[:20]
    with _locked(work / f"{lock}.lock", str(record)):
        tables.write_json(record, {**recorded(record), address: sha256})


def copy_folder(folder: str | Path, into: str | Path) -> int:
    """Copy the plain files of a folder (not of its subfolders), each whole or not at all; the number of files.

    Raises UserError if the folder is missing or holds no file.
    """
    folder, into = Path(folder), Path(into)
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; put the graph's files there, or correct its `folder`.")
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    if not files:
        raise UserError(f"{folder} holds no files; put the graph's files there.")
    for path in files:
        with _writable(into / path.name):
            into.mkdir(parents=True, exist_ok=True)
            _copy(path, into / path.name)
    return len(files)


def _places(parts, mirror: str | None) -> list[str]:
    """Where to ask, in this order: a path in the mirror's folder or an address below it, then the address."""
    host, path = parts.netloc.rsplit("@", 1)[-1], parts.path + (f"?{parts.query}" if parts.query else "")
    if not mirror:
        return [parts.geturl()]
    if mirror.startswith(("http://", "https://")):
        return [f"{mirror.rstrip('/')}/{host}{path}", parts.geturl()]
    if not Path(mirror).is_dir():
        raise UserError(f"The mirror {mirror} is not a folder; correct {MIRROR} or sources.mirror, or unset it.")
    return [str(Path(mirror) / host / unquote(path).lstrip("/")), parts.geturl()]


def _from_somewhere(places: list[str], part: FileIO, address: str, expected: str | None, retry: RetryPolicy) -> str:
    """Fill `part` from the first place that gives the right file, and say which it was."""
    reasons = []
    for place in places:
        try:
            if "://" in place:
                _from_address(place, part, expected, retry)
            else:
                _from_file(Path(place), part)
                _verify(part, expected)
            return place
        except _Final as reason:
            reasons.append(str(reason) if place == address else f"the mirror's {place}: {reason}")
            if place != address:
                log.warning("%s; asking %s itself", reasons[-1], urlsplit(address).hostname)
    wanted = f"expected the file with sha256 {expected}" if expected else "expected a file"
    raise UserError(
        f"{address} cannot be fetched ({'; '.join(reasons)}); {wanted}: check the address and the network, or put the "
        f"file into a mirror ({MIRROR}) as <host>/<path>."
    )


def _from_file(path: Path, part: FileIO) -> None:
    try:
        with open(path, "rb") as source:
            part.truncate(0)
            while chunk := source.read(_CHUNK):
                _append(part, chunk)
    except FileNotFoundError as error:
        raise _Final("is not there") from error
    except (PermissionError, IsADirectoryError) as error:
        raise _Final(error.strerror) from error


def _from_address(url: str, part: FileIO, expected: str | None, retry: RetryPolicy) -> None:
    """Download with resumption and retries, and verify; an unfinished body from an earlier process is gone on from."""
    if expected is None:
        part.truncate(0)  # without a checksum nobody could tell whether old bytes belong to this file
    version, failures = _Version(), 0
    limits = httpx.Timeout(retry.timeout)
    headers = {"User-Agent": _AGENT, "Accept-Encoding": "identity"}
    with httpx.Client(timeout=limits, headers=headers, follow_redirects=True) as client:
        while True:
            before = part.seek(0, os.SEEK_END)
            try:
                _ask(client, url, part, version)
                _verify(part, expected)
                return
            except _Passing as fault:
                progress = part.seek(0, os.SEEK_END) - before
                failures = 1 if progress >= _CHUNK else failures + 1
                if failures > (retry.retries if fault.reached else min(retry.retries, UNREACHABLE_RETRIES)):
                    raise _Final(f"{fault}, after {failures} tries") from fault
                seconds = retry.delay(failures, fault.wait)
                log.info("%s: %s; trying again in %.1f s", url, fault, seconds)
                retry.wait(seconds)
            except _Final:
                if not before:
                    raise
                part.truncate(0)  # what an earlier process left may be to blame: once more from the start


def _ask(client: httpx.Client, url: str, part: FileIO, version: _Version) -> None:
    """One request for what is missing; the body goes to the end of `part`."""
    have = part.seek(0, os.SEEK_END)
    headers = {"Range": f"bytes={have}-", **({"If-Range": version.tag} if version.tag else {})} if have else {}
    try:
        with client.stream("GET", url, headers=headers) as answer:
            total = _accepted(answer, part, have)
            tag = answer.headers.get("ETag")
            version.tag = tag if tag and not tag.startswith("W/") else None
            for chunk in answer.iter_raw() if answer.status_code in (200, 206) else ():
                _append(part, chunk)
            size = part.seek(0, os.SEEK_END)
            if total is not None and size != total:
                if size > total:
                    part.truncate(0)
                raise _Passing(f"{size:,} of {total:,} bytes came")
    except httpx.TimeoutException as error:
        raise _Passing("no answer in time", reached=not isinstance(error, httpx.ConnectTimeout)) from error
    except httpx.ConnectError as error:
        raise _Passing(f"no connection ({error})", reached=False) from error
    except httpx.TransportError as error:
        size = part.seek(0, os.SEEK_END)
        raise _Passing(f"the connection broke off after {size:,} bytes ({error})") from error
    except (httpx.TooManyRedirects, httpx.InvalidURL) as error:
        raise _Final(str(error)) from error


def _accepted(answer: httpx.Response, part: FileIO, have: int) -> int | None:
    """Check the head of an answer and make `part` ready for its body; the whole file's size in bytes, if it is said."""
    status, span = answer.status_code, answer.headers.get("Content-Range", "")
    if status in PASSING:
        raise _Passing(f"the server answers {status}", retry_after(answer.headers.get("Retry-After")))
    if status == 416 and re.fullmatch(rf"bytes \*/{have}", span):
        return have
    if status == 416:
        part.truncate(0)
        raise _Passing("the unfinished file is longer than the real one")
    if status == 206:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", span)
        if not match or int(match[1]) != have:
            part.truncate(0)
            raise _Passing(f"the server sent another range than asked for ({span!r})")
        return int(match[2]) if match[2] != "*" else None
    if status != 200:
        raise _Final(f"the server answers {status} {answer.reason_phrase}".strip())
    part.truncate(0)
    length = answer.headers.get("Content-Length", "")
    return int(length) if length.isdecimal() else None


def _verify(part: FileIO, expected: str | None) -> None:
    """Raises _Final, and empties `part`, if its checksum is not the expected one."""
    part.seek(0)
    found = hashlib.file_digest(part, "sha256").hexdigest()
    if expected and found != expected:
        size = part.seek(0, os.SEEK_END)
        part.truncate(0)
        raise _Final(f"its {size:,} bytes have the sha256 {found}")


@contextmanager
def _locked(path: Path, what: str) -> Iterator[None]:
    """Hold the lock file `path`, after whoever holds it; it stays there, since unlinking it would let two in."""
    with _writable(path):
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.info("waiting for another process that writes %s", what)
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _unfinished(path: Path) -> Iterator[FileIO]:
    """The unfinished file, open for appending and reading; removed if left empty. Hold its lock meanwhile."""
    with _writable(path):
        path.touch()
    with open(path, "a+b", buffering=0) as part:
        try:
            yield part
        finally:
            if path.exists() and not path.is_symlink() and not path.stat().st_size:
                path.unlink()


def _append(part: FileIO, chunk: bytes) -> None:
    """Write to the end of the unfinished file. Raises UserError on a full disk, and what came before stays."""
    try:
        rest = memoryview(chunk)
        while rest:
            rest = rest[part.write(rest) :]
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise UserError(
            f"There is no room for {part.name} on the disk ({error.strerror}); free some and run again: it goes on "
            "from what has come."
        ) from error


@contextmanager
def _writable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}); free space or rights there.") from error


def _move(part: Path, into: Path) -> None:
    """Put a finished file in its place at once, across file systems too."""
    with open(part, "rb") as handle:
        os.fsync(handle.fileno())
    try:
        os.replace(part, into)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        _copy(part, into)
        part.unlink()


def _copy(path: Path, into: Path) -> None:
    temporary = into.with_name(f".{into.name}.{secrets.token_hex(4)}.part")
    try:
        shutil.copyfile(path, temporary)
        os.replace(temporary, into)
    finally:
        temporary.unlink(missing_ok=True)


def _sha256(path: Path) -> str:
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def recorded(record: str | Path) -> dict[str, str]:
    """Checksums by address; empty if none was written yet. Raises UserError if the file is no such table."""
    try:
        table = json.loads(Path(record).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except NO_JSON as error:
        raise UserError(
            f"{record} is not JSON ({error}); restore it, or delete it to trust what comes next."
        ) from error
    if not isinstance(table, dict):
        raise UserError(f"{record} is not a table of checksums; restore or delete it.")
    return table
