"""Adam and Adagrad that move only the rows of a table that a step has read, without asking a GPU which these are.

torch's own add up what a row was read for by `coalesce`, which tells the host how many rows there are, and for that a
GPU is waited for. Here a row that was read twice is moved twice, to the same place: each time by its whole gradient,
from where it was. On the CPU torch's own take the step.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn


def by_torch(gradient: Tensor) -> bool:
    """Whether torch's own optimiser takes the step: there is no GPU that would be waited for."""
    return gradient.device.type == "cpu"


def summed(gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A sparse gradient by the rows of a table: `row` (n,) ascending, each as often as it was read, `place` (n,), and
    `total` (n, …), of which total[place] are the gradients of the rows and those that no place names are zero.
    """
    read, value = gradient._indices()[0], gradient._values()
    order = torch.argsort(read, stable=True)
    row = read[order]
    first = torch.ones_like(row, dtype=torch.bool)
    first[1:] = row[1:] != row[:-1]
    place = first.cumsum(0) - 1
    return row, place, torch.zeros_like(value).index_add_(0, place, value[order])


class LazyAdam(torch.optim.SparseAdam):
    """Adam whose moments rest, too, while a row is not read. All gradients must be sparse."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        moved = _with_gradient(self)
        if all(by_torch(parameter.grad) for parameter, _ in moved):
            return super().step(closure)
        for parameter, group in moved:
            self._move(parameter, group)
        return None

    def _move(self, table: nn.Parameter, group: dict[str, Any]) -> None:
        row, place, total = summed(table.grad)  # type: ignore[arg-type]
        slope, state = total[place], self.state[table]
        if not state:
            state |= {"step": 0, "exp_avg": torch.zeros_like(table), "exp_avg_sq": torch.zeros_like(table)}
        state["step"] += 1
        grown = [1 - beta ** state["step"] for beta in group["betas"]]
        moments = []
        for name, beta, new in zip(("exp_avg", "exp_avg_sq"), group["betas"], (slope, slope.square()), strict=True):
            moments.append(state[name][row].lerp(new, 1 - beta))
            state[name][row] = moments[-1]
        length = group["lr"] * math.sqrt(grown[1]) / grown[0]
        table[row] = table[row] - length * moments[0] / (moments[1].sqrt() + group["eps"])


class LazyAdagrad(torch.optim.Adagrad):
    """Adagrad, whose rows without a gradient rest anyway. Gradients may be sparse or not."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        held = []
        for parameter, group in _with_gradient(self):
            if parameter.grad.is_sparse and not by_torch(parameter.grad):
                self._move(parameter, group)
                held.append((parameter, parameter.grad))
                parameter.grad = None
        found = super().step(closure)  # of the others
        for parameter, gradient in held:
            parameter.grad = gradient
        return found

    def _move(self, table: nn.Parameter, group: dict[str, Any]) -> None:
        row, place, total = summed(table.grad)  # type: ignore[arg-type]
        slope, state = total[place], self.state[table]
        state["step"] += 1
        squares = state["sum"][row] + slope.square()
        state["sum"][row] = squares
        table[row] = table[row] - group["lr"] * slope / (squares.sqrt() + group["eps"])


def _with_gradient(optimizer: torch.optim.Optimizer) -> list[tuple[Any, dict[str, Any]]]:
    """The parameters that have a gradient, each with its group."""
    return [(one, group) for group in optimizer.param_groups for one in group["params"] if one.grad is not None]
