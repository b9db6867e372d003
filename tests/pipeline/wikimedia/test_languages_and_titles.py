"""What Wikidata says in other languages than "en", and keys that can be nobody's title."""

from collections import Counter

import pytest

from pipeline.errors import UserError
from pipeline.modalities.pictures import clean
from pipeline.retry import RetryPolicy
from pipeline.wikimedia.answers import ENTITY, FILE, LANGUAGES, PICTURE, REDIRECT, no_title, subject
from pipeline.wikimedia.client import CrawlPolicy, check_contact
from pipeline.wikimedia.fetching import Addresses, Wanted, fetch
from pipeline.wikimedia.images import from_commons
from pipeline.wikimedia.store import WebStore, publish
from pipeline.wikimedia.texts import described
from tests.helpers.wiki_server import ENTITIES, Server

QUICK = CrawlPolicy("a@b.org", rate=2000, retry=RetryPolicy(timeout=5, retries=1, backoff=0.02, longest_wait=300))


def fetched(entities, subjects, path, **wanted) -> dict[str, dict[str, str]]:
    """Fetch from a server that knows these entities and publish; the status of every key by kind of answer."""
    with Server(entities) as server, WebStore(path / "web.sqlite") as store:
        addresses = Addresses(server.address, server.address, server.address)
        keys = fetch(Wanted(subjects, **wanted), store, QUICK, addresses)
        publish(store, keys, path / "web", {})
        return {kind: store.known(kind) for kind in (ENTITY, REDIRECT, PICTURE, FILE)}


def entity(**said) -> dict:
    """An entity without English words, that says in other languages what is given: {language: text or texts}."""
    blocks = {
        what: {
            language: [{"language": language, "value": one} for one in text]
            if isinstance(text, list)
            else {"language": language, "value": text}
            for language, text in of.items()
        }
        for what, of in said.items()
    }
    empty = {"labels": {}, "descriptions": {}, "aliases": {}}
    return {"label": "", "description": None, "title": "", "aliases": [], "pictures": [], "said": empty | blocks}


@pytest.mark.parametrize(
    ("said", "label", "description", "aliases"),
    [
        ({"labels": {"mul": "Grace Hopper"}, "descriptions": {"en": "computer scientist"},
          "aliases": {"mul": ["Amazing Grace"]}}, "Grace Hopper", "computer scientist", ("Amazing Grace",)),
        ({"labels": {"en-gb": "Colour"}, "descriptions": {"en": "d"}}, "Colour", "d", ()),
        ({"labels": {"en-ca": "Toque"}, "descriptions": {"en-ca": "hat"}, "aliases": {"en-ca": ["tuque"]}},
         "Toque", "hat", ("tuque",)),
        # English goes before all languages, and those before a variant, in whatever order they come.
        ({"labels": {"en-gb": "c", "mul": "b", "en": "a"}, "descriptions": {"en-gb": "y", "en-us": "x"}}, "a", "x", ()),
        ({"labels": {"en-gb": "c", "mul": "b"}}, "b", None, ()),
        # What holds in all languages holds in English too; each name once.
        ({"labels": {"en": "a"}, "aliases": {"mul": ["m", "e"], "en": ["e"], "en-gb": ["g"]}}, "a", None, ("e", "m")),
        ({"labels": {"en": "", "mul": "b"}}, "b", None, ()),
    ],
)  # fmt: skip
def test_words_of_another_language_stand_in(said, label, description, aliases, tmp_path):
    fetched({"Q1": entity(**said)}, ["Q1"], tmp_path)
    (words,) = described(tmp_path / "web", ["Q1"])
    assert (words.label, words.description, words.aliases) == (label, description, aliases)


def test_an_entity_with_words_of_no_english_has_none(tmp_path):
    fetched({"Q1": entity(labels={"de": "Haus"})}, ["Q1"], tmp_path)
    assert described(tmp_path / "web", ["Q1"]) == [None]


def test_all_languages_are_asked_for_at_once(tmp_path):
    with Server() as server, WebStore(tmp_path / "web.sqlite") as store:
        fetch(Wanted(["Q1"]), store, QUICK, Addresses(server.address, server.address, None))
        assert len(server.seen) == 1
        assert f"languages={'|'.join(LANGUAGES)}&" in server.seen[0][1]


LONG = "é" * 128
IMPOSSIBLE = {
    "A|B": "'|'", "C#": "'#'", "a < b": "'<'", "a\nb": r"'\n'", "x\x1fy": r"'\x1f'", "[sic]": "'['", "{{x}}": "'{'",
    LONG: "256", "": "empty", "_ _": "empty",
}  # fmt: skip


@pytest.mark.parametrize("title", IMPOSSIBLE)
def test_what_can_be_no_title_is_a_row_with_a_reason(title, tmp_path):
    titles = [*(f"Title {n}" for n in range(49)), "Human"]
    keys = [*titles[:25], title, *titles[25:]]
    entities = {f"Q{100 + n}": {**ENTITIES["Q3"], "title": f"Title {n}"} for n in range(49)} | ENTITIES
    status = fetched(entities, [subject(one) for one in keys], tmp_path)
    assert Counter(status[ENTITY].values()) == {"ok": 50, "missing": 1}
    assert status[ENTITY][subject(title)] == "missing"
    assert status[REDIRECT] == {}, "Wikipedia too was asked for it"
    rows, _ = from_commons(tmp_path / "web", keys, clean, 500, None)
    (row,) = [one for one in rows if one["entity_id"] == 25]
    assert row["status"] == "missing"
    assert IMPOSSIBLE[title] in row["error"]


@pytest.mark.parametrize(
    "title", ["C++", "AC/DC", "Q & A", "50% off", 'the "name"', "a" * 255, "é" * 127, "Émile", "東京", "What?", "~"]
)
def test_odd_titles_are_titles(title, tmp_path):
    assert no_title(title) is None
    status = fetched({"Q1": {**ENTITIES["Q1"], "title": title}}, [f"enwiki:{title}"], tmp_path)
    assert status[ENTITY] == {f"enwiki:{title}": "ok"}


def test_a_key_that_hides_a_pipe_in_its_address(tmp_path):
    key = "<http://dbpedia.org/resource/A%7CB>"
    status = fetched(ENTITIES, [subject(key), "Q1"], tmp_path)
    assert status[ENTITY] == {"enwiki:A|B": "missing", "Q1": "ok"}


def test_a_picture_whose_name_can_be_none_costs_no_other_its_licence(tmp_path):
    entities = {"Q1": {**ENTITIES["Q1"], "pictures": ["good.jpg", "a|b.jpg"]}}
    status = fetched(entities, ["Q1"], tmp_path, pictures=5)
    assert status[FILE] == {"good.jpg": "ok", "a|b.jpg": "missing"}


def test_a_service_that_takes_fewer_at_once_is_asked_in_halves(tmp_path):
    with Server() as server, WebStore(tmp_path / "web.sqlite") as store:
        server.most_values = 10
        fetch(Wanted([f"Q{n}" for n in range(1, 41)]), store, QUICK, Addresses(server.address, server.address, None))
        assert Counter(store.known(ENTITY).values()) == {"ok": 4, "missing": 36}


@pytest.mark.parametrize(("contact", "said"), [(None, "is null;"), ("", "is '';"), ("nobody", "is 'nobody';")])
def test_the_contact_is_named_as_the_file_has_it(contact, said):
    with pytest.raises(UserError, match=f"web.contact in params.yaml {said}"):
        check_contact(contact)
