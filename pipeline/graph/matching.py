"""Which entity a name belongs to: folders of pictures, rows of released files and titles name entities in many ways."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import unquote

_Q_ID = re.compile(r"Q[1-9][0-9]*")
_P_ID = re.compile(r"P[1-9][0-9]*")
_SEPARATORS = re.compile(r"[/._\s]+")
_NUMBER = re.compile(r"[A-Za-z]{0,2}[-_]?[0-9]+")
_URI = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


def plain_key(key: str) -> str:
    """A graph's key without the angle brackets that N-Triples puts around a URI."""
    return key[1:-1] if key.startswith("<") and key.endswith(">") else key


def q_id(key: str) -> str | None:
    """The Wikidata id that a key is or ends in: `Q42`, `http://www.wikidata.org/entity/Q42`, `wd:Q42`; else None."""
    return _ending(key, _Q_ID)


def p_id(key: str) -> str | None:
    """The id of Wikidata's property that a key is or ends in: `P131`, `wdt:P131`, or the whole URI; else None."""
    return _ending(key, _P_ID)


def _ending(key: str, form: re.Pattern[str]) -> str | None:
    tail = re.split(r"[/:#]", plain_key(key))[-1]
    return tail if form.fullmatch(tail) else None


def numbered(key: str) -> bool:
    """Whether a key is a number, or ends in an id: 17, n_17, Q42, http://www.wikidata.org/entity/Q42."""
    return bool(_NUMBER.fullmatch(re.split(r"[/:#]", plain_key(key))[-1]))


def title(key: str) -> str:
    """The Wikipedia title that a key stands for: DBpedia and YAGO name entities by it, with underscores for spaces."""
    plain = plain_key(key)
    if _URI.match(plain):
        # Not simply the last part: AC/DC is one title.
        match = re.search(r"/(?:resource|wiki|page|entity)/(.+)$", plain)
        plain = unquote(match.group(1) if match else plain.rsplit("/", 1)[-1].rsplit("#", 1)[-1])
    return _spaced(plain)


def _spaced(name: str) -> str:
    return unicodedata.normalize("NFC", name).replace("_", " ").strip()


def _loose(name: str) -> str:
    """A name with all that stands for a slash in names of files taken as one."""
    return " ".join(_SEPARATORS.split(unicodedata.normalize("NFC", name))).strip()


@dataclass(frozen=True)
class Matched:
    """What became of names: `entity` maps each matched name to its entity_id; the others are listed."""

    entity: dict[str, int]
    unmatched: list[str]
    ambiguous: list[str]

    def counts(self, examples: int = 5) -> dict:
        """Numbers and a few examples, for a counts file."""
        return {
            "matched": len(self.entity),
            "unmatched": len(self.unmatched),
            "ambiguous": len(self.ambiguous),
            "unmatched_examples": self.unmatched[:examples],
            "ambiguous_examples": self.ambiguous[:examples],
        }


class Names:
    """All names that a graph's entities go by. A name is looked up in this order, the first form that knows it wins:
    key, key without brackets, Q-id, title, label; each as it stands, then percent-decoded; last, key or title with `/`,
    `.`, `_` and space being one (`/m/027rn`, `m.027rn`), where only one entity has it. Numbers are ids only if all
    names looked up together are numbers and no entity has such a key (`1984` is a novel first, a row number last).
    """

    def __init__(self, keys: Sequence[str], labels: Sequence[str | None], q_ids: Mapping[int, str] | None = None):
        """`keys` and `labels` by entity_id; `q_ids` adds Wikidata ids that the keys do not tell."""
        self._entities = len(keys)
        self._forms: list[dict[str, list[int]]] = [defaultdict(list) for _ in range(4)]
        by_key, by_q_id, by_title, by_label = self._forms
        self._loose: dict[str, list[int]] = defaultdict(list)
        for entity, key in enumerate(keys):
            for form in dict.fromkeys((key, plain_key(key))):
                by_key[_spaced(form)].append(entity)
            found = q_id(key) or (q_ids or {}).get(entity)
            if found:
                by_q_id[found].append(entity)
            by_title[title(key)].append(entity)
            for form in {_loose(plain_key(key)), _loose(title(key))}:
                self._loose[form].append(entity)
        for entity, label in enumerate(labels):
            if label:
                by_label[_spaced(label)].append(entity)

    def match(self, names: Iterable[str]) -> Matched:
        """Match names with entities; two entities of one form make a name ambiguous."""
        names = list(dict.fromkeys(names))
        numbers = all(name.isascii() and name.isdigit() for name in names)
        by_id = bool(names) and numbers and not any(name in self._forms[0] for name in names)
        entity: dict[str, int] = {}
        unmatched: list[str] = []
        ambiguous: list[str] = []
        for name in names:
            found = self._by_id(name) if by_id else self._find(name)
            if len(found) == 1:
                entity[name] = found[0]
            else:
                (ambiguous if found else unmatched).append(name)
        return Matched(entity, unmatched, ambiguous)

    def _by_id(self, name: str) -> list[int]:
        return [int(name)] if int(name) < self._entities else []

    def _find(self, name: str) -> list[int]:
        plain = plain_key(name)
        # As it stands first; then what a URI or a percent-encoded name means.
        forms = (name, plain, unquote(name), plain_key(unquote(name)), title(plain), q_id(plain) or name)
        for form in dict.fromkeys(map(_spaced, forms)):
            for known in self._forms:
                if found := known.get(form):
                    return list(dict.fromkeys(found))
        return self._loose.get(_loose(unquote(plain)), []) if _loose(plain) else []


def entity_name(path: str) -> str:
    """The name of the entity in `<entity>/<file>`: the folder's path, or the file's stem if it lies in no folder."""
    pure = PurePosixPath(path)
    return pure.parent.as_posix() if len(pure.parts) > 1 else pure.stem


def match_files(paths: Iterable[str], names: Names) -> tuple[Matched, dict[str, tuple[int, int]]]:
    """Match files of `<entity>/<file>` with entities.

    An archive often has folders above (`images/Q42/1.jpg`); those that all files share are left out, and where the
    whole folder path is no entity its last part is tried. Returns what became of the entities' names, and for each
    matched path (entity_id, image_ix), image_ix counting an entity's files by name, 2 before 10.
    """
    paths = list(paths)
    shared = _shared_folders(paths)
    named = {path: entity_name("/".join(PurePosixPath(path).parts[shared:])) for path in paths}
    matched = names.match(named.values())
    short = {name: name.rsplit("/", 1)[-1] for name in matched.unmatched if "/" in name}
    again = names.match(short.values())
    entity = {**matched.entity, **{name: again.entity[last] for name, last in short.items() if last in again.entity}}
    ambiguous = matched.ambiguous + [name for name, last in short.items() if last in again.ambiguous]
    unmatched = [name for name in matched.unmatched if name not in entity and name not in set(ambiguous)]
    places: dict[str, tuple[int, int]] = {}
    counts: dict[int, int] = defaultdict(int)
    for path in sorted((path for path in paths if named[path] in entity), key=_natural):
        places[path] = (entity[named[path]], counts[entity[named[path]]])
        counts[entity[named[path]]] += 1
    return Matched(entity, unmatched, ambiguous), places


def _shared_folders(paths: Sequence[str]) -> int:
    """How many leading folders all files share, the entity's own folder not among them."""
    folders = [PurePosixPath(path).parts[:-1] for path in paths]
    depth = min((len(folder) for folder in folders), default=0)
    shared = 0
    while shared < depth - 1 and len({folder[shared] for folder in folders}) == 1:
        shared += 1
    return shared


def _natural(path: str) -> list[tuple[int, int, str]]:
    parts = (part for part in re.split(r"([0-9]+)", path) if part)
    return [(0, int(part), "") if part[0] in "0123456789" else (1, 0, part) for part in parts]
