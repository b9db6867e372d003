"""Stage train: one model on one graph, its weights chosen on dev."""

import os
import subprocess
import sys
from pathlib import Path

from stages.cli import arguments, stage
from stages.params import load_params
from stages.params.models import model_settings
from trainers.about import protocol_of
from trainers.training import processes
from trainers.training.train import Schedule, train

WORK = Path("data/.work/runs")


@stage
def main() -> None:
    options = arguments(__doc__, "graph", "model").parse_args()
    params = load_params()
    if params.train.processes > 1 and "WORLD_SIZE" not in os.environ:
        sys.exit(in_processes(params.train.processes, options.graph, options.model))
    settings = model_settings(params, options.model, options.graph)
    protocol = params.evaluate.reference_protocol
    about = train(
        options.model,
        settings,
        Schedule(**params.train.model_dump()),
        graph=Path("data") / options.graph / "graph",
        encoded=Path("data") / options.graph / "encoded",
        run=Path("runs") / options.graph / options.model,
        work=WORK,
        seed=params.seed,
        protocol=protocol_of(protocol) if protocol else None,
    )
    if not processes.is_first():
        return
    print(
        f"{options.model} on {options.graph}: dev MRR {about['dev_mrr']:.4f} after epoch {about['chosen_epoch']} of "
        f"{about['epochs']}, {about['seconds']:.0f} s"
    )


def in_processes(number: int, graph: str, model: str) -> int:
    """Run this stage in several processes of this machine; the exit code."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={number}"]
    return subprocess.run([*launcher, "-m", "stages.train", "--graph", graph, "--model", model], check=False).returncode


if __name__ == "__main__":
    main()
