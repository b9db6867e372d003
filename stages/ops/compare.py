"""Compare two runs on the same queries: `python -m stages.ops.compare runs/db15k/mygo runs/db15k/momok`.

Prints both runs' metrics, their difference with its bootstrap interval, and whether it may be chance. Reads ranks
only; nothing is ranked again.
"""

import argparse
from pathlib import Path
from typing import Any

from pipeline import tables
from pipeline.errors import UserError
from pipeline.graph.vocabulary import EVALUATED
from stages.cli import stage
from trainers.evaluation import ranking, significance
from trainers.evaluation.metrics import METRICS, means_over_queries


def compare(a: Path, b: Path, *, split: str, samples: int, level: float, seed: int) -> dict[str, object]:
    """Both directions together and each alone: see `trainers.evaluation.significance.compare`.

    Raises UserError if a run has no ranks of the split, or the two ranked different queries.
    """
    ranks = [ranking.read(_ranks_of(run), split) for run in (a, b)]
    options: dict[str, Any] = {"samples": samples, "level": level, "seed": seed}
    found: dict[str, object] = {"a": str(a), "b": str(b), "split": split, **options}
    found["both"] = significance.compare(ranks[0], ranks[1], _compared(), **options)
    for side in ranking.DIRECTIONS:
        sides = [{name: column[run["direction"] == side] for name, column in run.items()} for run in ranks]
        if len(sides[0]["realistic"]):
            found[side] = significance.compare(sides[0], sides[1], _compared(), **options)
    return found


def _ranks_of(run: Path) -> Path:
    if not run.is_dir():
        raise UserError(f"{run} is no run folder; name one that has been evaluated, such as runs/mini/mygo.")
    return run / "ranks.parquet"


def describe(found: dict) -> str:
    """The comparison as a page of text."""
    lines = [f"A  {found['a']}", f"B  {found['b']}", ""]
    for side in ("both", *ranking.DIRECTIONS):
        if side not in found:
            continue
        part = found[side]
        title = "both directions" if side == "both" else f"direction {side}"
        lines.append(f"{title}: {part['queries']:,} queries of {found['split']}")
        lines.append(
            f"  A ranks the truth higher {part['better']:,} times, B {part['worse']:,} times, equal {part['equal']:,} "
            f"times; Wilcoxon p = {part['wilcoxon']:.2g}"
        )
        interval = f"{found['level']:.0%} interval"
        lines.append(f"  {'':12}{'A':>8}{'B':>8}{'A - B':>9}   {interval:20}{'p':>8}")
        for name in _compared():
            row = part[name]
            low, high = row["interval"]
            lines.append(
                f"  {METRICS[name].label:12}{row['a']:8.4f}{row['b']:8.4f}{row['difference']:+9.4f}   "
                f"{f'{low:+.4f} to {high:+.4f}':20}{row['p']:8.2g}"
            )
        lines.append("")
    lines.append(
        f"Intervals: paired bootstrap over queries; p: paired permutation test; {found['samples']:,} resamples each, "
        f"seed {found['seed']}. Both speak of other test queries, not of another training: for that, compare seeds."
    )
    return "\n".join(lines)


def _compared() -> list[str]:
    """The metrics that are compared: fractions that are means over queries."""
    return [name for name in means_over_queries() if METRICS[name].percent]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("a", type=Path, help="a run folder, such as runs/db15k/mygo")
    parser.add_argument("b", type=Path, help="another, evaluated on the same graph and split")
    parser.add_argument("--split", default="test", choices=EVALUATED)
    parser.add_argument("--samples", type=int, default=10_000, help="resamples of the bootstrap and the test")
    parser.add_argument("--level", type=float, default=0.95, help="of the intervals")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="also write the figures there")
    return parser.parse_args()


@stage
def main() -> None:
    given = _arguments()
    if given.samples < 1 or not 0 < given.level < 1:
        raise UserError("--samples must be at least 1 and --level lie between 0 and 1.")
    found = compare(given.a, given.b, split=given.split, samples=given.samples, level=given.level, seed=given.seed)
    if given.json:
        tables.write_json(given.json, found)
    print(describe(found))


if __name__ == "__main__":
    main()
