"""Completions as other programs read them: TSV, CSV, N-Triples, Turtle."""

import csv
import re
from collections.abc import Callable, Iterator
from io import StringIO
from urllib.parse import quote

import pyarrow as pa

# An IRI has a scheme; of what else it may not hold (RFC 3987, and N-Triples' production IRIREF) each is encoded.
_IRI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[^\s]+")
# What prefixes stand for in the graphs that are released with prefixed names.
_PREFIXES = {
    "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
    "rdfs": "http://www.w3.org/2000/01/rdf-schema#",
    "owl": "http://www.w3.org/2002/07/owl#",
    "skos": "http://www.w3.org/2004/02/skos/core#",
    "foaf": "http://xmlns.com/foaf/0.1/",
    "dbo": "http://dbpedia.org/ontology/",
    "dbp": "http://dbpedia.org/property/",
    "dbr": "http://dbpedia.org/resource/",
    "wd": "http://www.wikidata.org/entity/",
    "wdt": "http://www.wikidata.org/prop/direct/",
}
_FORBIDDEN = re.compile(r'[\x00-\x20<>"{}|^`\\]')


def delimited(table: pa.Table, delimiter: str) -> str:
    """A header and a line a completion; the keys first, so that the first three columns are the triple."""
    ids = ("head", "relation", "tail")
    keys = [f"{name}_key" for name in ids]
    names = keys + [name for name in table.column_names if name not in (*ids, *keys)]
    text = StringIO()
    writer = csv.writer(text, delimiter=delimiter, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(zip(*(table[name].to_pylist() for name in names), strict=True))
    return text.getvalue()


def n_triples(table: pa.Table) -> str:
    """A line `<head> <relation> <tail> .` a completion."""
    return "".join(f"{triple} .\n" for triple in _triples(table))


def turtle(table: pa.Table) -> str:
    """As N-Triples, which Turtle includes, with each completion's probability as a comment behind it."""
    said = ("" if one is None else f"  # {one:.4f}" for one in table["probability"].to_pylist())
    return "".join(f"{triple} .{comment}\n" for triple, comment in zip(_triples(table), said, strict=True))


def iri(key: str) -> str:
    """A key as an IRI: itself if it is one, a usual prefix written out, else `urn:tessera:` and the key encoded."""
    prefix, _, name = key.partition(":")
    if name and prefix in _PREFIXES:
        whole = _PREFIXES[prefix] + name
    else:
        whole = key if _IRI.fullmatch(key) else f"urn:tessera:{quote(key, safe='')}"
    return f"<{_FORBIDDEN.sub(lambda found: f'%{ord(found[0]):02X}', whole)}>"


def _triples(table: pa.Table) -> Iterator[str]:
    columns = (table[f"{name}_key"].to_pylist() for name in ("head", "relation", "tail"))
    return (" ".join(map(iri, row)) for row in zip(*columns, strict=True))


FORMATS: dict[str, Callable[[pa.Table], str]] = {
    "tsv": lambda table: delimited(table, "\t"),
    "csv": lambda table: delimited(table, ","),
    "nt": n_triples,
    "ttl": turtle,
}
