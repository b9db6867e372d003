"""The training loop that all models share: epochs, choice on dev, early stopping, checkpoints, progress.

It knows nothing about any model: a `Learner` makes the batches and takes the steps. Everything random in an epoch is a
function of (seed, epoch), so that a run which was stopped and resumed ends with the weights of one that was not.
"""

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from pipeline.errors import UserError
from trainers.training import processes
from trainers.training.checkpoint import Checkpoints, load_tensors
from trainers.training.learner import Learner
from trainers.training.optimizer import NotFinite
from trainers.training.watch import Watch

log = logging.getLogger(__name__)


@dataclass
class Progress:
    """How far a run has come; all that is not in the learner. `history` has one row per epoch."""

    epoch: int = 0
    step: int = 0
    best_mrr: float = -1.0
    best_epoch: int = 0
    without_gain: int = 0
    seconds: float = 0.0
    history: list[dict] = field(default_factory=list)
    finished: dict[str, float] = field(default_factory=dict)  # figures of what was left to do after the last epoch


def fit(
    learner: Learner,
    measure: Callable[[nn.Module], float],
    *,
    triples: int,
    epochs: int,
    evaluate_every: int,
    patience: int,
    checkpoint_every: int,
    seed: int,
    work: Path,
    show: bool | None = None,
    probe: Callable[[nn.Module, int], dict] | None = None,
    each: Callable[[list[dict]], None] | None = None,
) -> Progress:
    """Train, and leave the learner's model with the weights that were best on dev.

    `triples` is how many an epoch sees. `measure(model)` gives the MRR on dev; it is asked every `evaluate_every`
    epochs and after the last. After `patience` measurements without gain training stops (0: never). `work` holds what
    an interrupted run goes on from; it is found there by the next call with the same arguments, and is the caller's to
    delete. `show` draws a progress bar; None: if stderr is a terminal. `probe(model, epoch)` gives further columns of
    the history after each epoch; nothing is chosen by them. `each(history)` is called after each epoch, in the first
    process, with all rows so far. Without a bar, a line of the log says each minute how far it is.

    Raises UserError if a loss term stops being finite or memory runs out; the last checkpoint stays.
    """
    on_gpu = next(learner.model.parameters()).device.type == "cuda"
    checkpoints = Checkpoints(work, background=on_gpu)
    progress = _resume(checkpoints, learner)
    show = (sys.stderr.isatty() if show is None else show) and processes.is_first()
    steps = learner.steps_per_epoch
    watch = Watch(epochs, steps, triples) if processes.is_first() and not show else None
    with (
        _written(checkpoints),
        reproducible(on_gpu),
        tqdm(total=epochs * steps, initial=progress.epoch * steps, disable=not show, unit="step") as bar,
    ):
        while progress.epoch < epochs and not (patience and progress.without_gain >= patience):
            began = time.perf_counter()
            try:
                row = _one_epoch(learner, progress, seed, bar, watch)
            except KeyboardInterrupt:
                log.warning("Stopped in epoch %d; the last checkpoint is kept.", progress.epoch + 1)
                raise
            except (MemoryError, RuntimeError) as error:
                _explain_memory(error, learner)
                raise
            taken = time.perf_counter() - began
            progress.epoch += 1
            progress.step += steps
            row |= {"epoch": progress.epoch, "step": progress.step, "dev_mrr": None}
            row["triples_per_second"] = triples / taken
            if progress.epoch % evaluate_every == 0 or progress.epoch == epochs:
                found = measure(learner.model) if processes.is_first() else 0.0
                row["dev_mrr"] = processes.agree(found, next(learner.model.parameters()).device)
                _note_best(checkpoints, learner, progress, row["dev_mrr"])
            row |= probe(learner.model, progress.epoch) if probe else {}
            progress.seconds += time.perf_counter() - began
            row["seconds"] = progress.seconds
            progress.history.append(row)
            bar.set_postfix(_postfix(row, progress))
            if each and processes.is_first():
                each(progress.history)
            if checkpoint_every and (progress.epoch % checkpoint_every == 0 or progress.epoch == epochs):
                _save(checkpoints, learner, progress)
    processes.wait()
    learner.model.load_state_dict(load_tensors(best_weights(work, progress.best_epoch)))
    began = time.perf_counter()
    progress.finished = learner.finish()
    progress.seconds += time.perf_counter() - began
    return progress


@contextmanager
def reproducible(on_gpu: bool) -> Iterator[None]:
    """torch sums the gradients of a row that was taken more than once in the same order each time.

    Otherwise several threads, on a GPU atomic additions, add to it as they come, and the same seed gives other last
    digits from run to run. On a GPU `index_add_` and the gradients of `gather` then sort first, and cuBLAS takes
    workspaces of a fixed size, which it is told by a variable that a process reads once: an own setting is left as it
    is. torch warns of operations that it has in no such form; tests/trainers/training/test_same_on_a_gpu.py finds none.
    """
    kept = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    debugging: Any = torch.utils.deterministic  # a property of a module, which types do not know
    filled = debugging.fill_uninitialized_memory
    if on_gpu:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    debugging.fill_uninitialized_memory = False  # a check for debugging, which costs a pass each
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(kept[0], warn_only=kept[1])
        debugging.fill_uninitialized_memory = filled


@contextmanager
def _written(checkpoints: Checkpoints) -> Iterator[None]:
    """Wait for what a thread still writes, however the block ends; beside an error of the block its own is logged."""
    try:
        yield
    except BaseException:
        try:
            checkpoints.wait()
        except UserError as error:
            log.warning("%s", error)
        raise
    checkpoints.wait()


def reseed(seed: int, epoch: int) -> None:
    """Make everything random in this epoch a function of (seed, epoch)."""
    torch.manual_seed(int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0] >> 1))


def _one_epoch(learner: Learner, progress: Progress, seed: int, bar: tqdm, watch: Watch | None) -> dict:
    """One pass over the batches; the mean of each loss term, and their sum as `loss`."""
    reseed(seed, progress.epoch)
    learner.model.train()
    taken: list[dict[str, Tensor]] = []
    for batch in learner.batches(progress.epoch):
        try:
            taken.append(learner.step(batch))
        except NotFinite as error:
            raise _not_finite(error.term, progress, len(taken)) from error
        bar.update()
        if watch:
            watch.step(progress.epoch, len(taken), taken[-1], _best(progress))
    for scheduler in learner.schedulers.values():
        scheduler.step()
    # The terms are looked at once an epoch: asking after every step would make a GPU wait for each of them.
    means = {}
    for name in taken[0]:
        values = torch.stack([terms[name] for terms in taken]).float().cpu()
        broken = (~torch.isfinite(values)).nonzero()
        if len(broken):
            raise _not_finite(name, progress, int(broken[0]))
        means[name] = float(values.double().mean())
    return {"loss": means["loss"] if "loss" in means else sum(means.values()), **means}


def _not_finite(term: str, progress: Progress, steps: int) -> UserError:
    return UserError(
        f"The loss term {term!r} is not a finite number at step {progress.step + steps + 1} "
        f"(epoch {progress.epoch + 1}); lower the learning rate or use precision: float32. "
        "The last checkpoint is kept."
    )


def best_weights(work: Path, epoch: int) -> Path:
    """Where the weights lie that were best on dev after `epoch`."""
    return work / f"best-{epoch}.safetensors"


def _note_best(checkpoints: Checkpoints, learner: Learner, progress: Progress, mrr: float) -> None:
    if mrr > progress.best_mrr or not progress.best_epoch:
        progress.best_mrr, progress.best_epoch, progress.without_gain = mrr, progress.epoch, 0
        if processes.is_first():
            checkpoints.save_best(best_weights(checkpoints.folder, progress.epoch), learner.model.state_dict())
    else:
        progress.without_gain += 1


def _save(checkpoints: Checkpoints, learner: Learner, progress: Progress) -> None:
    """Write a checkpoint, then drop best weights that no kept checkpoint names."""
    if not processes.is_first():
        return

    def drop() -> None:
        # Listed before it is asked which are named: training goes on meanwhile, and may find better ones.
        paths = list(checkpoints.folder.glob("best-*.safetensors"))
        named = {one["best_epoch"] for one in checkpoints.progresses()} | {progress.best_epoch}
        for path in paths:
            if int(path.stem.removeprefix("best-")) not in named:
                path.unlink(missing_ok=True)

    checkpoints.save(progress.epoch, learner, vars(progress), drop)


def _resume(checkpoints: Checkpoints, learner: Learner) -> Progress:
    """Where the newest checkpoint stands that can be read and whose best weights are there; else the beginning."""

    def whole(found: dict) -> bool:
        return not found["best_epoch"] or best_weights(checkpoints.folder, found["best_epoch"]).exists()

    found = checkpoints.restore(learner, whole)
    processes.wait()  # nobody may write the next checkpoint while another still reads this one
    if found is None:
        return Progress()
    progress = Progress(**found)
    log.info("Going on after epoch %d.", progress.epoch)
    return progress


def _postfix(row: dict, progress: Progress) -> dict[str, str]:
    shown = {"loss": f"{row['loss']:.4f}", "triples/s": f"{row['triples_per_second']:,.0f}"}
    if progress.best_epoch:
        shown["dev MRR"] = _best(progress).removeprefix("dev MRR ")
    return shown


def _best(progress: Progress) -> str:
    """The best on dev so far in words; empty before it is measured."""
    return f"dev MRR {progress.best_mrr:.4f} (epoch {progress.best_epoch})" if progress.best_epoch else ""


def _explain_memory(error: MemoryError | RuntimeError, learner: Learner) -> None:
    """Raise a UserError if it was memory that ran out; else return."""
    if isinstance(error, MemoryError) and str(error):  # of a kernel, which says what to change
        raise UserError(f"Training ran out of memory: {error}.") from error
    if not isinstance(error, (torch.OutOfMemoryError, MemoryError)) and "allocate memory" not in str(error):
        return
    size = getattr(getattr(learner, "settings", None), "batch_size", None)
    advice = f"set batch_size from {size} to {max(1, size // 2)}" if size else "lower batch_size by half"
    raise UserError(
        f"Training ran out of memory; {advice} in the model's file below configs/models and run again."
    ) from error
