"""AdaMF: AdaMF-MAT without its adversaries (μ = 0), as the released commands train it. All else is `adamf_mat`."""

from dataclasses import dataclass

from trainers.models import adamf_mat
from trainers.models.adamf_mat import NEEDS, Learner, build

__all__ = ["NEEDS", "Learner", "Settings", "build"]


@dataclass(frozen=True)
class Settings(adamf_mat.Settings):
    """The hyperparameters of AdaMF-MAT; μ = 0 unless said otherwise."""

    mu: float = 0.0
