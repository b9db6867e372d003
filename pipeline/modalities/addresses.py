"""Folders and files at any address: this machine, ssh://, s3://, webdavs:// and whatever else fsspec knows."""

import fsspec
from fsspec.config import conf
from fsspec.core import url_to_fs

# What the libraries raise when an address cannot be reached, each its own.
UNREACHABLE: tuple[type[Exception], ...] = (OSError,)
try:
    from botocore.exceptions import BotoCoreError

    UNREACHABLE += (BotoCoreError,)
except ImportError:
    pass
try:
    from httpx import HTTPError
    from webdav4.client import ClientError

    UNREACHABLE += (HTTPError, ClientError)
except ImportError:
    pass

# What `opened` raises of an address that cannot be opened.
UNOPENABLE: tuple[type[Exception], ...] = (*UNREACHABLE, ImportError, ValueError)

_WEBDAV = {"webdav": "http", "dav": "http", "webdavs": "https", "davs": "https"}


def opened(address: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of an address, and the path on it.

    Raises ImportError if the extra of its protocol is not installed, ValueError if the protocol is unknown or a part of
    the address is missing, and what UNREACHABLE lists if it must be asked at once and does not answer.
    """
    protocol, _, rest = address.partition("://")
    if protocol not in _WEBDAV:
        return url_to_fs(address)
    # webdav4 wants the server apart from the path, and fsspec cannot take them apart for it.
    host, _, path = rest.partition("/")
    if not host:
        raise ValueError("it names no host")
    auth = conf.get("webdav", {}).get("auth")
    login = {"auth": tuple(auth)} if auth else {}
    return fsspec.filesystem("webdav", base_url=f"{_WEBDAV[protocol]}://{host}", **login), path.rstrip("/")
