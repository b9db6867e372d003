"""Progress of long work: a bar on a terminal, a line of the log once a minute where there is none (a batch job)."""

import io
import logging
import sys
from typing import Any

from tqdm import tqdm

log = logging.getLogger(__name__)

MINUTE = 60.0  # seconds


class Bar(tqdm):
    """A tqdm that, without a terminal, says each minute how far it is: done of total, how many a second, time left."""

    def __init__(self, *args: Any, **options: Any):
        self.lines = not sys.stderr.isatty()
        if self.lines:
            # miniters: the clock is looked at after each; leave and file: nothing is drawn at the end.
            options |= {"mininterval": MINUTE, "maxinterval": MINUTE, "miniters": 1, "delay": 1e-9}
            options |= {"leave": False, "file": io.StringIO()}
        super().__init__(*args, **options)

    def display(self, msg: str | None = None, pos: int | None = None) -> Any:
        """Draw the bar, or say a line."""
        if not self.lines:
            return super().display(msg, pos)
        if msg is None:
            log.info("%s", self.line())
        return True

    def to(self, done: int, total: int) -> None:
        """Stand at `done` of `total`."""
        self.total = total
        self.update(done - self.n)

    def line(self) -> str:
        """What a line of the log says."""
        known = self.format_dict
        seconds, rate = known["elapsed"], known["n"] / max(known["elapsed"], 1e-9)
        total = self.total
        said = (
            f"{self.desc.rstrip(': ')}: {self.n:,}{f' of {total:,}' if total else ''}{self.unit}, {rate:,.1f} a second"
        )
        if total and rate:
            said += f", {duration((total - self.n) / rate)} left"
        return said + (f", {self.postfix}" if self.postfix else "") + f" ({duration(seconds)} so far)"


def duration(seconds: float) -> str:
    """`40 s`, `12 min`, `3.4 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
