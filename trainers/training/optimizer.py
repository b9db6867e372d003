"""One step of gradient descent, the same for every model: check, reduce over processes, clip, step."""

import contextlib
import functools
import operator
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from trainers.training import lazy


class NotFinite(ArithmeticError):
    """A term of the loss is NaN or infinite; `term` names it."""

    def __init__(self, term: str):
        super().__init__(f"the loss term {term!r} is not finite")
        self.term = term


def autocast(device: torch.device, precision: torch.dtype) -> contextlib.AbstractContextManager:
    """Mixed precision for the forward pass: float32 switches it off."""
    if precision == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=precision)


def added(terms: Iterable[Tensor]) -> Tensor:
    """The sum of tensors, of which there is at least one."""
    return functools.reduce(operator.add, terms)


def optimizer_step(
    loss: Tensor,
    parameters: Iterable[nn.Parameter],
    *optimizers: torch.optim.Optimizer,
    clip: float | None = None,
) -> None:
    """Backward from `loss`, average the gradients over processes, clip them to the norm `clip`, and step.

    Only `parameters` (those the optimisers hold) get gradients, so two losses with two optimisers do not meet.
    """
    parameters = [parameter for parameter in parameters if parameter.requires_grad]
    for optimizer in optimizers:
        optimizer.zero_grad(set_to_none=True)
    loss.backward(inputs=parameters)
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        average_gradients(parameters)
    if clip is not None:
        clip_(parameters, clip)
    for optimizer in optimizers:
        optimizer.step()


def clip_(parameters: Iterable[nn.Parameter], largest: float) -> None:
    """Scale all gradients together so that their norm is at most `largest`; those that hold some rows only as well."""
    found = [parameter for parameter in parameters if parameter.grad is not None]
    sparse = [parameter for parameter in found if parameter.grad is not None and parameter.grad.is_sparse]
    if not sparse:
        nn.utils.clip_grad_norm_(found, largest)
        return
    for parameter in sparse:
        assert parameter.grad is not None
        if lazy.by_torch(parameter.grad):
            parameter.grad = parameter.grad.coalesce()
    gradients = [parameter.grad for parameter in found if parameter.grad is not None]
    norm = nn.utils.get_total_norm([_numbers(gradient) for gradient in gradients])
    scale = torch.clamp(largest / (norm + 1e-6), max=1.0)
    for gradient in gradients:
        (gradient._values() if gradient.is_sparse else gradient).mul_(scale)


def _numbers(gradient: Tensor) -> Tensor:
    """The numbers of a gradient, what belongs to the same row added up."""
    if not gradient.is_sparse:
        return gradient
    return gradient._values() if gradient.is_coalesced() else lazy.summed(gradient)[2]


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace each gradient by its mean over all processes; a gradient one process lacks counts as zero there."""
    processes = torch.distributed.get_world_size()
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        torch.distributed.all_reduce(parameter.grad)
        parameter.grad /= processes
