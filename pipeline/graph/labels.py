"""From the names in a graph's files to the keys of its tables, and to labels for people."""

import re
from urllib.parse import unquote

_WIKIDATA = "http://www.wikidata.org/entity/"
_CAMEL = re.compile(r"[a-z]+([A-Z][a-z]+)+")
_CAPITAL = re.compile(r"([A-Z])")
_PARTS = re.compile(r"[/#]")


def table_key(name: str) -> str:
    """The graph's own name: a URI without its angle brackets, Wikidata's as the bare Q-id or P-id."""
    if name.startswith("<") and name.endswith(">"):
        name = name[1:-1]
    return name.removeprefix(_WIKIDATA)


def readable(key: str) -> str:
    """A label for people out of a key: the last part of a URI, decoded, `_` as a space, camelCase apart."""
    name = key
    if "://" in key:
        rest = key.split("://", 1)[1]
        name = rest.split("/resource/", 1)[1] if "/resource/" in rest else _PARTS.split(rest.rstrip("/#"))[-1]
        name = unquote(name)
    if _CAMEL.fullmatch(name):
        name = _CAPITAL.sub(lambda found: " " + found.group(1).lower(), name)
    return name.replace("_", " ").strip() or key
