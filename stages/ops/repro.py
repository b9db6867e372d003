"""`dvc repro` as `make repro` runs it: says which stage of how many, and how long all took; without hints about git.

DVC runs in this process, so the terminal, Ctrl-C and the exit code are its own. Options are those of `dvc repro`.
"""

import logging
import sys
import time
from contextlib import suppress

from dvc.cli import main as dvc
from dvc.exceptions import DvcException
from dvc.repo import Repo


class Counter(logging.Filter):
    """Writes "3 of 12: " before the first thing that DVC says about a stage; DVC itself gives no numbers."""

    RUNS = "Running stage '%s':"
    # What DVC says about a stage that need not run: nothing changed, the run cache has it, the remote has it.
    RESTS = ("Stage '%s' didn't change, skipping", "Stage '%s' is cached - skipping run", "Pulling data for %s")

    def __init__(self, total: int) -> None:
        super().__init__()
        self.total = total
        self.ran = 0
        self.stages: list[str] = []

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.msg, str) and record.msg.startswith((self.RUNS, *self.RESTS)):
            assert isinstance(record.args, tuple)
            name = str(getattr(record.args[0], "addressing", record.args[0]))
            if name not in self.stages:
                self.stages.append(name)
            self.ran += record.msg == self.RUNS
            record.msg = f"{len(self.stages)} of {self.total}: {record.msg}"
        return True


def read_project() -> tuple[int, bool]:
    """How many stages there are, and whether a remote is set that results can be taken from."""
    # Whatever is wrong with dvc.yaml, DVC says it itself when it is run.
    with suppress(DvcException), Repo() as repo:
        return len(list(repo.index.stages)), bool(repo.config["core"].get("remote"))
    return 0, False


def closing(counter: Counter, code: int, seconds: float) -> str:
    """The last line: how far it came, in which time."""
    done = len(counter.stages)
    if code and done:
        return f"Stopped at stage {done} of {counter.total}, {counter.stages[-1]}, after {seconds:.0f} s."
    if code:
        return f"Stopped before the first stage, after {seconds:.0f} s."
    return f"{done} stages in {seconds:.0f} s: {counter.ran} ran, {done - counter.ran} had nothing to do."


def main() -> int:
    began = time.monotonic()
    total, remote = read_project()
    counter = Counter(total)
    for name in ("dvc.stage", "dvc.stage.run", "dvc.stage.cache"):
        logging.getLogger(name).addFilter(counter)
    # "To track the changes with git, run …": what is to be committed is the user's business, and said in the README.
    logging.getLogger("dvc.repo.scm_context").setLevel(logging.WARNING)
    options = [*(["--pull"] if remote else []), *sys.argv[1:]]
    # DVC writes its command into its locks, for the user who meets one.
    sys.argv = ["dvc", "repro", *options]
    code = dvc(sys.argv[1:])
    print(closing(counter, code, time.monotonic() - began), flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
