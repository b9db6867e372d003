"""What the entities and relations of a graph are called, and which one a name means."""

import difflib
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline import tables
from pipeline.errors import UserError
from pipeline.graph.matching import numbered, q_id

# How many names a refusal offers.
_OFFERED = 4


@dataclass(frozen=True)
class Names:
    """The names of all entities, or of all relations, of one graph; place i of each list belongs to id i."""

    what: str  # "entity" or "relation"
    key: list[str]
    label: list[str]
    description: list[str | None]
    levels: list[dict[str, list[int]]]  # name -> ids; an earlier level goes before a later one

    def find(self, name: str) -> int:
        """The id that `name` means: a key, else a label, else an alias, exactly as written or in other cases.

        Raises UserError if nothing is called so, or more than one is.
        """
        if not isinstance(name, str):
            raise UserError(f"The {self.what} of a question is a name, and not {name!r}.")
        for place, level in enumerate(self.levels):
            ids = level.get(name.strip() if place < len(self.levels) // 2 else name.strip().casefold(), [])
            if len(ids) == 1:
                return ids[0]
            if ids:
                raise UserError(
                    f"{name!r} is the name of {len(ids)} {_plural(self.what)}; give the key of the one you mean: "
                    f"{self._offer(ids)}."
                )
        raise UserError(f"The graph has no {self.what} {name!r}; {self._nearest(name)}.")

    def _nearest(self, name: str) -> str:
        if numbered(name):  # near to many numbers by chance
            return "correct it, or ask by a label"
        folded: dict[str, list[int]] = defaultdict(list)
        for level in self.levels[len(self.levels) // 2 :]:
            for one, ids in level.items():
                folded[one] += ids
        close = difflib.get_close_matches(name.strip().casefold(), folded, n=_OFFERED, cutoff=0.6)
        ids = list(dict.fromkeys(id_ for one in close for id_ in folded[one]))
        return f"the nearest names are {self._offer(ids)}" if ids else "no name is near it"

    def _offer(self, ids: Sequence[int]) -> str:
        said = [f"{self.key[i]!r} ({self.label[i]})" if self.label[i] != self.key[i] else repr(self.key[i])
                for i in ids[:_OFFERED]]  # fmt: skip
        return ", ".join(said) + (f" and {len(ids) - _OFFERED} more" if len(ids) > _OFFERED else "")


def read_entities(graph: Path) -> Names:
    """The entities of `graph`, a folder of tables, with the labels, descriptions and aliases of text.parquet beside it.

    Without that table (the texts have not been gathered) the graph's own keys and labels are all there is. An entity
    that the graph calls by its Q-id alone has the label of its text.

    Raises UserError if a table is missing or damaged.
    """
    rows = tables.read(graph / "entities.parquet", "entities").sort_by("entity_id")
    keys, labels = rows["key"].to_pylist(), rows["label"].to_pylist()
    descriptions: list[str | None] = [None] * len(keys)
    aliases: list[list[str]] = [[] for _ in keys]
    if (graph.parent / "text.parquet").exists():
        text = tables.read(graph.parent / "text.parquet", "text", ["entity_id", "label", "description", "aliases"])
        for row in text.to_pylist():
            at = row["entity_id"]
            if at < len(keys):
                descriptions[at] = row["description"]
                if row["label"] and labels[at] == keys[at] and q_id(keys[at]):
                    labels[at] = row["label"]
                aliases[at] = [name for name in (row["label"], *(row["aliases"] or ())) if name]
    return Names("entity", keys, labels, descriptions, _levels(keys, labels, aliases))


def read_relations(graph: Path) -> Names:
    """The relations of `graph`. The last part of a URI or of a prefixed name counts as an alias.

    Raises UserError if the table is missing or damaged.
    """
    rows = tables.read(graph / "relations.parquet", "relations").sort_by("relation_id")
    keys, labels = rows["key"].to_pylist(), rows["label"].to_pylist()
    aliases = [[re.split(r"[/#:]", key)[-1]] for key in keys]
    return Names("relation", keys, labels, [None] * len(keys), _levels(keys, labels, aliases))


def _levels(keys: list[str], labels: list[str], aliases: list[list[str]]) -> list[dict[str, list[int]]]:
    kinds: list[list[list[str]]] = [[[key] for key in keys], [[label] for label in labels], aliases]
    folded = [[[name.casefold() for name in names] for names in kind] for kind in kinds]
    return [_index(kind) for kind in (*kinds, *folded)]


def _index(names: Iterable[Iterable[str]]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = defaultdict(list)
    for id_, own in enumerate(names):
        for name in dict.fromkeys(own):
            found[name].append(id_)
    return dict(found)


def _plural(what: str) -> str:
    return "entities" if what == "entity" else f"{what}s"
