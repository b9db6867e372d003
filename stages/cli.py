"""What every stage script shares: its arguments, its log, and how it ends when something is wrong."""

import argparse
import functools
import logging
import sys
from collections.abc import Callable

from pipeline.errors import UserError


def stage(main: Callable[[], None]) -> Callable[[], None]:
    """Run a stage's main: a UserError, or a file that the system refuses, becomes one sentence on stderr and
    exit code 1, Ctrl-C exit code 130.
    """

    @functools.wraps(main)
    def run() -> None:
        logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
        for chatty in ("httpx", "httpx2"):
            logging.getLogger(chatty).setLevel(logging.WARNING)
        try:
            main()
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(1)
        except OSError as error:
            if error.filename is None:
                raise
            said = f"{error.filename} cannot be read or written ({error.strerror}); look at it and at its rights."
            print(f"error: {said}", file=sys.stderr)
            sys.exit(1)
        except KeyboardInterrupt:
            print("stopped; run again to go on from here.", file=sys.stderr)
            sys.exit(130)

    return run


def arguments(description: str, *names: str) -> argparse.ArgumentParser:
    """A parser with the named arguments ("graph", "model"), each required."""
    parser = argparse.ArgumentParser(description=description)
    for name in names:
        parser.add_argument(f"--{name}", required=True, help=f"the {name}'s name, as in configs/{name}s/")
    return parser
