"""AdaMF: AdaMF-MAT without its adversaries (μ = 0), as the released commands train it. All else is `adamf_mat`."""

from dataclasses import dataclass, replace

from trainers.models import adamf_mat
from trainers.models.adamf_mat import Learner, build

__all__ = ["ABOUT", "Learner", "Settings", "build"]

ABOUT = replace(adamf_mat.ABOUT, name="AdaMF")


@dataclass(frozen=True)
class Settings(adamf_mat.Settings):
    """The hyperparameters of AdaMF-MAT; adversarial_weight is 0 unless said otherwise."""

    adversarial_weight: float = 0.0
