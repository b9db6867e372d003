"""Raw answers of Wikidata, Wikipedia and Commons about a graph's entities: all that texts and pictures are made of."""

import logging
from pathlib import Path

from pipeline import tables
from pipeline.retry import RetryPolicy
from pipeline.versions import code_version
from pipeline.wikimedia import answers, fetching
from pipeline.wikimedia import store as web_store
from pipeline.wikimedia.answers import subject
from pipeline.wikimedia.client import LONGEST_WAIT, CrawlPolicy
from pipeline.wikimedia.fetching import Addresses, Progress, Wanted, fetch
from pipeline.wikimedia.store import WebStore
from stages.cli import arguments, stage
from stages.params import Params, load_params
from stages.progress import Bar

log = logging.getLogger(__name__)


@stage
def main() -> None:
    graph = arguments(__doc__, "graph").parse_args().graph
    params = load_params()
    folder = Path("data") / graph
    texts, images = params.graph[graph].text.source, params.graph[graph].images.source
    pictures = images == "commons"
    with WebStore(Path("data") / ".work" / graph / "web.sqlite") as store:
        keys: list[tuple[str, str]] = []
        if pictures or texts in ("wikidata", "wikipedia"):
            if params.images.retry == "failed":
                log.info("%s: %d failed requests will be tried again", graph, store.forget_failed())
            entities = tables.read(folder / "graph" / "entities.parquet", "entities", ["entity_id", "key"])
            wanted = Wanted(
                subjects=[subject(key) for key in entities.sort_by("entity_id")["key"].to_pylist()],
                pictures=(params.images.per_entity or 1000) if pictures else 0,
                width=params.images.width,
                licences=params.images.licences,
                introductions=texts == "wikipedia",
            )
            with Bars(graph) as bars:
                keys = fetch(wanted, store, policy(params), addresses(params), bars)
        provenance = {"stage": "fetch", "text": texts, "images": images, "width": params.images.width}
        provenance["code_version"] = code_version(fetching, answers)
        rows = web_store.publish(store, keys, folder / "web", provenance)
    log.info("%s: %s answers from the web", graph, f"{rows:,}")


def policy(params: Params) -> CrawlPolicy:
    web = params.web
    retry = RetryPolicy(timeout=web.timeout, retries=web.attempts - 1, backoff=web.backoff, longest_wait=LONGEST_WAIT)
    return CrawlPolicy(contact=web.contact, rate=web.rate, concurrency=web.concurrency, retry=retry)


def addresses(params: Params) -> Addresses:
    return Addresses(params.web.wikidata, params.web.commons, params.web.wikipedia)


class Bars:
    """A progress bar for each step: done, failed, rate, bytes, time left. Where no terminal is, a line now and then."""

    def __init__(self, graph: str):
        self._graph = graph
        self._bar: Bar | None = None
        self._step = ""

    def __enter__(self) -> "Bars":
        return self

    def __call__(self, state: Progress) -> None:
        if self._bar is None or state.step != self._step or state.total != self._bar.total:
            self.__exit__()
            self._step = state.step
            self._bar = Bar(total=state.total, desc=f"{self._graph} {state.step}", unit=" requests")
        self._bar.n = state.done
        self._bar.set_postfix_str(f"{state.failed} failed, {state.received / 1e6:.1f} MB", refresh=False)
        self._bar.update(0)

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()


if __name__ == "__main__":
    main()
