"""What other models add to Mosaic's fusion: their scores as further columns, the fusion fitted again on dev.

    python -m benchmarks.base --graph MKG-Y --base adamf_mat distmult [--variants fast clean] [--seed 0] [--test]

Reads the runs that benchmarks.run left on this machine, Mosaic's clean one and the first variant of each base that is
there; nothing is trained again. Prints the MRR on dev by cross-validation with all of them and with each alone, and
writes benchmarks/results/<graph>/mosaic/base-seed<k>.json. With --test, test is ranked once, by the fusion of all.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.mosaic_parts import cross_validated
from benchmarks.run import RESULTS, VARIANTS, run_folder
from pipeline import tables
from pipeline.errors import UserError
from stages.cli import stage
from trainers.evaluation import ranking
from trainers.models import mosaic
from trainers.parts.mosaic.fusion import Plan
from trainers.training import runs
from trainers.training import train as training


def base_run(graph: str, model: str, seed: int, variants: list[str]) -> runs.Run:
    """The first variant of a model's run that is there. Raises UserError if none is."""
    for variant in variants:
        if (run_folder(graph, model, seed, variant) / "run.json").exists():
            return runs.load_run(run_folder(graph, model, seed, variant))
    raise UserError(f"No run of {model} on {graph} with seed {seed} is there; python -m benchmarks.run makes one.")


def fuse_with(model: mosaic.Mosaic, base: list[runs.Run]) -> None:
    """Let the log-softmax of each of `base` follow the model's own scorers among the columns that it fuses."""
    own = model.log_probabilities

    def log_probabilities() -> Callable[[Tensor, Tensor], list[Tensor]]:
        each = own()

        def score(known: Tensor, relation: Tensor) -> list[Tensor]:
            return each(known, relation) + [_scores(one, known, relation, model.relations) for one in base]

        return score

    model.log_probabilities = log_probabilities  # type: ignore[method-assign]


def _scores(run: runs.Run, known: Tensor, relation: Tensor, relations: int) -> Tensor:
    """(B, E) log-softmax of a run; relations from R on ask for heads."""
    out = torch.empty(len(known), run.model.sizes()[0])
    for side, rows in (("tail", relation < relations), ("head", relation >= relations)):
        if rows.any():
            out[rows] = run.score(known[rows], relation[rows] % relations, side).float().log_softmax(1)
    return out


def measure(graph: str, names: list[str], seed: int, variants: list[str], test: bool) -> dict:
    """The figures, as they are written."""
    run = runs.load_run(run_folder(graph, "mosaic", seed, "clean"))
    folder, settings = Path("data") / graph / "graph", run.model.settings
    data = training.read("mosaic", settings, graph=folder, encoded=folder.parent / "encoded")
    own, evidence = len(run.model.members()), len(run.model.evidence().names)
    fuse_with(run.model, [base_run(graph, name, seed, variants) for name in names])
    cpu = torch.device("cpu")
    learner = mosaic.Learner(run.model, data, settings, device=cpu, precision=torch.float32, seed=seed)
    plan = Plan(penalty=settings.fusion_penalty)
    lists = learner.lists(learner.unlearnt, plan)
    found: dict = {"dev_mrr_with": {}}
    each = {"nothing": [], "all": names} | ({name: [name] for name in names} if len(names) > 1 else {})
    for called, taken in each.items():
        picked = [own + names.index(one) for one in taken]
        columns = [*range(own), *picked, *(own + len(names) + place for place in range(evidence))]
        ranks = cross_validated(learner, lists, torch.tensor(columns), plan)
        found["dev_mrr_with"][called] = float((1 / ranks["realistic"]).mean())
        print(f"{graph} with {called}: {100 * found['dev_mrr_with'][called]:.2f}")
    if test:
        run.model.fusion = learner._fit(lists, plan)
        ranks = ranking.rank(run.model.scorer(), data.test, training.filter_index(data), entities=data.entities)
        found["test"] = {name: ranking.metrics(ranks)[name] for name in ("mrr", "hits_at_1", "hits_at_3", "hits_at_10")}
        print(f"{graph}, test, with all: {100 * found['test']['mrr']:.2f}")
    return {"graph": graph, "seed": seed, "base": names, **found}


@stage
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graph", required=True)
    parser.add_argument("--base", nargs="+", required=True)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=["fast", "clean"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--test", action="store_true")
    options = parser.parse_args()
    found = measure(options.graph, options.base, options.seed, options.variants, options.test)
    tables.write_json(RESULTS / options.graph / "mosaic" / f"base-seed{options.seed}.json", found)


if __name__ == "__main__":
    main()
