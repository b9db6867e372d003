"""What the faults have in common: a clone that builds little, what its outputs hold, what lies about, killing it."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from tests.helpers.clones import MINI, ROOT, TRANSE, attempt, clone, environment, set_key

MAKE = ("make", "repro", "VENV=")
# What two runs may differ in: how long they took, how much memory, which rows the store knew already.
PASSING = {"seconds", "total_seconds", "peak_memory_bytes", "triples_per_second", "found", "encoded", "distinct"}
# What `make repro` builds, and what is kept between two of them.
OUTPUTS = ("data/mini/raw", "data/mini/graph", "data/mini/web", "data/mini/images", "data/mini/encoded",
           "data/mini/captions.parquet", "data/mini/text.parquet", "data/mini/text.json", "data/mini/images.json",
           "runs", "reports")  # fmt: skip
KEPT = ("data/.store", "data/.work", "data/.checked", "data/.code", "data/.shown", "data/params.checked",
        "data/mini/watched", "data/mini/encode_text.json", "data/mini/encode_images.json", "dvc.lock", ".dvc/cache",
        ".dvc/tmp")  # fmt: skip


@dataclass
class Row:
    """One line of the table. `lost` are tries whose end was another than it should be; `notes` say how."""

    fault: str
    tries: int = 0
    lost: int = 0
    notes: list[str] = field(default_factory=list)

    def add(self, complaint: str | None) -> None:
        """Count a try; a complaint means that it was lost."""
        self.tries += 1
        if complaint:
            self.lost += 1
            self.notes.append(complaint)
        print(f"  {self.fault}: {self.tries} tried, {self.lost} lost {complaint or ''}", flush=True)


def table(rows: list[Row]) -> str:
    """The rows as Markdown."""
    lines = ["| fault | tried | survived | lost |", "|---|---|---|---|"]
    lines += [f"| {row.fault} | {row.tries} | {row.tries - row.lost} | {row.lost} |" for row in rows]
    lines += [f"\n{row.fault}: {note}" for row in rows for note in row.notes]
    return "\n".join(lines)


def build(folder: Path, *words: str, seconds: float = 1800) -> tuple[int, str]:
    """`make repro` in a clone (or another command): its exit code, and all that it prints."""
    return attempt(folder, *(words or MAKE), seconds=seconds)


def must(done: tuple[int, str]) -> str:
    """The output of a command that is no fault but a preparation."""
    code, output = done
    if code:
        raise SystemExit(f"a run that nothing disturbs fails:\n{output[-3000:]}")
    return output


def fresh(folder: Path) -> Path:
    """A clone as it was before anything ran in it."""
    for name in (*OUTPUTS, *KEPT):
        path = folder / name
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
    subprocess.run(["git", "checkout", "-q", "data/mini"], cwd=folder, check=True)
    return folder


def copy(folder: Path, into: Path) -> Path:
    """A clone of the same code and parameters in which nothing has run; the tree may be another by now."""
    shutil.copytree(
        folder, into, symlinks=True, ignore=lambda at, _: {"cache", "tmp"} if at.endswith(".dvc") else set()
    )
    return fresh(into)


# ------------------------------------------------------------------------------------------------------ comparing
def snapshot(folder: Path) -> dict[str, str]:
    """A digest of what each output of a clone holds, times, seconds and memory aside."""
    found = {}
    for name in OUTPUTS:
        path = folder / name
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file() and file.name != "index.html":  # the report shows seconds; that it is there is enough
                found[str(file.relative_to(folder))] = hashlib.sha256(_content(file)).hexdigest()
    page = folder / "reports" / "index.html"
    found["reports/index.html"] = "whole" if page.exists() and page.read_text().rstrip().endswith("</html>") else "not"
    return found


def _content(path: Path) -> bytes:
    if path.suffix == ".parquet":
        read = pq.read_table(path)
        read = read.drop_columns([name for name in ("fetched_at",) if name in read.column_names])
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, read.schema.remove_metadata()) as stream:
            stream.write_table(read.replace_schema_metadata(None).combine_chunks())
        return sink.getvalue().to_pybytes()
    if path.suffix == ".json":
        return json.dumps(_lasting(json.loads(path.read_text())), sort_keys=True).encode()
    if path.name == "history.csv":
        rows = [line.split(",") for line in path.read_text().splitlines()]
        stays = [place for place, name in enumerate(rows[0]) if name not in PASSING]
        return "\n".join(",".join(row[place] for place in stays) for row in rows).encode()
    return path.read_bytes()


def _lasting(value: object) -> object:
    if isinstance(value, dict):
        return {name: _lasting(one) for name, one in value.items() if name not in PASSING}
    return [_lasting(one) for one in value] if isinstance(value, list) else value


def differs(folder: Path, expected: dict[str, str]) -> str | None:
    """In what a clone's outputs are not the expected ones; None if they are."""
    try:
        found = snapshot(folder)
    except (OSError, ValueError) as error:
        return f"an output cannot be read: {error}"
    wrong = sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))
    return f"other outputs: {', '.join(wrong[:5])}" if wrong else None


def litter(folder: Path) -> str | None:
    """What a finished `make repro` has left lying about; None if nothing."""
    names = [str(path.relative_to(folder)) for path in folder.glob("data/**/*.part")]
    names += [str(path.relative_to(folder)) for path in folder.glob("runs/**/*.part")]
    work = folder / "data" / ".work"
    for path in work.rglob("*") if work.exists() else ():
        if path.is_file() and path.name != "web.sqlite":  # answers of the web are kept, so that nobody is asked twice
            names.append(str(path.relative_to(folder)))
    return f"left behind: {', '.join(names[:5])}" if names else None


def size(folder: Path, *names: str) -> dict[str, int]:
    """Bytes of some folders of a clone."""
    return {name: sum(path.lstat().st_size for path in (folder / name).rglob("*") if path.is_file()) for name in names}


def ugly(output: str) -> str | None:
    """What a user should not have to read."""
    for sign in ("Traceback (most recent call last)", "unexpected error"):
        if sign in output:
            where = output.index(sign)
            return " ".join(output[max(0, where - 300) : where + 600].split())
    return None


# -------------------------------------------------------------------------------------------------------- killing
def start(folder: Path, log: Path, *words: str) -> subprocess.Popen:
    """`make repro` (or another command) in a process group of its own."""
    with open(log, "wb") as out:
        return subprocess.Popen(
            words or MAKE, cwd=folder, stdout=out, stderr=subprocess.STDOUT, env=environment(), start_new_session=True
        )


def kill(process: subprocess.Popen, folder: Path) -> None:
    """SIGKILL for the whole group, and for whatever of it went its own way."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for stray in strays(folder):
        stray.kill()
    for _ in range(100):
        if not any(strays(folder)):
            return
        time.sleep(0.05)
    raise SystemExit(f"processes in {folder} survive SIGKILL")


def strays(folder: Path) -> Iterator[psutil.Process]:
    """Processes that work in a clone."""
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and Path(process.cwd()).is_relative_to(folder):
                yield process
        except (psutil.NoSuchProcess, psutil.AccessDenied, FileNotFoundError):
            continue


__all__ = ["MAKE", "MINI", "ROOT", "TRANSE", "Row", "build", "clone", "copy", "differs", "environment",
           "fresh", "kill", "litter", "must", "set_key", "size", "snapshot", "start", "table", "ugly"]  # fmt: skip
