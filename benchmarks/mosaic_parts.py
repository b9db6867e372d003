"""What each part of mosaic brings: its fusion fitted again without it, on dev, by cross-validation.

    python -m benchmarks.mosaic_parts --graph MKG-Y --seed 0

Reads the clean run that benchmarks.run left on this machine; nothing is trained again. Writes
benchmarks/results/<graph>/mosaic/parts-seed<k>.json: the MRR on dev with all parts and without each, in all, by
relation category, and by whether the known entity has a text and an image. Test is not looked at.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.run import RESULTS, run_folder
from pipeline import tables
from stages.cli import stage
from trainers.evaluation import ranking
from trainers.models import mosaic
from trainers.parts.mosaic import fusion
from trainers.parts.mosaic.fusion import Fusion, Lists, Plan
from trainers.training import runs
from trainers.training import train as training

# Part -> the columns that begin with one of these go.
PARTS = {
    "nothing": (),
    "scorers of text and image": ("text_0", "text_1", "image_0", "image_1"),
    "walker": ("walker",),
    "rules": ("rules",),
    "constants": ("constants",),
    "walks": ("walks",),
    "rules, constants and walks": ("rules", "constants", "walks"),
    "walker, rules, constants and walks": ("walker", "rules", "constants", "walks"),
    "answered and degree": ("answered", "degree"),
    "neighbours by text and picture": ("text_n", "text_r", "text_l", "words_", "image_n", "image_r", "image_l"),
    "all but the scorers": ("walker", "rules", "constants", "walks", "answered", "degree", "text_n", "text_r", "text_l",
                            "words_", "image_n", "image_r", "image_l"),
    "all but the walker": ("structure", "text", "image", "words", "rules", "constants", "walks", "answered", "degree"),
}  # fmt: skip


def fit_without(learner: mosaic.Learner, lists: Lists, kept: torch.Tensor, plan: Plan) -> Fusion:
    """A fusion of the columns `kept` (k,), the others counting nothing."""
    number = lists.columns.shape[2]
    blend = torch.zeros(number)
    scorers = kept[kept < len(learner.model.members())]
    blend[scorers] = 1 / len(scorers)
    part = replace(lists, columns=lists.columns[:, :, kept])
    fitted = fusion.fit(part, blend[kept], 2 * learner.model.relations, plan, learner.seed)
    whole = Fusion(number, 2 * learner.model.relations)
    for name in ("everywhere", "by_relation", "by_degree", "spread"):
        getattr(whole, name)[..., kept] = getattr(fitted, name)
    return whole


def cross_validated(learner: mosaic.Learner, lists: Lists, kept: torch.Tensor, plan: Plan) -> ranking.Ranks:
    """Ranks of dev, each third of it by a fusion that was fitted on the other two."""
    dev, index = learner.unlearnt, training.filter_index(learner.data)
    fold, found = lists.fold[: len(dev)], []
    for one in range(fusion.FOLDS):
        learner.model.fusion = fit_without(learner, lists.without(one), kept, plan)
        score = learner.model.scorer()
        found.append(ranking.rank(score, dev[fold == one], index, entities=learner.data.entities))
    return {name: np.concatenate([ranks[name] for ranks in found]) for name in found[0]}


def split_up(ranks: ranking.Ranks, graph: Path, data) -> dict[str, float]:
    """MRR in all, by relation category, and by what the known entity has."""
    reciprocal = 1 / ranks["realistic"]
    category = np.array(tables.read(graph / "relations.parquet", "relations")["category"].to_pylist())
    known = np.where(ranks["direction"] == "tail", ranks["head"], ranks["tail"])
    groups = {"all": np.ones(len(known), dtype=bool)}
    groups |= {one: category[ranks["relation"]] == one for one in sorted(set(category))}
    for name, features in data.features.items():
        groups[f"with {name}"] = np.isin(known, features.entity.numpy())
        groups[f"without {name}"] = ~groups[f"with {name}"]
    return {name: float(reciprocal[rows].mean()) for name, rows in groups.items() if rows.any()}


def measure(graph: str, seed: int) -> dict:
    """The figures of one run, as they are written."""
    run = runs.load_run(run_folder(graph, "mosaic", seed, "clean"))
    folder = Path("data") / graph / "graph"
    data = training.read("mosaic", run.model.settings, graph=folder, encoded=folder.parent / "encoded")
    cpu = torch.device("cpu")
    learner = mosaic.Learner(run.model, data, run.model.settings, device=cpu, precision=torch.float32, seed=seed)
    plan = Plan(penalty=run.model.settings.fusion_penalty)
    lists = learner.lists(learner.unlearnt, plan)
    names = [*run.model.members(), *run.model.evidence().names]
    without = {}
    for part, gone in PARTS.items():
        kept = torch.tensor([place for place, name in enumerate(names) if not (gone and name.startswith(gone))])
        if part == "nothing" or len(kept) < len(names):
            without[part] = split_up(cross_validated(learner, lists, kept, plan), folder, data)
            print(f"{graph} without {part}: {100 * without[part]['all']:.2f}")
    command = f"python -m benchmarks.mosaic_parts --graph {graph} --seed {seed}"
    return {"graph": graph, "seed": seed, "dev_mrr_without": without, "command": command}


@stage
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graph", required=True)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    found = measure(options.graph, options.seed)
    tables.write_json(RESULTS / options.graph / "mosaic" / f"parts-seed{options.seed}.json", found)


if __name__ == "__main__":
    main()
