"""Training as others watch it: a line a minute where there is no terminal, and TensorBoard's files on wish."""

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import UserError

log = logging.getLogger(__name__)

MINUTE = 60.0  # seconds between two lines


class Watch:
    """Says each minute where a run is: epoch, loss, dev MRR, triples a second, time left."""

    def __init__(self, epochs: int, steps: int, triples: int, clock: Callable[[], float] = time.monotonic):
        """An epoch has `steps` steps, over `triples` triples."""
        self.epochs, self.steps, self.triples, self.clock = epochs, steps, triples, clock
        self.begun = self.said = clock()
        self.done = 0  # steps of this process

    def step(self, epoch: int, step: int, terms: Mapping[str, Any], dev: str) -> None:
        """After each step: `epoch` are complete, `step` of the next are; `terms` its losses; `dev` in words."""
        self.done += 1
        now = self.clock()
        if now - self.said < MINUTE:
            return
        self.said = now
        each = (now - self.begun) / self.done
        left = each * ((self.epochs - epoch) * self.steps - step)
        loss = float(terms["loss"] if "loss" in terms else sum(terms.values()))
        log.info(
            "epoch %d of %d, step %d of %d: loss %.4f, %s, %s triples/s, %s left",
            epoch + 1, self.epochs, step, self.steps, loss, dev or "dev not measured yet",
            f"{self.triples / self.steps / each:,.0f}", time_left(left),
        )  # fmt: skip


def time_left(seconds: float) -> str:
    """`40 s`, `12 min`, `3.4 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def tensorboard(folder: Path) -> Callable[[Mapping[str, Any]], None]:
    """A function that writes the numbers of a row of the history into `folder`, as TensorBoard reads them.

    Raises UserError if TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UserError(
            "`train.tensorboard: true` needs TensorBoard; pip install 'tessera-mmkgc[tensorboard]', or set it to false."
        ) from error
    writer = SummaryWriter(str(folder))  # type: ignore[no-untyped-call]

    def write(row: Mapping[str, Any]) -> None:
        for name, value in row.items():
            if name != "epoch" and value is not None:
                writer.add_scalar(name, value, row["epoch"])  # type: ignore[no-untyped-call]
        writer.flush()  # type: ignore[no-untyped-call]

    return write
