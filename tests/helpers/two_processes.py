"""Run by test_processes.py, alone or under torchrun: trains models on the tiny graph, the first process saves them."""

import json
import sys
from pathlib import Path

import torch

from tests.helpers.tiny import fit, learner_of, settings_of, tiny
from trainers.about import module_of
from trainers.parts import tucker
from trainers.training import processes
from trainers.training.checkpoint import save_tensors


def main() -> None:
    """`argv[1]`: a folder; `argv[2]`: JSON, a list of [model, changes of its settings], a subfolder each by number."""
    torch.set_num_threads(1)
    processes.join(torch.device("cpu"))
    for number, (name, changes) in enumerate(json.loads(sys.argv[2])):
        train(name, changes, Path(sys.argv[1]) / str(number))
    processes.leave()


def train(name: str, changes: dict, folder: Path) -> None:
    module, data = module_of(name), tiny()
    # Without what each process draws for itself (see MoMoK), or weighs within its own part (see AdaMF-MAT).
    alike = {"adversarial_weighting": "per_triple", "learning_rate": 0.01, "gate_noise": False, "fusion_dropout": 0.0}
    learner = learner_of(module, data, settings_of(module, **{**alike, **changes}))
    rows, compared, slopes, multiplied = [], [], [], []
    contract = tucker.contract
    tucker.contract = lambda x, *rest: (
        (multiplied.append(len(x)) if torch.is_grad_enabled() else None) or contract(x, *rest)
    )
    loss = getattr(module, "link_loss", None)
    if loss:
        module.link_loss = lambda query, seen, *rest, **more: (
            compared.append(len(seen)) or loss(query, seen, *rest, **more)
        )
    step = learner.step

    def counted(batch):
        rows.append(rows_of(batch))
        terms = step(batch)
        if not slopes:  # Adam forgives a wrong factor; the gradients themselves do not
            slopes.append(
                sum(float(p.grad.to_dense().norm()) for p in learner.model.parameters() if p.grad is not None)
            )
        return terms

    learner.step = counted
    progress = fit(learner, data, folder / "work", 4, evaluate_every=2, checkpoint_every=2)
    tucker.contract = contract
    if loss:
        module.link_loss = loss
    if processes.is_first():
        save_tensors(folder / "weights.safetensors", learner.model.state_dict())
        told = {"mrr": progress.best_mrr, "epoch": progress.epoch, "rows": sum(rows), "processes": processes.count()}
        told |= {"candidates": sum(compared), "slope": slopes[0], "multiplied": sum(multiplied)}
        (folder / "told.json").write_text(json.dumps(told))


def rows_of(batch) -> int:
    """How many rows a step sees: of all processes, but for 1-vs-all, whose batches are of one."""
    if isinstance(batch, tuple):  # positives with their negatives
        return len(batch[0])
    return batch.whole if hasattr(batch, "whole") else len(batch.known)


if __name__ == "__main__":
    main()
