"""Why a run gives this answer: `python -m stages.ops.explain runs/mini/mosaic HEAD RELATION TAIL`.

Names are keys, labels or aliases. By default the tail is the answer; `--side head` asks for the head. Prints where the
answer stands, and where without text or pictures; what counts for the entities; the nearest train facts; and of mosaic
what each kind of evidence adds, with the rules, walks and neighbours behind it.
"""

import argparse

from stages.cli import stage
from trainers.training import runs


@stage
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("run", "head", "relation", "tail"):
        parser.add_argument(name)
    parser.add_argument("--side", choices=("tail", "head"), default="tail")
    parser.add_argument("--graph", help="the folder of the graph's tables, if they do not lie beside the runs")
    options = parser.parse_args()
    run = runs.load_run(options.run)
    print(run.explain(options.head, options.relation, options.tail, side=options.side, graph=options.graph))


if __name__ == "__main__":
    main()
