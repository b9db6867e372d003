"""TuckER (Balažević et al., 2019, arXiv 1901.09590): the scorer that MoMoK and MyGO share, and the baseline itself."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainers.kernels.tucker import contract

DROPOUT = (0.3, 0.4, 0.5)  # on the input, on the relation's matrix, on the output: the papers' values


class TuckERScorer(nn.Module):
    """A known entity and a relation to a query vector, to be compared with every candidate by a dot product.

    q = dropout(BN1(dropout(BN0(x)) · dropout(M_r))) with M_r = Σ_k r_k W_k (Eq. 3 of the paper, with its
    regularisation). The dropout on M_r falls on each query separately, also where queries share a relation.

    Names of the weights: `W` (D_r, D, D), `bn0`, `bn1`.
    """

    def __init__(
        self,
        width: int,
        relation_width: int,
        *,
        dropout: tuple[float, float, float] = DROPOUT,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.W = nn.Parameter(torch.empty(relation_width, width, width))
        nn.init.xavier_uniform_(self.W, generator=generator)
        self.bn0 = nn.BatchNorm1d(width)
        self.bn1 = nn.BatchNorm1d(width)
        self.dropout = dropout

    def forward(self, x: Tensor, relation: Tensor, index: Tensor | None = None) -> Tensor:
        """Query vectors (B, D) of entities `x` (B, D) under `relation` (U, D_r).

        `index` (B,) int64 says which row of `relation` each query has; None: query i has row i (U = B). Giving each
        distinct relation once saves the product with W, which is most of the work.
        """
        on_input, on_matrix, on_output = self.dropout if self.training else (0.0, 0.0, 0.0)
        x = F.dropout(self.bn0(x), on_input)
        return F.dropout(self.bn1(contract(x, relation, self.W, index, on_matrix)), on_output)

    def matrices(self, relation: Tensor) -> Tensor:
        """M_r (U, D, D) of the relation vectors (U, D_r), as evaluation wants them: once a relation."""
        return (relation @ self.W.flatten(1)).unflatten(1, self.W.shape[1:])

    def apply_matrices(self, x: Tensor, matrices: Tensor, index: Tensor) -> Tensor:
        """Query vectors (B, D) from prepared matrices (U, D, D) and their rows `index` (B,), in evaluation mode."""
        x = self.bn0(x)
        out = torch.empty_like(x)
        for u in torch.unique(index).tolist():
            rows = (index == u).nonzero().squeeze(1)
            out[rows] = x[rows] @ matrices[u]
        return self.bn1(out)
