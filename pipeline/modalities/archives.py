"""Folders, zip and tar files of `<entity>/<file>`, here or at any fsspec address: what lies in them, and reading it.

Nothing is unpacked to disk, so a member cannot escape; names that try to are counted and left out all the same. Of
links only those to files that stay inside their folder, or that DVC made into its cache, are followed. A member is read
up to a limit; an archive that claims to hold far more than any archive of pictures can is refused before it is read.
"""

import io
import os
import re
import stat
import tarfile
import unicodedata
import zipfile
import zlib
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path, PurePosixPath
from types import TracebackType

import fsspec

from pipeline.errors import UserError
from pipeline.modalities.addresses import UNOPENABLE, opened

MAX_BYTES = 100 * 2**20  # of one member: more than any picture that a graph is trained on
_BOMB_BYTES = 2 * 2**30  # an archive that unpacks to more than this and to …
_BOMB_RATIO = 50  # … more than this many times its own size holds no pictures: those do not compress
_JUNK = ("__macosx", "@eadir", "thumbs.db", "desktop.ini")
# Where DVC keeps a file by its MD5, in a cache of its third version or an older one: links that it made lead there.
_DVC_CACHE = re.compile(r"/(files/md5/)?[0-9a-f]{2}/[0-9a-f]{30}$")
_ZIP, _TAR = (".zip",), (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")


class TooLarge(ValueError):
    """A member larger than the limit; the message says so."""


class Archive(AbstractContextManager):
    """The files below one address: `names` are their paths, with `/` between folders; `skipped` counts those left out,
    and `links` names the links among them.

    Use as a context manager. Raises UserError if the address cannot be opened or is neither folder, zip nor tar.
    """

    def __init__(self, names: list[str], skipped: Counter):
        self.names = names
        self.skipped = skipped
        self.links: list[str] = []

    @abstractmethod
    def read(self, names: Iterable[str], limit: int = MAX_BYTES) -> Iterator[tuple[str, bytes | TooLarge]]:
        """Each member's name and bytes, in an order that suits the archive; TooLarge in place of more than `limit`."""

    def close(self) -> None:
        """Let go of the files behind it."""

    def __exit__(self, kind: type | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def open_archive(address: str | Path) -> Archive:
    """The archive at a path or an fsspec address (`s3://bucket/pictures.zip`, `ssh://host/folder`).

    Raises UserError if nothing is there, it cannot be read, or it is neither folder, zip nor tar.
    """
    text = os.fspath(address)
    try:
        if "://" not in text:
            return _open_local(Path(text))
        filesystem, path = opened(text)
        if filesystem.isdir(path):
            return _Remote(filesystem, path)
        return _open_file(filesystem.open(path, "rb"), text, filesystem.size(path))
    except FileNotFoundError as error:
        raise UserError(f"{text}: no folder or archive of pictures is there; correct the path.") from error
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error) as error:
        raise UserError(f"{text} is damaged ({error}); fetch it again.") from error
    except UNOPENABLE as error:
        raise UserError(f"{text} cannot be opened ({error}); correct the path, or what it needs.") from error


def _open_local(path: Path) -> Archive:
    if path.is_dir():
        return _Folder(path)
    return _open_file(open(path, "rb"), str(path), path.stat().st_size)


def _open_file(handle, name: str, size: int) -> Archive:
    lower = name.lower()
    if lower.endswith(_ZIP):
        return _Zip(handle, name, size)
    if lower.endswith(_TAR):
        return _Tar(handle, name, size)
    handle.close()
    raise UserError(f"{name} is neither a folder nor one of {', '.join(_ZIP + _TAR)}; pack it as one of these.")


def _unusable(name: str) -> str | None:
    """Why a member is left out, or None: `unsafe` names leave their folder, `ignored` ones are no user's picture."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if name.endswith("/"):  # what object stores keep in the place of a folder
        return "ignored"
    if not parts or name.startswith(("/", "\\")) or ".." in parts or ":" in parts[0][:2] or "\0" in name:
        return "unsafe"
    if any(part.startswith(".") or part.lower() in _JUNK for part in parts):
        return "ignored"
    return None


def _refuse_bomb(name: str, size: int, unpacked: int) -> None:
    if unpacked > _BOMB_BYTES and unpacked > _BOMB_RATIO * max(size, 1):
        raise UserError(
            f"{name} unpacks from {size:,} to {unpacked:,} bytes, which no archive of pictures does; it is refused."
        )


class _Folder(Archive):
    def __init__(self, root: Path):
        self._root, self._real_root = root, os.path.realpath(root)
        names: list[str] = []
        skipped: Counter[str] = Counter()
        links: list[str] = []
        waiting = [root]
        while waiting:
            for entry in os.scandir(waiting.pop()):
                name = Path(entry.path).relative_to(root).as_posix()
                if entry.is_symlink() and not self._stays(entry.path):
                    skipped["links"] += 1
                    links.append(name)
                elif reason := _unusable(name):
                    skipped[reason] += 1
                elif entry.is_dir(follow_symlinks=False):
                    waiting.append(Path(entry.path))
                elif entry.is_file():
                    names.append(name)
        super().__init__(sorted(names), skipped)
        self.links = sorted(links)

    def _stays(self, path: str) -> bool:
        """Whether a link leads to a file inside the folder, or to one that DVC keeps."""
        target = os.path.realpath(path)
        inside = os.path.commonpath((target, self._real_root)) == self._real_root
        return os.path.isfile(target) and (inside or bool(_DVC_CACHE.search(Path(target).as_posix())))

    def read(self, names: Iterable[str], limit: int = MAX_BYTES) -> Iterator[tuple[str, bytes | TooLarge]]:
        for name in names:
            try:
                # A link is looked at again, and its target opened, so that none that changed meanwhile leads outside.
                path = self._root / name
                real = os.path.realpath(path) if path.is_symlink() and self._stays(str(path)) else path
                descriptor = os.open(real, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
                with os.fdopen(descriptor, "rb") as handle:
                    yield name, _bounded(handle, limit)
            except OSError as error:
                raise UserError(f"{self._root / name} cannot be read ({error.strerror}); check its rights.") from error


class _Remote(Archive):
    """A folder on an fsspec file system."""

    def __init__(self, filesystem: fsspec.AbstractFileSystem, root: str):
        self._filesystem, self._root = filesystem, root.rstrip("/")
        names: list[str] = []
        skipped: Counter[str] = Counter()
        for path, about in filesystem.find(self._root, detail=True).items():
            name = path[len(self._root) :].lstrip("/")
            if about.get("islink"):
                skipped["links"] += 1
            elif reason := _unusable(name):
                skipped[reason] += 1
            else:
                names.append(name)
        super().__init__(sorted(names), skipped)

    def read(self, names: Iterable[str], limit: int = MAX_BYTES) -> Iterator[tuple[str, bytes | TooLarge]]:
        for name in names:
            path = f"{self._root}/{name}"
            try:
                with self._filesystem.open(path, "rb") as handle:
                    yield name, _bounded(handle, limit)
            except OSError as error:
                raise UserError(f"{path} cannot be read ({error}); check the address and its rights.") from error


class _Zip(Archive):
    def __init__(self, handle, name: str, size: int):
        self._zip, self._handle, self._name = zipfile.ZipFile(handle), handle, name
        self._members: dict[str, zipfile.ZipInfo] = {}
        skipped: Counter = Counter()
        _refuse_bomb(name, size, sum(member.file_size for member in self._zip.infolist()))
        for member in self._zip.infolist():
            if member.is_dir():
                continue
            path = _zip_name(member)
            if stat.S_ISLNK(member.external_attr >> 16):
                skipped["links"] += 1
            elif reason := _unusable(path):
                skipped[reason] += 1
            else:
                self._members[path] = member
        super().__init__(sorted(self._members), skipped)

    def read(self, names: Iterable[str], limit: int = MAX_BYTES) -> Iterator[tuple[str, bytes | TooLarge]]:
        for name in names:
            try:
                with self._zip.open(self._members[name]) as handle:
                    yield name, _bounded(handle, limit)
            except RuntimeError as error:  # what zipfile raises for a member under a password
                raise UserError(f"{self._name}: {error}; pack it again without a password.") from error
            except (zipfile.BadZipFile, NotImplementedError, zlib.error, OSError, EOFError) as error:
                raise UserError(f"{self._name}: the member {name} is damaged ({error}); fetch it again.") from error

    def close(self) -> None:
        self._zip.close()
        self._handle.close()


def _zip_name(member: zipfile.ZipInfo) -> str:
    """The member's name; programs that write UTF-8 without saying so are read as what they meant."""
    name = member.filename
    if not member.flag_bits & 0x800:
        with suppress(UnicodeError):
            name = name.encode("cp437").decode("utf-8")
    return unicodedata.normalize("NFC", name.replace("\\", "/"))


class _Tar(Archive):
    def __init__(self, handle, name: str, size: int):
        self._handle, self._name = handle, name
        self._tar = tarfile.open(fileobj=handle, mode="r:*")  # noqa: SIM115 (closed by close)
        self._members: dict[str, tarfile.TarInfo] = {}
        skipped: Counter = Counter()
        unpacked = 0
        for member in self._tar:
            unpacked += member.size
            _refuse_bomb(name, size, unpacked)
            path = unicodedata.normalize("NFC", member.name.removeprefix("./"))
            if member.isdir():
                continue
            if member.issym() or member.islnk():
                skipped["links"] += 1
            elif not member.isfile():
                skipped["ignored"] += 1
            elif reason := _unusable(path):
                skipped[reason] += 1
            else:
                self._members[path] = member
        super().__init__(sorted(self._members), skipped)

    def read(self, names: Iterable[str], limit: int = MAX_BYTES) -> Iterator[tuple[str, bytes | TooLarge]]:
        # In the order of the file: going back and forth would decompress it again and again.
        for name in sorted(names, key=lambda name: self._members[name].offset_data):
            try:
                with self._tar.extractfile(self._members[name]) or io.BytesIO() as handle:  # None: no plain file
                    yield name, _bounded(handle, limit)
            except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
                raise UserError(f"{self._name}: the member {name} is damaged ({error}); fetch it again.") from error

    def close(self) -> None:
        self._tar.close()
        self._handle.close()


def _bounded(handle, limit: int) -> bytes | TooLarge:
    data = handle.read(limit + 1)
    return data if len(data) <= limit else TooLarge(f"larger than {limit:,} bytes")
