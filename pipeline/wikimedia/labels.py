"""Labels of Wikidata's items and properties, where a graph's keys are their ids: Q42, wdt:P131."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from pipeline.wikimedia.answers import entity_of, label_of
from pipeline.wikimedia.client import CrawlPolicy
from pipeline.wikimedia.fetching import Addresses, Progress, Wanted, fetch
from pipeline.wikimedia.store import WebStore


def labels(
    ids: Sequence[str],
    store: WebStore,
    policy: CrawlPolicy,
    addresses: Addresses,
    progress: Callable[[Progress], None] = lambda state: None,
) -> dict[str, str]:
    """English labels by id (`Q42`, `P131`); what Wikidata does not know, or has no such label of, is left out.

    Answers are kept in `store`, and what it has is not asked for again. Raises UserError as `fetch` does.
    """
    fetch(Wanted(subjects=ids), store, policy, replace(addresses, wikipedia=None), progress)
    found = {one: label_of(entity_of(one, store.get)) for one in ids}
    return {one: label for one, label in found.items() if label}
