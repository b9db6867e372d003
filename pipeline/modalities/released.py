"""What the authors of a graph released, imported as it is: feature tensors, token files with their codebooks, HDF5.

So a user who holds the authors' files trains with exactly their inputs. Nothing is executed: tensors are read with
`weights_only`, HDF5 without links or outside storage. What does not fit the graph is said with counts and examples.

The forms: `<graph>-visual.pth`, `<graph>-textual.pth`, `img_features.pth`, `text_features.pth` (E x D, in the order of
entity2id; AdaMF-MAT, MoMoK); MyGO's token lists (JSON or zipped JSON: entity -> tokens) with `visual.pth`,
`textual.pth` (tokens x width); MMKB's `*_ImageData.h5` (picture -> vector) with its ImageIndex (entity, picture);
MMRNS's HDF5 (entity -> one vector per sentence or picture).
"""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import tables
from pipeline.errors import UserError, counted
from pipeline.graph.matching import Names
from pipeline.modalities.released_files import read_hdf5, read_index, read_keyed, read_tensor, read_tokens

log = logging.getLogger(__name__)

_COMMON_SHARE = 0.005  # one vector that this share of all rows has (and at least _COMMON_ROWS rows) describes nobody
_COMMON_ROWS = 10


@dataclass(frozen=True)
class Files:
    """One modality's released files.

    Attributes: features, a tensor (.pth, .pt, .npy: E x D), HDF5, or Parquet (key, embedding); tokens, JSON or
    zipped JSON; codebook, a tensor (C x W); index, MMKB's ImageIndex where `features` is keyed by picture;
    tokens_per_picture splits a flat list (196 for 14 x 14), None: one list per entity; padding_rows, how many last
    rows of the codebook are padding, None: as recognised; placeholders, whether rows that stand for "missing" are
    kept.
    """

    features: Path | None = None
    tokens: Path | None = None
    codebook: Path | None = None
    index: Path | None = None
    tokens_per_picture: int | None = None
    padding_rows: int | None = None
    keep_placeholders: bool = False


def import_released(files: Files, names: Names, entities: int, out: Path, provenance: Mapping[str, object]) -> dict:
    """Write `out`/{features,tokens,codebook}.parquet, those for which there are files; returns counts and checksums.

    Raises UserError if a file cannot be read without running its code, has a wrong number of rows, tokens beyond its
    codebook, or names of which none is an entity.
    """
    named = {name: getattr(files, name) for name in ("features", "tokens", "codebook", "index")}
    given = {name: path for name, path in named.items() if path is not None}
    if files.features is None and files.tokens is None:
        raise UserError("Released files are asked for, but neither features nor tokens are named; name one of them.")
    if files.tokens is not None and files.codebook is None:
        raise UserError(f"{files.tokens} holds token ids, which mean nothing without their codebook; name it too.")
    counts: dict[str, object] = {"files": {name: _about(path) for name, path in given.items()}}
    provenance = {**provenance, "released": counts["files"]}
    columns: dict[str, dict] = {}
    # Everything is read and checked before anything is written.
    if files.features is not None:
        columns["features"], counts["features"] = _features(files, files.features, names, entities)
    if files.tokens is not None and files.codebook is not None:
        codebook, padding, counts["codebook"] = _codebook(files.codebook, files.padding_rows)
        ids = np.arange(len(codebook), dtype=np.int32)
        columns["codebook"] = {"token_id": ids, "embedding": codebook}
        columns["tokens"], counts["tokens"] = _tokens(files, files.tokens, names, len(codebook), padding)
    for kind, found in columns.items():
        tables.write(out / f"{kind}.parquet", kind, found, provenance)
    return counts


def _about(path: Path) -> dict:
    try:
        with open(path, "rb") as handle:
            digest = hashlib.file_digest(handle, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); correct the path in the graph's file.") from error
    return {"path": str(path), "sha256": digest, "bytes": path.stat().st_size}


# ------------------------------------------------------------------------------------------------ features
def _features(files: Files, path: Path, names: Names, entities: int) -> tuple[dict, dict]:
    if path.suffix in (".h5", ".hdf5"):
        ids, matrix, count, about = _from_hdf5(path, files.index, names)
    elif path.suffix == ".parquet":
        ids, matrix, count, about = _from_parquet(path, names)
    else:
        matrix = read_tensor(path)
        if len(matrix) != entities:
            raise UserError(
                f"{path} has {len(matrix):,} rows, but the graph has {entities:,} entities; "
                "it belongs to another graph, or to another version of this one."
            )
        ids, count, about = np.arange(entities), np.ones(entities, dtype=np.int32), {}
    kinds = placeholders(matrix)
    standing = {name: int(rows.sum()) for name, rows in kinds.items()}
    missing = np.logical_or.reduce(list(kinds.values()))
    # A vector that is no number cannot be trained on, whatever the key says.
    drop = kinds["not_finite"] if files.keep_placeholders else missing
    about |= {
        "rows": len(matrix), "width": int(matrix.shape[1]), "placeholders": standing, "dropped": int(drop.sum()),
        "kept": int((~drop).sum()), "examples": {name: ids[rows][:5].tolist() for name, rows in kinds.items()},
    }  # fmt: skip
    if drop.all():
        raise UserError(f"{path}: every row stands for a missing entity ({standing}); it is of no use.")
    rows = {"entity_id": ids[~drop].astype(np.int32), "embedding": matrix[~drop], "count": count[~drop]}
    return rows, about


def placeholders(matrix: np.ndarray) -> dict[str, np.ndarray]:
    """Which rows of (N, D) stand for "missing", by kind, each a mask (N,); a row is of the first kind that fits.

    not_finite: holds a NaN or infinity; zero; constant: one number D times; mean: the mean of the rows that are real
    (the usual stand-in), to 1e-3 of each column's spread; common: one vector that 0.5% of all rows share, at least 10.
    """
    finite = np.isfinite(matrix).all(axis=1)
    zero = finite & ~matrix.any(axis=1)
    constant = finite & ~zero & (matrix.shape[1] > 1) & (matrix == matrix[:, :1]).all(axis=1)
    rest = finite & ~zero & ~constant
    common = rest & (_times(matrix) >= max(_COMMON_ROWS, _COMMON_SHARE * len(matrix)))
    mean = rest & _is_mean(matrix, matrix[rest & ~common])
    return {
        "not_finite": ~finite, "zero": zero, "constant": constant, "mean": mean, "common": common & ~mean,
    }  # fmt: skip


def _times(matrix: np.ndarray) -> np.ndarray:
    """(N,): how many rows are equal to each row, itself among them."""
    digests = [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in np.ascontiguousarray(matrix)]
    _, group, size = np.unique(np.array(digests, dtype="S16"), return_inverse=True, return_counts=True)
    return size[group]


def _is_mean(matrix: np.ndarray, real: np.ndarray) -> np.ndarray:
    """(N,): whether each row is the mean of the rows that are real."""
    if len(real) < 3:
        return np.zeros(len(matrix), dtype=bool)
    mean, spread = real.mean(axis=0, dtype=np.float64), real.std(axis=0, dtype=np.float64)
    near = np.zeros(len(matrix), dtype=bool)
    for start in range(0, len(matrix), 1024):
        part = matrix[start : start + 1024]
        near[start : start + 1024] = (np.abs(part - mean) <= 1e-3 * spread + 1e-9).all(axis=1)
    return near


def _from_hdf5(path: Path, pictures: Path | None, names: Names) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict]:
    """Vectors by name, averaged over an entity's pictures or sentences; `count` says over how many.

    A row that is not finite stays out of its entity's mean; an entity all of whose rows are such has a vector of NaN.
    """
    index = read_index(pictures) if pictures else None
    total: dict[str, np.ndarray] = {}
    count: dict[str, int] = {}
    not_finite = 0
    unknown: list[str] = []
    for name, rows in read_hdf5(path):
        owners = [name] if index is None else index.get(name, [])
        if not owners:
            unknown.append(name)
        good = rows[np.isfinite(rows).all(axis=1)]
        not_finite += len(rows) - len(good)
        for owner in owners:
            if owner in total and total[owner].shape != rows.shape[1:]:
                raise UserError(f"{path}: {name} has {rows.shape[1]} numbers per row, others have another number.")
            total[owner] = total.get(owner, 0.0) + good.sum(axis=0, dtype=np.float64)
            count[owner] = count.get(owner, 0) + len(good)
    matched = names.match(total)
    _require_some(path, matched.entity, len(total), matched.unmatched)
    widths = {vector.shape for vector in total.values()}
    if len(widths) > 1:
        raise UserError(f"{path} holds vectors of {len(widths)} widths; only one width makes a table.")
    owner_of: dict[int, str] = {}
    for owner, entity in matched.entity.items():
        owner_of.setdefault(entity, owner)
    ids = np.array(sorted(owner_of))
    counts = np.array([count[owner_of[one]] for one in ids], dtype=np.int32)
    matrix = np.stack([total[owner_of[one]] / (count[owner_of[one]] or np.nan) for one in ids]).astype(np.float32)
    about: dict = {"names": matched.counts(), "rows_not_finite": not_finite}
    if not_finite:
        log.warning("%s: %s not finite; left out of the means", path, counted(not_finite, "row is", "rows are"))
    if index is not None:
        about |= {"pictures_not_in_index": len(unknown), "pictures_not_in_index_examples": unknown[:5]}
    return ids, matrix, counts, about


def _from_parquet(path: Path, names: Names) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict]:
    """Vectors by key."""
    keys, matrix = read_keyed(path)
    matched = names.match(keys)
    _require_some(path, matched.entity, len(keys), matched.unmatched)
    row_of = {key: row for row, key in enumerate(keys)}
    rows: dict[int, int] = {}
    for key, entity in matched.entity.items():
        rows.setdefault(entity, row_of[key])
    ids = np.array(sorted(rows))
    return ids, matrix[[rows[one] for one in ids]], np.ones(len(ids), dtype=np.int32), {"names": matched.counts()}


def _require_some(path: Path, matched: Mapping, names: int, unmatched: list[str]) -> None:
    if not matched:
        raise UserError(
            f"{path}: none of its {names:,} names is an entity of the graph "
            f"(such as {', '.join(map(repr, unmatched[:3])) or 'none'}); it belongs to another graph."
        )
    if unmatched:
        log.warning("%s: %s of %s names match no entity, such as %r", path, len(unmatched), names, unmatched[0])


# -------------------------------------------------------------------------------------------------- tokens
def _codebook(path: Path, padding_rows: int | None) -> tuple[np.ndarray, int, dict]:
    """(C, W) without its padding rows, how many those were, and what is to be known of it."""
    matrix = read_tensor(path)
    if not np.isfinite(matrix).all():
        raise UserError(f"{path} holds numbers that are not finite; fetch it again.")
    padding = padding_rows if padding_rows is not None else int(_ends_in_padding(matrix))
    if not 0 <= padding < len(matrix):
        raise UserError(f"{path} has {len(matrix)} rows, of which {padding} cannot be padding.")
    about: dict[str, object] = {"rows": len(matrix), "width": int(matrix.shape[1]), "padding_rows": padding}
    bound = 1.0 / len(matrix)
    # VectorQuantizer starts from uniform(-1/C, 1/C): who still has that spread was never trained.
    if np.abs(matrix).max() <= bound * 1.001 and abs(float(matrix.std()) * 3**0.5 / bound - 1) < 0.02:
        about["untrained"] = True
        log.warning("%s looks untrained: uniform within 1/%d", path, len(matrix))
    return matrix[: len(matrix) - padding], padding, about


def _ends_in_padding(matrix: np.ndarray) -> bool:
    """Whether the last row alone is zero, or alone has not the length 1 that all others have."""
    lengths = np.linalg.norm(matrix.astype(np.float64), axis=1)
    if lengths[-1] == 0:
        return bool((lengths[:-1] > 0).all())
    return len(matrix) > 2 and bool(np.allclose(lengths[:-1], 1, atol=1e-3)) and abs(lengths[-1] - 1) > 1e-2


def _tokens(files: Files, path: Path, names: Names, tokens: int, padding: int) -> tuple[dict, dict]:
    lists = read_tokens(path)
    matched = names.match(lists)
    _require_some(path, matched.entity, len(lists), matched.unmatched)
    _refuse_beyond(files, lists, tokens + padding)
    columns: dict[str, list] = {"entity_id": [], "image_ix": [], "token_ids": []}
    about: dict[str, Any] = {
        "lists": 0,
        "tokens": 0,
        "empty": 0,
        "padding_dropped": 0,
        "uneven": 0,
        "repeated_entities": 0,
    }
    uneven, seen = [], set()
    for name in sorted(matched.entity, key=matched.entity.__getitem__):
        entity, parts = matched.entity[name], lists[name]
        if entity in seen:
            about["repeated_entities"] += 1
            continue
        seen.add(entity)
        if files.tokens_per_picture and len(parts) == 1:
            if len(parts[0]) % files.tokens_per_picture:
                uneven.append(name)
            parts = np.split(parts[0], range(files.tokens_per_picture, len(parts[0]), files.tokens_per_picture))
        for place, part in enumerate(parts):
            kept = part[part < tokens]
            about["padding_dropped"] += len(part) - len(kept)
            if not len(kept):
                about["empty"] += 1
                continue
            about["lists"] += 1
            about["tokens"] += len(kept)
            for column, value in zip(columns, (entity, place, kept), strict=True):
                columns[column].append(value)
    if not columns["entity_id"]:
        raise UserError(f"{path} holds no tokens for any entity of the graph; it is of no use.")
    about |= {"uneven": len(uneven), "uneven_examples": uneven[:5], "names": matched.counts()}
    about["special"] = special(columns["token_ids"])
    if about["special"]:
        log.warning(
            "%s: nearly every list begins or ends with %s, as with special tokens ([CLS], [SEP], <s>); each takes one "
            "of the places that a model has for an entity's tokens",
            path,
            " and ".join(map(str, about["special"])),
        )
    return columns, about


def special(lists: Sequence[np.ndarray]) -> list[int]:
    """Token ids that begin, or end, nine of ten lists, of at least 20: what texts alone do not do. Ascending."""
    found = set()
    for place in (0, -1):
        ids, count = np.unique([part[place] for part in lists], return_counts=True)
        if len(lists) >= 20 and count.max() >= 0.9 * len(lists):
            found.add(int(ids[count.argmax()]))
    return sorted(found)


def _refuse_beyond(files: Files, lists: Mapping[str, list[np.ndarray]], tokens: int) -> None:
    beyond = [
        (name, int(part.max())) for name, parts in lists.items() for part in parts if len(part) and part.max() >= tokens
    ]
    if beyond:
        name, token = beyond[0]
        raise UserError(
            f"{files.tokens}: {len(beyond):,} lists hold token ids beyond the {tokens:,} rows of {files.codebook} "
            f"(such as {token} of {name!r}); they belong to another codebook."
        )
