"""Checkpoints: everything a training run needs to go on as if it had never stopped, in safetensors and JSON.

A checkpoint is a folder `epoch-<n>` that appears whole, by one rename; one that a crash or a full disk cut short is
dropped, and the one before it is used. Nothing in it can run code.
"""

import errno
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipeline import tables
from pipeline.errors import UserError

log = logging.getLogger(__name__)
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)  # what file systems without locks answer

KEPT = 2  # the newest and, in case it turns out damaged, the one before it


def save_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write tensors to one safetensors file, whole or not at all.

    Raises UserError where the disk is full or writing is not allowed.
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, temporary)
        tables.flush_to_disk(temporary)
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} cannot be written ({error}); free space or rights there, then run again.") from error
    finally:
        temporary.unlink(missing_ok=True)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file. Raises UserError if it is missing or cut short."""
    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise UserError(f"{path} is not there; train the run first (dvc repro).") from error
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} is damaged ({error}); delete it and train again.") from error


def flatten_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict]:
    """An optimiser's state as (tensors by "<parameter>.<key>", everything else as JSON)."""
    state = optimizer.state_dict()
    tensors: dict[str, Tensor] = {}
    plain: dict[str, object] = {}
    for parameter, values in state["state"].items():
        for key, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"{parameter}.{key}"] = value
            else:
                plain[f"{parameter}.{key}"] = value
    return tensors, {"state": plain, "param_groups": state["param_groups"]}


def unflatten_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], rest: dict) -> None:
    """The inverse of `flatten_optimizer`."""
    state: dict[int, dict] = {}
    for name, value in {**tensors, **rest["state"]}.items():
        parameter, key = name.split(".", 1)
        state.setdefault(int(parameter), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": rest["param_groups"]})


@contextmanager
def file_lock(folder: Path, writes: bool = True) -> Iterator[None]:
    """Keep a second process from training into `folder` (a dvc that was killed may have left its stage at work).

    A process that writes nothing there (`writes` False) is let through. Raises UserError if another one is at it. The
    lock file stays, since unlinking it would let two in.
    """
    if not writes:
        yield
        return
    path, holder = (folder.with_name(f"{folder.name}.{end}") for end in ("lock", "pid"))
    lock = FileLock(path, timeout=0)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
        holder.write_text(str(os.getpid()), encoding="utf-8")
    except Timeout as error:
        pid = holder.read_text(encoding="utf-8") if holder.exists() else "?"
        raise UserError(f"Process {pid} is training this run already ({path}); let it end, or stop it.") from error
    except (NotImplementedError, OSError) as error:
        if not isinstance(error, OSError) or error.errno in _NO_LOCKS:
            log.info("%s: this file system knows no locks.", path)
        else:
            raise UserError(f"{path} cannot be written ({error.strerror}); free space or rights there.") from error
    try:
        yield
    finally:
        lock.release()


class Checkpoints:
    """The checkpoints of one run, in one folder of its own.

    With `background` a thread writes them, from a copy in the host's memory, while training goes on: a GPU would wait
    for the disk. It writes in the order in which it was asked. What goes wrong then is raised by the next `save_best`,
    `save` or `wait`.
    """

    def __init__(self, folder: Path, *, background: bool = False):
        self.folder = folder
        self._thread = ThreadPoolExecutor(1) if background else None
        self._written: Future | None = None  # the last checkpoint
        self._best: Future | None = None  # the best weights that were saved after it

    def save_best(self, path: Path, tensors: dict[str, Tensor]) -> None:
        """Write the weights that are best so far, before any checkpoint that is saved from now on and may name them."""
        self.wait()
        if self._thread is None:
            save_tensors(path, tensors)
        else:
            self._best = self._thread.submit(save_tensors, path, _on_the_host(tensors))

    def save(self, epoch: int, learner, progress: dict, then: Callable[[], object] = lambda: None) -> None:
        """Write the learner's state after `epoch` together with `progress` (JSON), then drop all but the newest two.

        `then` is called once that is done.
        """
        if self._best is None:
            self.wait()
        tensors = {f"model.{name}": value for name, value in learner.model.state_dict().items()}
        rest: dict = {"progress": progress, "optimizers": {}, "schedulers": {}}
        for name, optimizer in learner.optimizers.items():
            found, rest["optimizers"][name] = flatten_optimizer(optimizer)
            tensors |= {f"optimizer.{name}.{key}": value for key, value in found.items()}
        for name, scheduler in learner.schedulers.items():
            rest["schedulers"][name] = _plain(scheduler.state_dict())
        if self._thread is None:
            self._write(epoch, tensors, rest)
            then()
            return
        tensors = _on_the_host(tensors)
        rest = json.loads(json.dumps(rest))  # training goes on changing what it holds
        best, self._best = self._best, None

        def write() -> None:
            if best is not None:
                best.result()  # it was written before; without it there must be no checkpoint that names it
            self._write(epoch, tensors, rest)
            then()

        self._written = self._thread.submit(write)

    def wait(self) -> None:
        """Until all that was to be saved is written. Raises what that met, UserError where the disk is full."""
        asked, self._written, self._best = (self._written, self._best), None, None
        for one in asked:
            if one is not None:
                one.result()

    def _write(self, epoch: int, tensors: dict[str, Tensor], rest: dict) -> None:
        part = self.folder / f".epoch-{epoch}.part"
        shutil.rmtree(part, ignore_errors=True)
        save_tensors(part / "tensors.safetensors", tensors)
        tables.write_json(part / "rest.json", rest)
        whole = self.folder / f"epoch-{epoch}"
        shutil.rmtree(whole, ignore_errors=True)
        os.replace(part, whole)
        for old in self.epochs()[:-KEPT]:
            shutil.rmtree(self.folder / f"epoch-{old}", ignore_errors=True)

    def epochs(self) -> list[int]:
        """Epochs with a checkpoint, oldest first."""
        return sorted(int(path.name.removeprefix("epoch-")) for path in self.folder.glob("epoch-*"))

    def progresses(self) -> list[dict]:
        """The progress of each kept checkpoint that can be read, oldest first."""
        found = []
        for epoch in self.epochs():
            try:
                found.append(
                    json.loads((self.folder / f"epoch-{epoch}" / "rest.json").read_text(encoding="utf-8"))["progress"]
                )
            except (OSError, ValueError, KeyError):
                continue  # `restore` drops it when it comes to it
        return found

    def restore(self, learner, usable: Callable[[dict], bool] = lambda progress: True) -> dict | None:
        """Restore the learner from the newest checkpoint that can be read and whose progress is `usable`.

        Returns that progress, or None if there is no such checkpoint; then the learner is as it was.
        """
        for epoch in reversed(self.epochs()):
            folder = self.folder / f"epoch-{epoch}"
            try:
                tensors = load_tensors(folder / "tensors.safetensors")
                rest = json.loads((folder / "rest.json").read_text(encoding="utf-8"))
                if not usable(rest["progress"]):
                    raise ValueError("the best weights that it names are gone")
            except (UserError, OSError, ValueError) as error:
                log.warning(
                    "The checkpoint %s cannot be read (%s): dropped; going on from the one before.", folder, error
                )
                shutil.rmtree(folder, ignore_errors=True)
                continue
            _put_back(learner, tensors, rest)
            return rest["progress"]
        return None


def _on_the_host(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """A copy that training does not change any more."""
    return {name: value.detach().to("cpu", copy=True) for name, value in tensors.items()}


def _put_back(learner, tensors: dict[str, Tensor], rest: dict) -> None:
    def below(prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}

    learner.model.load_state_dict(below("model."))
    for name, optimizer in learner.optimizers.items():
        unflatten_optimizer(optimizer, below(f"optimizer.{name}."), rest["optimizers"][name])
    for name, scheduler in learner.schedulers.items():
        scheduler.load_state_dict(rest["schedulers"][name])


def _plain(state: dict) -> dict:
    """A scheduler's state without what JSON cannot hold (functions, which it gets back from its construction)."""
    return {key: value for key, value in state.items() if isinstance(value, int | float | str | list | bool | None)}
