"""The table of results: runs what is missing, as far as the minutes go, and writes docs/results.md.

    python -m benchmarks.benchmark --minutes 60 [--graphs …] [--models …] [--seeds 3] [--variants clean released …]

One run at a time, each in a process of its own (so that its peak memory is its own), the first seed of every model
before the second. A run whose settings in params.yaml have changed since is run again. What the minutes cut short goes
on from its last checkpoint the next time; only runs that came to their end are in the table. --minutes 0 only writes
it.
"""

import argparse
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

from benchmarks.run import GRAPHS, VARIANTS, done, result_path, settings_of
from benchmarks.table import write
from pipeline.errors import UserError
from stages.cli import stage
from stages.params import Params, load_params

MODELS = ("complex", "cp", "rescal", "distmult", "tucker", "rotate", "transe", "walker", "mosaic")


def missing(params: Params, options: argparse.Namespace) -> Iterator[tuple[str, str, int, str]]:
    """The runs (graph, model, seed, variant) whose figures are not there, in the order in which they are to be made."""
    wanted = itertools.product(range(options.seeds), options.variants, options.graphs, options.models)
    for seed, variant, graph, model in wanted:
        try:
            settings = settings_of(params, graph, model, seed, variant)
        except UserError as error:  # `retrained` before `clean` came to its end
            print(error)
            continue
        if not done(result_path(graph, model, seed, variant), settings):
            yield graph, model, seed, variant


def start(graph: str, model: str, seed: int, variant: str, seconds: float) -> int | None:
    """Run one, interrupted after so many seconds; its exit code, None if it was interrupted."""
    command = [sys.executable, "-m", "benchmarks.run", "--graph", graph, "--model", model, "--seed", str(seed),
               "--variant", variant]  # fmt: skip
    with subprocess.Popen(command, env={"OMP_NUM_THREADS": "1", **os.environ}) as process:
        try:
            return process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            process.wait()
            return None


@stage
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--graphs", nargs="+", default=GRAPHS)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=["clean"])
    options = parser.parse_args()
    params, end, failed = load_params(), time.monotonic() + 60 * options.minutes, []
    for one in missing(params, options):
        left = end - time.monotonic()
        if left <= 0:
            print("The minutes are over; run again to go on from here.")
            break
        if start(*one, left):
            failed.append(" ".join(map(str, one)))
    write()
    if failed:
        raise UserError(f"{len(failed)} runs failed, see above: {'; '.join(failed)}.")


if __name__ == "__main__":
    main()
