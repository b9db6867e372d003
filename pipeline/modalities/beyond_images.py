"""What the pictures of an entity show, in words: the captions of Beyond-Images (Zenodo 14847095, CC-BY-4.0).

The release is one archive, `img_text_summary.zip`, of JSON files, two for each of MKG-W, MKG-Y and DB15K: captions of
the original pictures and of those that its authors added, made by BLIP-2::

    {"<name>": {"entity_name": …, "entity_qid": "Q42", "dbpedia_url": …, "wikidata_url": …,
                "images": {"Q42_1": {"image_description_detail": "a man in …"}, …, "merged_descriptions": "…"}}}

"NAN" stands for what is not known. An entity is found by its Q-id, its URI or its name.
"""

import hashlib
import io
import json
import logging
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pipeline.errors import NO_JSON, UserError
from pipeline.graph.labels import table_key
from pipeline.modalities.texts import Described, with_captions

log = logging.getLogger(__name__)

ARCHIVE = "img_text_summary.zip"
MD5 = "e5464dcb76501c10b692afd309139a50"  # the only checksum that its publishers give
LARGEST = 2**30  # bytes of one JSON file, unpacked


def described(
    keys: Sequence[str],
    labels: Sequence[str],
    base: Sequence[Described | None],
    path: Path,
    graph: str,
    captions: Literal["merged", "each"],
) -> tuple[list[Described | None], dict[str, int]]:
    """For each entity what is known of it (`base`), its description followed by what its pictures show; counts.

    captions: "merged" takes each file's merged description; "each" the captions one by one, each only once. Of the
    archive, the files of `graph` are read, those whose names begin with it, or all if there are none.
    Raises UserError if the archive is missing or of another form.
    """
    known = _by_name(path, graph, captions)
    found: list[Described | None] = []
    counts = {"with_captions": 0, "captions": 0}
    for key, label, one in zip(keys, labels, base, strict=True):
        shown = known.get(table_key(key)) or known.get(key.replace(" ", "_"))
        if not shown:
            found.append(one)
            continue
        counts["with_captions"] += 1
        counts["captions"] += len(shown)
        found.append(with_captions(one, label, shown, "beyond_images"))
    return found, counts


def _by_name(path: Path, graph: str, captions: str) -> dict[str, list[str]]:
    """Captions by Q-id, by URI and by name."""
    found: dict[str, dict[str, None]] = {}
    for name, table in _tables(path, graph):
        for entity, row in table.items():
            try:
                shown = _captions(row["images"], captions)
                names = [entity, row.get("entity_qid"), row.get("dbpedia_url")]
            except (KeyError, TypeError, AttributeError) as error:
                raise UserError(f"{path}, {name}: {entity[:80]!r} is no row of Beyond-Images ({error!r}).") from error
            for one in {one for one in names if isinstance(one, str) and one not in ("", "NAN")}:
                found.setdefault(one, {}).update(dict.fromkeys(shown))
    return {name: list(shown) for name, shown in found.items() if shown}


def _captions(images: Mapping[str, Any], captions: str) -> list[str]:
    if captions == "merged":
        shown = [images.get("merged_descriptions")]
    else:
        shown = [one.get("image_description_detail") for one in images.values() if isinstance(one, dict)]
    words = [" ".join(one.split()) for one in shown if isinstance(one, str)]
    return [one for one in words if one and one != "NAN"]


def _tables(path: Path, graph: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The archive's JSON files that belong to the graph, in the order of their names."""
    try:
        with zipfile.ZipFile(path) as archive:
            every = [
                one for one in archive.infolist() if one.filename.endswith(".json") and "__MACOSX" not in one.filename
            ]
            ours = [one for one in every if Path(one.filename).name.lower().startswith(graph.lower())]
            if not every:
                raise UserError(f"{path} holds no JSON file; it is not the archive of Beyond-Images.")
            _say_if_other(path)
            for one in sorted(ours or every, key=lambda one: one.filename):
                if one.file_size > LARGEST:
                    raise UserError(f"{path}: {one.filename} is larger than 1 GiB; it is not of Beyond-Images.")
                table = json.load(io.TextIOWrapper(archive.open(one), encoding="utf-8"))
                if not isinstance(table, dict):
                    raise UserError(f"{path}: {one.filename} is no table of entities; it is not of Beyond-Images.")
                yield one.filename, table
    except FileNotFoundError as error:
        raise UserError(
            f"{path} is not there; put {ARCHIVE} of Zenodo 14847095 under `files` in configs/graphs/{graph}.yaml, or "
            "into the graph's own folder."
        ) from error
    except (zipfile.BadZipFile, *NO_JSON) as error:
        raise UserError(f"{path} is not the archive of Beyond-Images ({str(error)[:100]}); fetch it again.") from error


def _say_if_other(path: Path) -> None:
    with open(path, "rb") as file:
        if (digest := hashlib.file_digest(file, "md5").hexdigest()) != MD5:
            log.warning("%s is not the archive that was published (MD5 %s, not %s); it is read all the same.",
                        path, digest, MD5)  # fmt: skip
