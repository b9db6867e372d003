"""Asks a trained run a question in names: `python -m stages.ops.ask runs/mini/adamf_mat "Queen" "band member"`.

The first name is the head, and its tails are asked for; with `--tail` it is the tail, and its heads are. Names are
keys, labels or aliases. Answers that are known facts already have their split behind them.

With `--text` or `--picture` the entity is a new one, which the run was not trained with; it is asked about by what the
model makes of these (docs/asking.md).
"""

import argparse
from pathlib import Path

import pandas as pd

from stages.cli import stage
from stages.params import load_params
from stages.unseen import new_entity
from trainers.answers.unseen import NewEntity
from trainers.training import runs

FLAGS = {"known_in_train": "train", "known_in_dev": "dev", "right_in_test": "test"}
_LONGEST = 60


def shown(answers: pd.DataFrame) -> str:
    """The answers as lines of text: descriptions cut short, known facts by the name of their split."""
    table = answers.drop(columns=[*FLAGS, "key"])
    table["description"] = [_short(text) for text in answers["description"]]
    table["label"] = [" ".join(label.split()) for label in answers["label"]]  # a separator of lines would break a row
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
    parser.add_argument("--text", help="of a new entity: what it is, in words")
    parser.add_argument("--picture", type=Path, action="append", help="of a new entity: a file; may be given again")
    options = parser.parse_args()
    run = runs.load_run(options.run)
    name: str | NewEntity = options.name
    if options.text is not None or options.picture:
        name = new_entity(load_params(), run, options.name, options.text, options.picture or (), options.graph)
    known = {"tail" if options.tail else "head": name}
    print(shown(run.ask(relation=options.relation, k=options.k, graph=options.graph, **known)))


if __name__ == "__main__":
    main()
