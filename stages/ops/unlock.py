"""Before dvc runs: take back the locks of a dvc that was killed, so that nobody has to know where they lie.

DVC itself forgets the entries of processes that are gone. It stops where a process of another program has got the
number of a dead one, which is common in containers and after a restart, and where the kill came while the file of
locks was being written.
"""

import fcntl
import json
import logging
from pathlib import Path

import psutil

from pipeline import tables
from pipeline.errors import NO_JSON, UserError, counted
from stages.cli import arguments, stage

log = logging.getLogger(__name__)

FOLDER = Path(".dvc/tmp")


@stage
def main() -> None:
    arguments(__doc__).parse_args()
    unlock(FOLDER)


def unlock(folder: Path) -> int:
    """Remove entries of dead processes from `folder`/rwlock; how many there were. A damaged file counts as one.

    Raises UserError if the file is damaged and a dvc of this project is at work.
    """
    path = folder / "rwlock"
    if not path.exists():
        return 0
    with open(folder / "rwlock.lock", "a") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)  # what dvc holds while it writes the file
        root = folder.resolve().parents[1]
        try:
            locks = json.loads(path.read_text(encoding="utf-8"))
            kept = _alive(locks, root)
        except (*NO_JSON, AttributeError, KeyError, TypeError) as error:
            busy = [process.pid for process in psutil.process_iter() if _is_dvc(process, root)]
            if busy:
                raise UserError(
                    f"{path} is damaged, and dvc is at work here (process {busy[0]}); let it end, then run again."
                ) from error
            path.unlink()
            log.info("%s was left damaged by a dvc that was killed; it is removed.", path)
            return 1
        gone = _count(locks) - _count(kept)
        if gone:
            tables.write_text(path, json.dumps(kept))
            log.info("%s of a dvc that was killed removed.", counted(gone, "lock"))
        return gone


def _alive(locks: dict, root: Path) -> dict:
    """The entries whose process is still a dvc at work in `root`: one writer, or several readers, a path."""

    def lives(one: dict) -> bool:
        try:
            return _is_dvc(psutil.Process(one["pid"]), root)
        except psutil.NoSuchProcess:
            return False

    write = {path: one for path, one in locks.get("write", {}).items() if lives(one)}
    read = {path: [one for one in readers if lives(one)] for path, readers in locks.get("read", {}).items()}
    return {"write": write, "read": {path: readers for path, readers in read.items() if readers}}


def _is_dvc(process: psutil.Process, root: Path) -> bool:
    """Whether it may be a dvc of this project; a process that does not let itself be looked at may be."""
    try:
        if not any("dvc" in word or word == "stages.ops.repro" for word in process.cmdline()):
            return False
        return root in (here := Path(process.cwd()), *here.parents)
    except psutil.AccessDenied:
        return True
    except psutil.NoSuchProcess:
        return False


def _count(locks: dict) -> int:
    return len(locks.get("write", {})) + sum(map(len, locks.get("read", {}).values()))


if __name__ == "__main__":
    main()
