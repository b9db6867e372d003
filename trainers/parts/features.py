"""Entity tables made of pooled features, with an answer to missing ones."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainers.parts.replace_modality import StandIn, replaced_rows
from trainers.training.data import Features

# MoMoK's code lays features out as pictures and pools those: (width, to) -> (rows, columns) -> (rows, columns).
GRIDS = {
    (4096, 256): ((64, 64), (16, 16)),
    (768, 256): ((12, 64), (4, 64)),
}


def pool(matrix: Tensor, width: int) -> Tensor:
    """(N, D) normalised to length 1 and, if wider than `width` (> 0), pooled to it; narrower ones stay as they are.

    Widths in GRIDS are pooled in two dimensions, as MoMoK's code does; others by an adaptive average over neighbours.
    """
    matrix = F.normalize(matrix, dim=1)
    wide = matrix.shape[1]
    if width == 0 or wide <= width:
        return matrix
    if (wide, width) in GRIDS:
        grid, to = GRIDS[wide, width]
        return F.adaptive_avg_pool2d(matrix.unflatten(1, grid).unsqueeze(1), to).flatten(1)
    return F.adaptive_avg_pool1d(matrix.unsqueeze(1), width).squeeze(1)


def rows_of(table: Tensor, entities: Tensor | None, sparse: bool) -> Tensor:
    """Rows (B, D) of `table` (N, D), or all; `sparse`: with a gradient that holds these rows only."""
    if not sparse:
        return table if entities is None else table[entities]
    return F.embedding(
        torch.arange(len(table), device=table.device) if entities is None else entities, table, sparse=True
    )


class Structure(nn.Module):
    """One trained vector per entity."""

    def __init__(self, entities: int, width: int, *, sparse: bool = False):
        super().__init__()
        self.width, self.sparse = width, sparse
        self.table = nn.Parameter(nn.init.xavier_normal_(torch.empty(entities, width)))

    def forward(self, entities: Tensor | None) -> Tensor:
        """Vectors (B, D) of entities (B,); None: of all, in order."""
        return rows_of(self.table, entities, self.sparse)

    def present(self, entities: Tensor | None) -> Tensor:
        """(B,) bool: always."""
        rows = len(self.table) if entities is None else len(entities)
        return torch.ones(rows, dtype=torch.bool, device=self.table.device)


class Pooled(nn.Module):
    """One trained vector per entity, which starts as its pooled feature.

    `missing` says what an entity without the feature gets: "mean" (of those there are) or "zero", a row of its own
    that starts there, as the reference code has it; "learned", one trained vector for all of them; "mask", a zero
    vector that readers of `present` leave out.
    """

    slot: Tensor  # (E,) int64: the row of each entity in `table`, the one beyond its last for those without

    def __init__(self, given: Features, entities: int, width: int, missing: str, *, sparse: bool = False):
        super().__init__()
        self.sparse = sparse
        rows = pool(given.matrix, width)
        self.width, self.shared, self.missing = rows.shape[1], missing in ("learned", "mask"), missing
        if self.shared:
            self.table = nn.Parameter(rows.clone())
            slot = torch.full((entities,), len(rows))
            slot[given.entity] = torch.arange(len(rows))
            self.register_buffer("slot", slot)
            scale = self.width**-0.5 if missing == "learned" else 0.0
            self.absent = nn.Parameter(torch.randn(1, self.width) * scale, requires_grad=missing == "learned")
        else:
            start = rows.mean(0) if missing == "mean" and len(rows) else rows.new_zeros(self.width)
            table = start.repeat(entities, 1)
            table[given.entity] = rows
            self.table = nn.Parameter(table)

    def forward(self, entities: Tensor | None) -> Tensor:
        """Vectors (B, D) of entities (B,); None: of all, in order."""
        if self.shared:
            rows = self.slot if entities is None else self.slot[entities]
            if not self.sparse or not len(self.table):
                return torch.cat([self.table, self.absent])[rows]
            own = rows_of(self.table, rows.clamp(max=len(self.table) - 1), sparse=True)
            return torch.where((rows < len(self.table)).unsqueeze(1), own, self.absent)
        return rows_of(self.table, entities, self.sparse)

    def present(self, entities: Tensor | None) -> Tensor:
        """(B,) bool: which entities have the feature; with "mean" and "zero" every entity has a row."""
        if self.shared:
            return (self.slot if entities is None else self.slot[entities]) < len(self.table)
        rows = len(self.table) if entities is None else len(entities)
        return torch.ones(rows, dtype=torch.bool, device=self.table.device)

    @torch.no_grad()
    def replace_modality(
        self, before: Features, after: Features, entities: int, stand_in: StandIn | None = None
    ) -> None:
        """After training on `before`, let exactly those of `after` have the modality, of `entities` entities."""
        now = self(None)
        if self.missing == "mean" and len(before.entity):
            fallback = now[before.entity].mean(0)
        else:
            fallback = self.absent[0] if self.shared else now.new_zeros(self.width)
        rows = replaced_rows(now, before, after, pool(after.matrix, self.width), fallback, entities, stand_in)
        if not self.shared:
            self.table = nn.Parameter(rows)
            return
        self.table = nn.Parameter(rows[after.entity])
        self.slot = self.slot.new_full((entities,), len(after.entity))
        self.slot[after.entity] = torch.arange(len(after.entity), device=rows.device)
