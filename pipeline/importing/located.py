"""Triples that lie at an address, or in a zip or tar: brought to files here, which are then read as any."""

import hashlib
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from pipeline.download.sources import fetch
from pipeline.errors import UserError
from pipeline.modalities.archives import TooLarge, open_archive
from pipeline.retry import RetryPolicy

_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".txz")
_KINDS = (".txt", ".tsv", ".csv", ".nt", ".ttl", ".parquet", ".pq")
_MOST_BYTES = 4 * 2**30  # of one file in an archive


def located(source: object, work: Path, *, mirror: str | None = None, retry: RetryPolicy | None = None) -> object:
    """What `read_triples` reads: an address fetched, an archive's files of triples laid into a folder below `work`.

    An archive with one such file means that file; with several, the folder of them. Anything else stays as it is.
    Raises UserError if an address does not answer, or an archive holds no file of triples.
    """
    if not isinstance(source, str | Path):
        return source
    path = Path(source)
    own = work / hashlib.sha256(str(source).encode()).hexdigest()[:12]  # two sources may end in the same name
    if isinstance(source, str) and source.startswith(("http://", "https://")):
        name = PurePosixPath(urlsplit(source).path).name or "triples"
        path = fetch(source, None, own / name, mirror=mirror, record=work / "checksums.json", retry=retry).path
    return _unpacked(path, own / "unpacked" / path.name) if path.name.lower().endswith(_ARCHIVES) else path


def _unpacked(path: Path, into: Path) -> Path:
    """The files of triples of an archive, each by its own name: folders within it are left out, so nothing escapes."""
    with open_archive(path) as archive:
        names = [name for name in archive.names if PurePosixPath(name).suffix.lower() in _KINDS]
        own = {PurePosixPath(name).name for name in names}
        if not names or len(own) != len(names):
            said = "two files of one name" if names else f"no file of triples ({', '.join(_KINDS)})"
            raise UserError(f"{path} holds {said}; unpack it and name the files themselves.")
        into.mkdir(parents=True, exist_ok=True)
        for old in set(into.iterdir()) - {into / name for name in own}:
            old.unlink()
        for name, data in archive.read(names, limit=_MOST_BYTES):
            if isinstance(data, TooLarge):
                raise UserError(f"{path}: {name} is larger than {_MOST_BYTES >> 30} GiB; unpack it yourself.")
            (into / PurePosixPath(name).name).write_bytes(data)
    return into / next(iter(own)) if len(own) == 1 else into
