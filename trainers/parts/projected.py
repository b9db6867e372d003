"""The features of one modality, projected into the space of the entities, with an answer to missing ones."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainers.parts.replace_modality import StandIn, replaced_rows
from trainers.training.data import Features
from trainers.training.sampling import linear_


class ProjectedFeatures(nn.Module):
    """The features of one modality and their projection x ↦ W x + b into the space of the entities.

    What replaces a missing row is decided here once: `mean` and `zero` give each entity that lacks the modality a
    row of its own that starts so (the reference's way), `learned` one row that all of them share, `mask` none (weight 0
    in the fusion). Features that are not trained are not copied, so a memory-mapped table stays one.
    """

    present: Tensor
    row: Tensor
    table: Tensor
    absent: Tensor | None

    def __init__(
        self,
        features: Features,
        entities: int,
        width: int,
        *,
        missing: str,
        trained: bool,
        sparse: bool,
        generator: torch.Generator,
    ):
        super().__init__()
        table, count, wide = features.matrix, len(features.entity), features.matrix.shape[1]
        use_mean = 0 < count < entities and missing in ("mean", "learned")
        fill = features.mean() if use_mean else table.new_zeros(wide)
        present = torch.zeros(entities, dtype=torch.bool)
        present[features.entity] = True
        row = torch.zeros(entities, dtype=torch.int64)
        row[features.entity] = torch.arange(count)
        absent = None
        if count < entities and trained and missing in ("mean", "zero"):
            table, row = fill.repeat(entities, 1), torch.arange(entities)
            table[features.entity] = features.matrix
        elif count < entities and missing != "mask":
            absent = fill[None].clone()
        if not len(table):
            table = torch.zeros(1, wide)
        elif trained and table is features.matrix:
            table = table.clone()
        self.direct = len(table) == entities  # row is the identity
        self.masks = missing == "mask" and count < entities
        self.missing = missing
        self.sparse = sparse and trained
        self.register_buffer("present", present)  # (E,)
        self.register_buffer("row", row)  # (E,)
        if trained:
            self.table = nn.Parameter(table)
        else:
            # A memory-mapped table is in no checkpoint: it is mapped again when the run is loaded.
            self.register_buffer("table", table, persistent=features.memmap is None)
        if missing == "learned" and absent is not None:
            self.absent = nn.Parameter(absent)
        else:
            self.register_buffer("absent", absent)
        self.projection = linear_(nn.Linear(wide, width), generator)

    def forward(self, entity: Tensor | None = None) -> Tensor:
        """(n, 2D) projections of `entity` (n,) int64, or of all (E, 2D)."""
        if entity is not None:
            projected = self.projection(F.embedding(self.row[entity], self.table, sparse=self.sparse))
        else:
            projected = self.projection(self.table)
            projected = projected if self.direct else projected[self.row]
        if self.absent is None:
            return projected
        present = self.present if entity is None else self.present[entity]
        return torch.where(present[:, None], projected, self.projection(self.absent))

    @torch.no_grad()
    def replace_modality(
        self, before: Features, after: Features, entities: int, stand_in: StandIn | None = None
    ) -> None:
        """After training on `before`, let exactly those of `after` have the modality, of `entities` entities."""
        fallback = self._fallback_row(before)
        rows = replaced_rows(self.table[self.row], before, after, after.matrix, fallback, entities, stand_in)
        self.table = nn.Parameter(rows) if isinstance(self.table, nn.Parameter) else rows
        self.row, self.direct = torch.arange(len(rows), device=rows.device), True
        self.present = self.present.new_zeros(entities)
        self.present[after.entity] = True
        self.masks = self.missing == "mask" and not bool(self.present.all())
        if self.missing == "learned" and self.absent is None:
            self.absent = nn.Parameter(fallback[None].clone())

    def _fallback_row(self, before: Features) -> Tensor:
        """(W,) what a missing row is now: the shared one, else the mean of the trained rows, or zeros."""
        if self.missing == "learned" and self.absent is not None:
            return self.absent[0]
        if self.missing in ("zero", "mask") or not len(before.entity):
            return self.table.new_zeros(self.table.shape[1])
        return self.table[self.row[before.entity]].mean(0)
