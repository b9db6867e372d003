"""Programs of clones and stages without the seconds in which each of them loads PyTorch, pandas and DVC.

`folder()` holds programs named `python` and `dvc`. They hand what they were asked to run (`python -m …`, `dvc …`) to a
process of this one's, `server.py`, which has imported the libraries, and nothing of the project, and forks. What runs
then is the same code, from the folder it was called in, with the same arguments, environment, streams and exit code.
Whatever else is asked of `python`, and everything on systems that have no such server, Python itself runs.

What a script imports may be loaded already, so that it names all its imports is not seen here: `make repro` shows it.
"""

import atexit
import functools
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
SOCKET = "TESSERA_TESTS_WARM"
CLIENT = f"""#!{sys.executable} -IS
import sys
sys.argv[0] = {{name!r}}
sys.path.insert(0, {str(HERE)!r})
import client
client.main({sys.executable!r}, {str(Path(sys.executable).with_name("dvc"))!r})
"""


@functools.cache
def folder() -> Path | None:
    """What to put first on a PATH, with `SOCKET` in the environment; None where there is no server."""
    if not hasattr(os, "pidfd_open"):
        return None
    made = tempfile.TemporaryDirectory(prefix="warm")
    atexit.register(made.cleanup)
    for name in ("python", "dvc"):
        program = Path(made.name, name)
        program.write_text(CLIENT.format(name=name))
        program.chmod(0o755)
    words = [sys.executable, str(HERE / "server.py"), str(Path(made.name, "socket"))]
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    # It ends with its standard input, whose other end closes with this process, however that ends.
    process = subprocess.Popen(words, cwd=made.name, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               env={**clean, "OMP_NUM_THREADS": "1"})  # fmt: skip
    atexit.register(process.wait)
    atexit.register(process.stdin.close)
    assert process.stdout.readline() == b"listens\n"
    return Path(made.name)


def environment(given: dict[str, str]) -> dict[str, str]:
    """An environment with these programs first on its PATH."""
    place = folder()
    if place is None:
        return given
    return {**given, "PATH": f"{place}{os.pathsep}{given['PATH']}", SOCKET: str(place / "socket")}
