"""When a request that failed is made again: one policy for downloads, for Wikimedia and for the model hub."""

import email.utils
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

Result = TypeVar("Result")

PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})  # statuses that may be another the next time
UNREACHABLE_RETRIES = 2  # for a host that cannot be reached at all: mostly there is no network


@dataclass(frozen=True)
class RetryPolicy:
    """How often a request that failed is made again, and after how long.

    timeout: seconds without a byte; retries: how often a request is made again; backoff: seconds of the first wait,
    which doubles; longest_wait: seconds that a wait lasts at most; wait(seconds): how synchronous code waits.
    """

    timeout: float = 30.0
    retries: int = 5
    backoff: float = 1.0
    longest_wait: float = 60.0
    wait: Callable[[float], None] = time.sleep

    def delay(self, failures: int, asked: float | None = None) -> float:
        """Seconds to wait after `failures` failures in a row: what the server asked for, if it asked.

        Else exponential backoff with jitter, so that clients that failed together do not come back together.
        """
        if asked:
            return min(asked, self.longest_wait)
        ceiling = min(self.longest_wait, self.backoff * 2.0 ** (failures - 1))
        return random.uniform(0.1 * ceiling, ceiling)

    def call(
        self, action: Callable[[], Result], kinds: tuple[type[Exception], ...], passes: Callable[[Exception], bool]
    ) -> Result:
        """What `action` returns, called again where it raises one of `kinds` that `passes`; raises the last one."""
        for failures in range(1, self.retries + 1):
            try:
                return action()
            except kinds as error:
                if not passes(error):
                    raise
            self.wait(self.delay(failures))
        return action()


def retry_after(value: str | None) -> float | None:
    """Seconds that a Retry-After header asks for, as a number or a date; None if it says nothing that can be read."""
    text = (value or "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time()) if text else None
    except ValueError:
        return None
