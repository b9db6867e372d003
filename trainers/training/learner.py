"""A model in training: what the learners of all models share, and what the loop asks of them."""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import UserError
from trainers.training import processes
from trainers.training.data import Data
from trainers.training.lazy import LazyAdam
from trainers.training.optimizer import autocast


class Learner(ABC):
    """One model with its optimisers, on one device. A subclass says what a batch is and what a step does with it.

    Everything random in an epoch must be a function of (seed, epoch): of these in `batches`, and in `step` of torch's
    global generators, which the loop seeds before each epoch. `optimizers` and `schedulers` are saved in checkpoints;
    a scheduler takes its step after each epoch.
    """

    def __init__(
        self, model: nn.Module, data: Data, settings: Any, *, device: torch.device, precision: torch.dtype, seed: int
    ):
        self.model: Any = model.to(device)
        self.data, self.settings = data, settings
        self.device, self.precision, self.seed = device, precision, seed
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self.schedulers: dict[str, torch.optim.lr_scheduler.LRScheduler] = {}

    @property
    @abstractmethod
    def steps_per_epoch(self) -> int:
        """How many batches an epoch has."""

    @abstractmethod
    def batches(self, epoch: int) -> Iterator[Any]:
        """The batches of an epoch, on the device."""

    @abstractmethod
    def step(self, batch: Any) -> dict[str, Tensor]:
        """Take one whole optimisation step; its loss terms by name, each 0-d and detached."""

    def finish(self) -> dict[str, float]:
        """What is left to do once, on the weights that were best on dev; figures of it for run.json."""
        return {}

    def autocast(self) -> contextlib.AbstractContextManager:
        """Mixed precision for the forward pass, as the run asks for it."""
        return autocast(self.device, self.precision)

    def adam(self, parameters: Iterable[nn.Parameter], learning_rate: float | None = None) -> torch.optim.Adam:
        """Adam, with the learning rate of the settings unless another is given."""
        rate = self.settings.learning_rate if learning_rate is None else learning_rate
        return torch.optim.Adam(parameters, lr=rate, fused=True)

    def lazy_adam(self, tables: list[nn.Parameter]) -> LazyAdam:
        """Adam that moves only the rows of `tables` of which a step has a gradient, which must be sparse.

        Raises UserError where several processes train on GPUs: NCCL sums no sparse gradients.
        """
        if processes.count() > 1 and self.device.type == "cuda":
            raise UserError(
                "optimizer: lazy_adam cannot be trained by several GPUs, which exchange no sparse gradients; set "
                "train.processes: 1, or optimizer: adam in the model's file below configs/models."
            )
        torch.sparse.check_sparse_tensor_invariants.disable()  # torch's own default, which it warns of
        return LazyAdam(tables, lr=self.settings.learning_rate)
