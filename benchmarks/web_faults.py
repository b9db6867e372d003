"""A whole graph from a web that fails: is everything had that can be had, and is nothing asked too often or too fast?

    python -m benchmarks.web_faults --graph data/MKG-W/graph        [--server FILE] [--faults 0.3] [--rate 50]

The server is the stand-in of `benchmarks.fetch`. A share of its answers fail, and it refuses more requests a second
than `--rate`. What it should have given is computed from its own tables, apart from the client. Prints one JSON line;
the exit code is 1 if one of its checks is false.

had          every entity it knows and every picture it holds, with the right bytes; the rest is marked missing
needed       requests = one a batch of entities, two a picture (the redirection, the file), one a picture that is gone,
             and one more for each fault and each refusal; not one beyond
at once      never more under way than configured
clean        files that are no pictures are refused with a reason, all others become pictures
"""

import argparse
import functools
import importlib.util
import json
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from pathlib import Path

from benchmarks.fetch import default_server, serving
from pipeline import tables
from pipeline.modalities.pictures import Picture, clean, clean_many
from pipeline.wikimedia import fetching
from pipeline.wikimedia import store as web_store
from pipeline.wikimedia.answers import ENTITY, PICTURE, TITLE, picture_key, subject
from pipeline.wikimedia.client import CrawlPolicy
from pipeline.wikimedia.store import WebStore

WIDTH = 500


class Truth:
    """What the server holds, by its own drawing of lots."""

    def __init__(self, program: Path, options: argparse.Namespace):
        spec = importlib.util.spec_from_file_location("stand_in", program)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        self._world = module.World(options.seed, options.faults, options.rate, options.pictured)
        self._faults = options.faults

    def q_id(self, one: str) -> str | None:
        """The item that a subject means; None if the server knows none."""
        found = self._world.by_title.get(one.removeprefix(TITLE)) if one.startswith(TITLE) else one
        return found if found in self._world.items else None

    def names(self, q_id: str) -> list[str]:
        """The pictures that an item names."""
        claims = self._world.entity(q_id, {"claims"})["claims"].get("P18", [])
        return [one["mainsnak"]["datavalue"]["value"] for one in claims if one["mainsnak"]["snaktype"] == "value"]

    def gone(self, name: str) -> bool:
        """Whether a picture answers 404."""
        return self._world.draw("gone", name) < 0.03 * bool(self._faults)

    def photograph(self, name: str) -> bytes | None:
        """The bytes of a picture; None for a file that the server has spoilt."""
        if self._world.draw("file", name) < self._faults / 4:
            return None
        return self._world.photos[int(self._world.draw("photo", name) * len(self._world.photos))].read_bytes()


def main() -> int:
    options = _parser().parse_args()
    if options.server is None or not options.server.is_file():
        sys.exit("name the stand-in's program with --server or TESSERA_WIKIMEDIA_SERVER")
    entities = tables.read(options.graph / "entities.parquet", "entities", ["entity_id", "key"]).sort_by("entity_id")
    subjects = list(dict.fromkeys(subject(key) for key in entities["key"].to_pylist()))
    truth = Truth(options.server, options)
    rate = options.client_rate or 0.95 * options.rate
    policy = CrawlPolicy("benchmark@example.org", rate=rate, concurrency=options.concurrency)
    arguments = {"faults": options.faults, "seed": options.seed, "pictured": options.pictured}
    with serving(options.server, options.rate, **arguments) as address, tempfile.TemporaryDirectory() as folder:
        with WebStore(Path(folder) / "web.sqlite") as store:
            wanted = fetching.Wanted(subjects, pictures=options.pictures, width=WIDTH, licences=False)
            began = time.monotonic()
            keys = fetching.fetch(wanted, store, policy, fetching.Addresses(address, address, None), _tell())
            seconds = time.monotonic() - began
            had = _had(subjects, store, truth, options.pictures)
            web_store.publish(store, keys, Path(folder) / "web", {})
        with urllib.request.urlopen(f"{address}/stats") as answer:
            stats = json.load(answer)
        cleaned = _cleaned(Path(folder) / "web", truth)
    asked = _asked(subjects, had, stats)
    checks = {
        "all had": not had["wrong"],
        "none failed": not had["failed"],
        "no request too many": asked["requests"] == asked["needed"] + asked["faults"] + asked["too fast"],
        "never more at once": stats["most at once"] <= options.concurrency,
        "clean": not cleaned["wrong"],
    }
    print(json.dumps({
        "graph": str(options.graph), "seconds": round(seconds, 1), **had, "requests": asked,
        "most at once": stats["most at once"], "configured": options.concurrency, "cleaned": cleaned, "checks": checks,
        "stats": dict(sorted(stats.items())),
    }))  # fmt: skip
    return 0 if all(checks.values()) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graph", type=Path, required=True, help="folder of an ingested graph")
    parser.add_argument("--server", type=Path, default=default_server(), help="the stand-in's program")
    parser.add_argument("--faults", type=float, default=0.3, help="share of its answers that fail")
    parser.add_argument("--rate", type=float, default=50, help="requests a second that it allows")
    parser.add_argument("--client-rate", type=float, help="requests a second of the client; default: 0.95 of it")
    parser.add_argument("--concurrency", type=int, default=12, help="requests of the client at once")
    parser.add_argument("--pictures", type=int, default=8, help="pictures an entity")
    parser.add_argument("--pictured", type=float, default=0.7, help="share of entities that have a picture")
    parser.add_argument("--seed", type=int, default=0)
    return parser


def _tell():
    """A line a minute."""
    told = [time.monotonic()]

    def tell(state: fetching.Progress) -> None:
        if time.monotonic() - told[0] > 60:
            told[0] = time.monotonic()
            print(f"{state.step}: {state.done} of {state.total}, {state.failed} failed", file=sys.stderr, flush=True)

    return tell


def _had(subjects: list[str], store: WebStore, truth: Truth, pictures: int) -> dict:
    """Counts of what was had, and of answers that are not the server's truth."""
    entities, files = store.known(ENTITY), store.known(PICTURE)
    wrong = sum(entities.get(one) != ("ok" if truth.q_id(one) else "missing") for one in subjects)
    items = filter(None, dict.fromkeys(map(truth.q_id, subjects)))
    names = list(dict.fromkeys(name for item in items for name in truth.names(item)[:pictures]))
    for name in names:
        status = files.get(picture_key(name, WIDTH))
        wrong += status != ("missing" if truth.gone(name) else "ok")
        expected = truth.photograph(name)
        if status == "ok" and expected is not None:
            wrong += store.get(PICTURE, picture_key(name, WIDTH)).body != expected
    wrong += len(files) - len(names)
    counts = Counter(files.values())
    return {
        "entities": len(subjects), "entities known": Counter(entities.values())["ok"], "pictures": counts["ok"],
        "gone": counts["missing"], "failed": counts["failed"] + Counter(entities.values())["failed"], "wrong": wrong,
    }  # fmt: skip


def _asked(subjects: list[str], had: dict, stats: dict[str, int]) -> dict[str, int]:
    """Requests as the server counted them, beside those that were needed and those that it made fail itself."""
    titles = [one.removeprefix(TITLE) for one in subjects if one.startswith(TITLE)]
    ids = [one for one in subjects if not one.startswith(TITLE)]
    batches = sum(len(list(fetching._batched(some, fetching.BATCH))) for some in (ids, titles))
    return {
        "requests": stats["requests"],
        "needed": batches + 2 * had["pictures"] + had["gone"],
        "faults": sum(count for name, count in stats.items() if name.startswith("fault")),
        "too fast": stats.get("status 429", 0) - stats.get("fault 429", 0),
    }


def _cleaned(web: Path, truth: Truth) -> dict[str, object]:
    """What the pictures' bytes became. Wrong: a photograph refused."""
    raw = ((one.key, one.body) for one in web_store.read(web, PICTURE) if one.body is not None)
    clean_ones, refused, wrong = 0, Counter(), 0
    for key, picture in clean_many(raw, functools.partial(clean)):
        if isinstance(picture, Picture):
            clean_ones += 1
            continue
        refused[str(picture)] += 1
        name = key.rpartition("?width=")[0]
        wrong += truth.photograph(name) is not None
    return {"pictures": clean_ones, "refused": dict(refused.most_common()), "wrong": wrong}


if __name__ == "__main__":
    sys.exit(main())
