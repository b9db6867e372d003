"""TuckER's query (Balažević et al., 2019, arXiv 1901.09590), which the baseline, MoMoK and MyGO share."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainers.kernels.tucker import contract
from trainers.training import processes

DROPOUT = (0.3, 0.4, 0.5)  # on the input, on the relation's matrix, on the output: the papers' values
TOGETHER = 64  # relations whose matrices are held at a time in evaluation


class TuckERScorer(nn.Module):
    """A known entity and a relation to a query vector, to be compared with every candidate by a dot product.

    q = dropout(BN1(dropout(BN0(x)) · dropout(M_r))) with M_r = Σ_k r_k W_k (Eq. 3 of the paper, with its
    regularisation). The dropout on M_r is drawn for each query separately, also where queries share a relation.

    Names of the weights: `W` (D_r, D, D), `bn0`, `bn1`.
    """

    def __init__(
        self,
        dimension: int,
        relation_dimension: int,
        *,
        dropout: tuple[float, float, float] = DROPOUT,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.W = nn.Parameter(torch.empty(relation_dimension, dimension, dimension))
        nn.init.xavier_uniform_(self.W, generator=generator)
        self.bn0 = nn.BatchNorm1d(dimension)
        self.bn1 = nn.BatchNorm1d(dimension)
        self.dropout = dropout

    def forward(self, x: Tensor, relation: Tensor, index: Tensor | None = None) -> Tensor:
        """Query vectors (B, D) of entities `x` (B, D) under `relation` (U, D_r).

        `index` (B,) int64 says which row of `relation` each query has; None: query i has row i (U = B). Giving each
        distinct relation once saves the product with W, which is most of the work.
        """
        on_input, on_matrix, on_output = self.dropout if self.training else (0.0, 0.0, 0.0)
        known = normalised(x, self.bn0)
        x = F.dropout(known, on_input)
        kept = (x != 0) | (known == 0) if on_input else None
        if index is None and self.training:  # each query's own matrix: most of a step, so processes share it

            def part(rows: slice) -> Tensor:
                some = None if kept is None else kept[rows]
                return contract(x[rows], relation[rows], self.W, None, on_matrix, some)

            found = processes.spread(part, len(x), x.device)
        else:
            found = contract(x, relation, self.W, index, on_matrix)
        return F.dropout(normalised(found, self.bn1), on_output)

    def ask(self, x: Tensor, table: Tensor, relation: Tensor) -> Tensor:
        """Query vectors (B, D) for evaluation, of entities `x` (B, D) under `relation` (B,), rows of `table` (R, D_r).

        Each distinct relation's matrix is made once, and freed before the next few are made.
        """
        x = self.bn0(x)
        out = torch.empty_like(x)
        order = torch.argsort(relation, stable=True)
        distinct, counts = torch.unique_consecutive(relation[order], return_counts=True)
        rows = order.split(counts.tolist())
        for start in range(0, len(distinct), TOGETHER):
            vectors = table[distinct[start : start + TOGETHER]]
            matrices = (vectors @ self.W.flatten(1)).unflatten(1, self.W.shape[1:])
            for row, matrix in zip(rows[start : start + TOGETHER], matrices, strict=True):
                out[row] = x[row] @ matrix
        return self.bn1(out)


def normalised(x: Tensor, norm: nn.BatchNorm1d) -> Tensor:
    """`norm` of the batch (B, D). A batch of one row has no variance: it is normalised as in evaluation."""
    if len(x) > 1:
        return norm(x)
    return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
