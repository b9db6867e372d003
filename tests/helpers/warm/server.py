"""A process that has imported the libraries of the project's programs, and forks one for each that is asked for."""

import atexit
import contextlib
import dataclasses
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

# Nothing of the project, which each program takes from the folder it is called in; but without this, transformers finds
# a torchvision that it cannot load in some environments.
REPAIR = Path(__file__).parents[3] / "pipeline/encoding/torchvision_repair.py"
LIBRARIES = {
    "": "numpy pandas pydantic yaml aiohttp httpx fsspec filelock psutil tqdm jinja2 regex",
    "torch": "_dynamo.external_utils distributed.run distributed.elastic.multiprocessing.errors",
    "transformers": "activations modeling_layers modeling_utils integrations.hub_kernels tokenization_utils_tokenizers",
    "pyarrow": "parquet compute dataset",
    "scipy": "sparse stats optimize",
    "ruamel": "yaml",
    "PIL": "Image JpegImagePlugin PngImagePlugin",
    "safetensors": "torch",
    "matplotlib": "figure backends.backend_svg backends.backend_agg",
    "sklearn": "cluster",
    "dvc": "cli cli.parser repo repo.reproduce repo.status repo.index repo.stage stage.cache stage.run stage.loader "
    "stage.serialize dvcfile commands.repro dependency output ignore parsing cachemgr data_cloud",
    "dvc_data": "index hashfile.build hashfile.transfer",
}

# How variables begin that these read while they are imported: who has another value of one is sent away.
READ = (
    "FSSPEC_",
    "HF_",
    "HUGGINGFACE",
    "MKL_",
    "MPL",
    "OMP_",
    "OPENBLAS_",
    "TORCHINDUCTOR",
    "TORCH_LOGS",
    "TRANSFORMERS_",
)


@dataclasses.dataclass(frozen=True)
class Asked:
    """A program to run, as the client describes it."""

    streams: list[int]
    words: list[str]
    folder: str
    ignored: bool
    environment: dict[str, str]


def receive(connection: socket.socket) -> Asked:
    head, streams, _, _ = socket.recv_fds(connection, 8, 3)
    left = int.from_bytes(head, "big")
    content = b""
    while len(content) < left:
        content += connection.recv(left - len(content))
    return Asked(list(streams), **json.loads(content))


def read(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that imported libraries have read."""
    return {name: value for name, value in environment.items() if name.startswith(READ)}


def serve(listening: socket.socket, before: Mapping[str, str]) -> Asked:
    """Answer programs until the standard input ends, those alone that read the same variables as `before`.

    It returns in forked processes only, with what each is to run.
    """
    waiting = selectors.DefaultSelector()
    waiting.register(listening, selectors.EVENT_READ)
    waiting.register(0, selectors.EVENT_READ)
    while True:
        for key, _ in waiting.select():
            if key.fileobj is listening:
                connection, _ = listening.accept()
                asked = receive(connection)
                child = -1 if read(asked.environment) != before else os.fork()
                if not child:
                    waiting.close()
                    listening.close()
                    connection.close()
                    return asked
                for one in asked.streams:
                    os.close(one)
                connection.sendall(f"{child}\n".encode())
                if child < 0:
                    connection.close()
                    continue
                ended = os.pidfd_open(child)
                waiting.register(ended, selectors.EVENT_READ, (child, connection))
                waiting.register(connection, selectors.EVENT_READ, (child, ended))
            elif key.fileobj == 0:
                os._exit(0)
            elif isinstance(key.fileobj, socket.socket):  # whoever asked is gone
                os.kill(key.data[0], signal.SIGKILL)
                waiting.unregister(key.fileobj)
            else:
                child, connection = key.data
                _, status = os.waitpid(child, 0)
                waiting.unregister(key.fileobj)
                os.close(key.fd)
                if connection in waiting.get_map():
                    waiting.unregister(connection)
                    connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
                connection.close()


def become(asked: Asked) -> None:
    """Make this process what the client's would be."""
    for number, stream in enumerate(asked.streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(asked.folder)
    os.environ.clear()
    os.environ.update(asked.environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN if asked.ignored else signal.default_int_handler)
    through = bool(asked.environment.get("PYTHONUNBUFFERED"))
    sys.stdin = sys.__stdin__ = open(0, closefd=False)  # noqa: SIM115  (open to the end)
    sys.stdout = sys.__stdout__ = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stdout.reconfigure(line_buffering=os.isatty(1), write_through=through)
    sys.stderr = sys.__stderr__ = open(2, "w", errors="backslashreplace", closefd=False)  # noqa: SIM115
    sys.stderr.reconfigure(line_buffering=True)
    first = [asked.folder] if asked.words[0] == "python" else []
    more = [one for one in asked.environment.get("PYTHONPATH", "").split(os.pathsep) if one]
    sys.path[:1] = [*first, *more]
    importlib.invalidate_caches()


def run(words: list[str]) -> object:
    """Run the program; what it gives to `sys.exit`."""
    try:
        if words[0] == "dvc":
            from dvc.cli import main

            sys.argv = words
            return main()
        sys.argv = ["-m", *words[3:]]
        runpy._run_module_as_main(words[2])
    except SystemExit as ended:
        return ended.code
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        return -signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
    return None


def end(code: object) -> NoReturn:
    """What Python does at its end, without giving back the memory of every library piece by piece."""
    if code is not None and not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    if code and code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit((code or 0) & 0xFF)


def main() -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(sys.argv[1])
        listening.listen(100)
        print("listens", flush=True)  # who comes now waits
        before = read(os.environ)
        repaired = runpy.run_path(str(REPAIR))  # what it declared lasts as long as this
        for package, names in LIBRARIES.items():
            for name in names.split():
                with contextlib.suppress(ImportError):  # of another version: the program loads what it needs
                    importlib.import_module(f"{package}.{name}" if package else name)
        gc.freeze()
        asked = serve(listening, before)
    assert repaired
    become(asked)
    end(run(asked.words))


if __name__ == "__main__":
    main()
