"""What a trainer reads: the graph's triples and the modalities of its entities, from Parquet into tensors."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import torch
from torch import Tensor

from pipeline import tables
from pipeline.errors import UserError
from pipeline.graph.vocabulary import SPLITS
from trainers.training.memmap import Memmap, open_table


@dataclass(frozen=True)
class Features:
    """Pooled vectors of the entities that have a modality. A missing modality is a missing row."""

    entity: Tensor  # (N,) int64, ascending
    matrix: Tensor  # (N, D) float32
    memmap: Memmap | None = None  # if `matrix` stays on disk: what it is a copy of

    def mean(self) -> Tensor:
        """(D,) mean of the rows there are; a memory-mapped matrix keeps it, and need not be read for it."""
        return self.matrix.mean(0) if self.memmap is None else self.memmap.mean


@dataclass(frozen=True)
class Tokens:
    """All tokens of the entities that have a modality, and the vectors they stand for.

    Lists of one entity (its pictures) stand next to one another, by image_ix; list i is
    `values[offsets[i] : offsets[i + 1]]`. `values` index rows of `codebook`, whose row k is the token `token_id[k]`.
    """

    entity: Tensor  # (L,) int64, ascending, one per list
    offsets: Tensor  # (L + 1,) int64
    values: Tensor  # (sum of lengths,) int64
    token_id: Tensor  # (C,) int64, ascending
    codebook: Tensor  # (C, W) float32


@dataclass(frozen=True)
class Data:
    """One graph with its modalities, as every model sees it. `features` and `tokens` have names of `MODALITIES`."""

    name: str
    entities: int
    relations: int
    train: Tensor  # (n, 3) int64: head, relation, tail
    dev: Tensor
    test: Tensor
    features: dict[str, Features]
    tokens: dict[str, Tokens]
    facts: Tensor | None = None  # (n, 3): all that ranking filters by; None: those of train, dev and test


def load(
    graph: str | Path,
    encoded: str | Path,
    *,
    name: str,
    features: Iterable[str] = (),
    tokens: Iterable[str] = (),
    memmap: Path | None = None,
) -> Data:
    """Read `<graph>/{entities,relations,triples}.parquet` and the named modalities of `<encoded>/<modality>/`.

    With a folder `memmap`, the features' matrices are unpacked there once and stay on disk (see memmap.py).

    Raises UserError if a table is missing or damaged, or names entities or tokens that do not exist.
    """
    graph, encoded = Path(graph), Path(encoded)
    entities = tables.read(graph / "entities.parquet", "entities", ["entity_id"]).num_rows
    relations = tables.read(graph / "relations.parquet", "relations", ["relation_id"]).num_rows
    triples = tables.read(graph / "triples.parquet", "triples")
    rows = np.stack([triples[column].to_numpy() for column in ("head", "relation", "tail")], axis=1).astype(np.int64)
    return Data(
        name=name,
        entities=entities,
        relations=relations,
        **{which: torch.from_numpy(rows[pc.equal(triples["split"], which).to_numpy()]) for which in SPLITS},
        features={which: read_features(encoded / which / "features.parquet", entities, memmap) for which in features},
        tokens={which: read_tokens(encoded / which, entities) for which in tokens},
    )


def read_features(path: str | Path, entities: int, memmap: Path | None = None) -> Features:
    """A features table as tensors, its matrix mapped from the folder `memmap` if one is given.

    Raises UserError if it names an entity beyond `entities` or holds a NaN.
    """
    if memmap is not None:
        entity, mapped, source = open_table(path, memmap)
        _check_entities(path, entity.numpy(), entities)
        return Features(entity, mapped, source)
    ids, matrix = tables.features(path)
    _check_entities(path, ids, entities)
    if not np.isfinite(matrix).all():
        bad = int(ids[~np.isfinite(matrix).all(axis=1)][0])
        raise UserError(f"{path} holds a feature that is not a finite number (entity {bad}); encode it again.")
    return Features(torch.from_numpy(ids.astype(np.int64)), torch.from_numpy(np.array(matrix)))


def read_tokens(folder: str | Path, entities: int) -> Tokens:
    """A folder's tokens and codebook as tensors.

    Raises UserError if the tokens name an entity beyond `entities`, or a token that the codebook lacks.
    """
    path = Path(folder) / "tokens.parquet"
    table = tables.tokens_in_order(tables.read(path, "tokens"))
    lists = tables.ragged(table["token_ids"])
    ids = table["entity_id"].to_numpy()
    _check_entities(path, ids, entities)
    token_id, codebook = tables.codebook(Path(folder) / "codebook.parquet")
    values = np.searchsorted(token_id, lists.values)
    known = values < len(token_id)
    known[known] = token_id[values[known]] == lists.values[known]
    if not known.all():
        absent = np.unique(lists.values[~known])
        raise UserError(
            f"{path} holds {len(absent)} token ids that its codebook lacks (such as {absent[0]}); encode both again."
        )
    return Tokens(
        entity=torch.from_numpy(ids.astype(np.int64)),
        offsets=torch.from_numpy(lists.offsets),
        values=torch.from_numpy(values.astype(np.int64)),
        token_id=torch.from_numpy(token_id.astype(np.int64)),
        codebook=torch.from_numpy(np.array(codebook)),
    )


def _check_entities(path: str | Path, ids: np.ndarray, entities: int) -> None:
    if len(ids) and not 0 <= ids.min() <= ids.max() < entities:
        raise UserError(f"{path} names entity {ids.max()}, but the graph has {entities}; encode this graph again.")
