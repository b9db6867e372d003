"""How many pictures a second come from the web, and become clean. `python -m benchmarks.fetch [--server FILE]`.

The server is a program that stands in for Wikidata and Commons: it answers on loopback and prints its address first.
Both sides share the cores, so the figure is what is left for the client. Prints one JSON line: pictures a second
fetched and cleaned, the client's own processor time a picture, requests, and how many were under way at once.
"""

import argparse
import functools
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

from pipeline.cores import usable_cores
from pipeline.modalities.pictures import Picture, clean, clean_many
from pipeline.wikimedia import store as web_store
from pipeline.wikimedia.answers import PICTURE
from pipeline.wikimedia.client import CrawlPolicy
from pipeline.wikimedia.fetching import Addresses, Wanted, fetch
from pipeline.wikimedia.store import WebStore

ROOT = Path(__file__).parents[1]


@contextmanager
def serving(program: Path, rate: float, **options: float):
    """The address of the running program; more of its options by their names."""
    command = [sys.executable, str(program), "--port", "0", "--rate", str(rate)]
    command += [word for name, value in options.items() for word in (f"--{name}", str(value))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def default_server() -> Path | None:
    """Where the program lies: named by TESSERA_WIKIMEDIA_SERVER, or beside the mirror of TESSERA_MIRROR."""
    if given := os.environ.get("TESSERA_WIKIMEDIA_SERVER"):
        return Path(given)
    mirror = os.environ.get("TESSERA_MIRROR")
    return Path(mirror).parent / "tools" / "wikimedia_server.py" if mirror else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", type=Path, default=default_server(), help="the stand-in's program")
    parser.add_argument(
        "--ids", type=Path, default=None, help="a file of Q-ids, one a line (default: those of --table)"
    )
    parser.add_argument("--table", type=Path, default=None, help="entity2wikidata.json, whose Q-ids are asked for")
    parser.add_argument("--entities", type=int, default=6000)
    parser.add_argument("--rate", type=float, default=1000, help="requests a second that the server allows")
    parser.add_argument("--concurrency", type=int, default=48)
    options = parser.parse_args()
    if options.server is None or not options.server.is_file():
        sys.exit("name the stand-in's program with --server or TESSERA_WIKIMEDIA_SERVER")
    subjects = _subjects(options)[: options.entities]
    policy = CrawlPolicy("benchmark@example.org", rate=options.rate, concurrency=options.concurrency)
    with serving(options.server, options.rate) as address, tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        with WebStore(path / "web.sqlite") as store:
            started: dict[str, float] = {}
            ended: dict[str, float] = {}

            def note(state) -> None:
                started.setdefault(state.step, state.started)
                ended[state.step] = time.monotonic()

            wanted = Wanted(subjects, pictures=8, licences=False)
            processor = time.process_time()
            keys = fetch(wanted, store, policy, Addresses(address, address, None), note)
            processor = time.process_time() - processor
            statuses = list(store.known(PICTURE).values())
            web_store.publish(store, keys, path / "web", {})
        with urllib.request.urlopen(f"{address}/stats") as answer:
            stats = json.load(answer)
        seconds = ended["pictures"] - started["pictures"]
        begin = time.perf_counter()
        pictures = ((one.key, one.body) for one in web_store.read(path / "web", PICTURE) if one.body)
        cleaned = sum(isinstance(one, Picture) for _, one in clean_many(pictures, functools.partial(clean)))
        cleaning = time.perf_counter() - begin
    figures = {
        "pictures": statuses.count("ok"),
        "fetched_a_second": round(statuses.count("ok") / seconds, 1),
        "cleaned_a_second": round(cleaned / cleaning, 1),
        "processor_ms_a_picture": round(1000 * processor / max(statuses.count("ok"), 1), 2),
        "requests": stats["requests"],
        "refused_as_too_fast": stats.get("status 429", 0),
        "most_at_once": stats["most at once"],
        "concurrency": options.concurrency,
        "cores": usable_cores(),
    }
    print(json.dumps(figures))


def _subjects(options: argparse.Namespace) -> list[str]:
    if options.ids is not None:
        return options.ids.read_text(encoding="utf-8").split()
    table = options.table or next(options.server.resolve().parents[1].glob("mirror/**/entity2wikidata.json"), None)
    if table is None:
        sys.exit("name a table of Q-ids with --table, or a list with --ids")
    return sorted({row["wikidata_id"] for row in json.loads(table.read_text(encoding="utf-8")).values()})


if __name__ == "__main__":
    main()
