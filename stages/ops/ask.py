"""Asks a trained run a question in names: `python -m stages.ops.ask runs/mini/adamf_mat "Queen" "band member"`.

The first name is the head, and its tails are asked for; with `--tail` it is the tail, and its heads are. Names are
keys, labels or aliases. Answers that are known facts already have their split behind them.
"""

import argparse
from pathlib import Path

import pandas as pd

from stages.cli import stage
from trainers.training import runs

FLAGS = {"known_in_train": "train", "known_in_dev": "dev", "right_in_test": "test"}
_LONGEST = 60


def shown(answers: pd.DataFrame) -> str:
    """The answers as lines of text: descriptions cut short, known facts by the name of their split."""
    table = answers.drop(columns=[*FLAGS, "key"])
    table["description"] = [_short(text) for text in answers["description"]]
    known = [[name for flag, name in FLAGS.items() if row[flag]] for _, row in answers.iterrows()]
    table["known"] = [", ".join(names) for names in known]
    return table.to_string(index=False, float_format=lambda value: f"{value:.3f}", na_rep="")


def _short(text: str | None) -> str:
    line = " ".join((text or "").split()) if isinstance(text, str) else ""
    return line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"


@stage
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="the run's folder, such as runs/mini/adamf_mat")
    parser.add_argument("name", help="the entity that is known")
    parser.add_argument("relation")
    parser.add_argument("--tail", action="store_true", help="the entity is the tail, and heads are asked for")
    parser.add_argument("-k", type=int, default=10, help="how many answers (10)")
    parser.add_argument("--graph", type=Path, help="the folder of the graph's tables, if it lies elsewhere")
    options = parser.parse_args()
    run = runs.load_run(options.run)
    known = {"tail" if options.tail else "head": options.name}
    print(shown(run.ask(relation=options.relation, k=options.k, graph=options.graph, **known)))


if __name__ == "__main__":
    main()
