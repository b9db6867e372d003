"""The client of Wikidata, Wikipedia and Commons against a real HTTP server on loopback: policy, faults, resuming."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.modalities.pictures import clean
from pipeline.retry import RetryPolicy
from pipeline.wikimedia import client
from pipeline.wikimedia import store as web_store
from pipeline.wikimedia.answers import ENTITY, PICTURE, by_title, picture_key, picture_names, subject
from pipeline.wikimedia.client import CrawlPolicy
from pipeline.wikimedia.fetching import Addresses, Wanted, fetch
from pipeline.wikimedia.images import from_commons
from pipeline.wikimedia.store import Answer, WebStore, publish
from pipeline.wikimedia.texts import described
from tests.helpers.wiki_server import ENTITIES, Server

ROOT = Path(__file__).parents[3]
QUICK = CrawlPolicy(
    "someone@example.org",
    rate=2000,
    concurrency=4,
    retry=RetryPolicy(timeout=1, retries=4, backoff=0.02, longest_wait=300),
)
ATTEMPTS = QUICK.retry.retries + 1
KEYS = [
    "Q1",
    "http://www.wikidata.org/entity/Q2",
    "<http://dbpedia.org/resource/Life>",
    "Human",
    "Q404",
    "Nobody_Knows",
]
ALL = Wanted([subject(key) for key in KEYS], pictures=5, introductions=True)


@pytest.fixture
def server():
    with Server() as running:
        yield running


def at(server, **other) -> Addresses:
    return Addresses(**{"wikidata": server.address, "commons": server.address, "wikipedia": server.address, **other})


def run(server, path, wanted=ALL, policy=QUICK, **more):
    with WebStore(path / "web.sqlite") as store:
        keys = fetch(wanted, store, policy, at(server), **more)
        publish(store, keys, path / "web", {"stage": "test"})
        return keys


def rows(path) -> dict[tuple[int, int], dict]:
    found, _ = from_commons(path / "web", KEYS, clean, 500, None)
    return {(one["entity_id"], one["image_ix"]): one for one in found}


# ------------------------------------------------------------------------------------------------ what comes of it
def test_entities_texts_and_pictures(server, tmp_path):
    run(server, tmp_path)
    words = described(tmp_path / "web", KEYS)
    assert [one and one.label for one in words] == ["Universe", "Earth", "life", "human", None, None]
    assert words[0].description == "totality of space and all contents"
    assert words[0].aliases == ("cosmos", "the world")
    assert words[2].description is None
    articles = described(tmp_path / "web", KEYS, "wikipedia")
    assert articles[2].description == "Life is the subject of this introduction."
    assert (articles[2].source, words[2].source) == ("wikipedia", "wikidata")
    found = rows(tmp_path)
    assert {place: one["status"] for place, one in found.items()} == {
        (0, 0): "ok", (0, 1): "ok", (1, 0): "ok", (2, 0): "none", (3, 0): "missing", (3, 1): "refused",
        (4, 0): "missing", (5, 0): "missing",
    }  # fmt: skip
    picture = found[0, 0]
    assert picture["licence"] == "CC BY-SA 4.0"
    assert picture["author"] == "Jane & Joe"
    assert picture["source"] == "https://commons.wikimedia.org/wiki/File:Hubble_ultra_deep_field.jpg"
    assert picture["fetched_at"] is not None
    assert "404" in found[3, 0]["error"]
    assert "SVG" in found[3, 1]["error"]
    assert "bytes" not in found[3, 1]
    assert all(agent.endswith("; someone@example.org)") for agent in server.agents)


def test_batches_are_as_large_as_the_services_allow(server, tmp_path):
    run(server, tmp_path, Wanted([f"Q{n}" for n in range(1, 121)]))
    assert len(server.seen) == 3
    assert sorted(path.split("ids=")[1].split("&")[0].count("|") + 1 for _, path in server.seen) == [20, 50, 50]


def test_a_redirected_title_is_followed(server, tmp_path):
    keys = ["http://dbpedia.org/resource/Planet_Earth"]
    run(server, tmp_path, Wanted([subject(key) for key in keys]))
    assert described(tmp_path / "web", keys)[0].label == "Earth"


def test_one_id_that_spoils_a_batch_is_found_by_halving(server, tmp_path):
    subjects = [*ENTITIES, *(f"Q{n}" for n in range(10, 30)), "Q99999"]
    run(server, tmp_path, Wanted(subjects))
    with WebStore(tmp_path / "web.sqlite") as store:
        assert store.get(ENTITY, "Q99999").status == "missing"
        assert "no-such-entity" in store.get(ENTITY, "Q99999").error
        assert store.get(ENTITY, "Q1").status == "ok"
    assert len(server.seen) < 15


def test_a_service_that_does_not_know_licences_is_asked_once(server, tmp_path):
    server.no_actions = {"query"}
    wanted = Wanted(["Q1", "Q2"], pictures=5)
    run(server, tmp_path, wanted)
    run(server, tmp_path, wanted)
    assert len(server.asked("imageinfo")) == 1
    with WebStore(tmp_path / "web.sqlite") as store:
        assert set(store.known(PICTURE).values()) == {"ok"}


def test_pictures_by_rank():
    def statement(name, rank):
        return {"rank": rank, "mainsnak": {"datavalue": {"value": name}}}

    entity = {"claims": {"P18": [statement("a", "normal"), statement("b", "preferred"), statement("c", "deprecated")]}}
    assert picture_names(entity) == ["b", "a"]


# ------------------------------------------------------------------------------------------------ policy
@pytest.mark.parametrize("contact", ["", "nobody", None])
def test_no_contact_no_start(server, tmp_path, contact):
    with pytest.raises(UserError, match=r"web\.contact"):
        run(server, tmp_path, policy=CrawlPolicy(contact))
    assert server.seen == []


def test_never_more_at_once_than_configured(server, tmp_path):
    server.slow = 0.02
    run(server, tmp_path, Wanted([f"Q{n}" for n in range(1, 500)]), CrawlPolicy("a@b.org", rate=2000, concurrency=3))
    assert server.most == 3


def test_the_rate_is_kept(server, tmp_path):
    began = time.monotonic()  # not from the first arrival, which a busy machine may delay
    run(server, tmp_path, Wanted([f"Q{n}" for n in range(1, 1001)]), CrawlPolicy("a@b.org", rate=40, concurrency=8))
    times = [moment for moment, _ in server.seen]
    assert len(times) == 20
    assert times[-1] - began >= 19 / 40


@pytest.mark.parametrize(
    "fault", ["reset", "cut", "html", "maxlag", (429, "1"), (429, None), (503, None), (500, None), "hang"]
)
@pytest.mark.parametrize("where", ["/w/api.php", "/wiki/", "/thumb/"])
def test_a_passing_fault_is_tried_again(server, tmp_path, fault, where):
    if fault == "maxlag" and where != "/w/api.php":
        pytest.skip("maxlag is the API's")
    server.script[where] = [fault]
    wanted = Wanted(["Q2"], pictures=1, licences=False)
    run(server, tmp_path, wanted)
    with WebStore(tmp_path / "web.sqlite") as store:
        answer = store.get(PICTURE, picture_key("The Blue Marble.jpg", 500))
    assert answer.status == "ok"
    assert answer.attempts == 2 + (where != "/w/api.php")
    asked = server.asked(where)
    assert len(asked) == 2
    assert asked[0] == asked[1]
    if fault in ("maxlag", (429, "1")):
        first, second = (moment for moment, path in server.seen if where in path)
        assert second - first >= 1, "Retry-After was not obeyed"


def test_a_final_answer_is_not_asked_for_again(server, tmp_path):
    run(server, tmp_path)
    assert max(server.paths().values()) == 1
    before = len(server.seen)
    run(server, tmp_path)
    assert len(server.seen) == before


def test_what_keeps_failing_is_a_row_and_retry_tries_only_that(server, tmp_path):
    server.script["/thumb/Second"] = [(503, None)] * ATTEMPTS
    wanted = Wanted(["Q1", "Q2"], pictures=5, licences=False)
    run(server, tmp_path, wanted)
    with WebStore(tmp_path / "web.sqlite") as store:
        answer = store.get(PICTURE, picture_key("Second one.jpg", 500))
        assert (answer.status, answer.attempts) == ("failed", ATTEMPTS + 1)
        assert "503" in answer.error
    server.seen.clear()
    run(server, tmp_path, wanted)
    assert server.seen == []
    with WebStore(tmp_path / "web.sqlite") as store:
        assert store.forget_failed() == 1
    run(server, tmp_path, wanted)
    assert [path.split("?")[0] for _, path in server.seen] == [
        "/wiki/Special:FilePath/Second one.jpg", "/thumb/Second one.jpg",
    ]  # fmt: skip


def test_a_host_that_forbids_stops_us(server, tmp_path):
    server.script["/"] = [(403, None)] * 100
    with pytest.raises(UserError, match="forbids"):
        run(server, tmp_path, Wanted([f"Q{n}" for n in range(1, 1000)]))
    assert len(server.seen) < 12


def test_no_network_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(client, "_CLOSING", 0.01)  # of the places of requests that were lost: another test's matter
    nowhere = Addresses("http://127.0.0.1:9", "http://127.0.0.1:9", None)
    with WebStore(tmp_path / "web.sqlite") as store, pytest.raises(UserError, match="does not answer"):
        fetch(Wanted([f"Q{n}" for n in range(1, 2000)]), store, QUICK, nowhere)


# ------------------------------------------------------------------------------------------------ resuming
def test_killed_and_run_again_nothing_is_fetched_twice(server, tmp_path):
    server.slow = 0.05
    program = (
        "import sys; from pipeline.wikimedia.fetching import *; from pipeline.wikimedia.client import CrawlPolicy;"
        "from pipeline.wikimedia.store import WebStore\n"
        "with WebStore(sys.argv[1]) as store:\n"
        "    fetch(Wanted([f'Q{n}' for n in range(1, 3001)]), store, CrawlPolicy('a@b.org', rate=1000, concurrency=2),"
        " Addresses(sys.argv[2], sys.argv[2], None))\n"
    )
    arguments = [sys.executable, "-c", program, str(tmp_path / "web.sqlite"), server.address]
    process = subprocess.Popen(arguments, cwd=ROOT)
    while len(server.seen) < 30 and process.poll() is None:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with WebStore(tmp_path / "web.sqlite") as store:
        kept = len(store.known(ENTITY))
    # What was under way, or not yet on disk within a second, may be lost; nothing else.
    assert kept >= 50
    first = len(server.seen)
    subprocess.run(arguments, cwd=ROOT, check=True)
    again = len(server.seen) - first
    assert again == (3000 - kept + 49) // 50
    with WebStore(tmp_path / "web.sqlite") as store:
        assert len(store.known(ENTITY)) == 3000


def test_answers_come_back_from_parquet_as_they_went(tmp_path):
    answers = [
        Answer(kind, f"key {n}", "ok", os.urandom(1000 * n), None, 1, web_store.now(), "http://x/")
        for kind in ("entity", "picture")
        for n in range(20)
    ]
    with WebStore(tmp_path / "web.sqlite") as store:
        for answer in answers:
            store.put(answer)
        assert publish(store, [(one.kind, one.key) for one in answers], tmp_path / "web", {}) == 40
    for kind in ("entity", "picture"):
        expected = sorted((one for one in answers if one.kind == kind), key=lambda one: one.key)
        assert list(web_store.read(tmp_path / "web", kind)) == expected


def test_progress_tells_done_failed_bytes_and_time_left(server, tmp_path):
    told = []
    run(server, tmp_path, progress=lambda state: told.append((state.step, state.done, state.total, state.received)))
    last = {step: (done, total, received) for step, done, total, received in told}
    assert last["entities"][:2] == (6, 6)
    assert last["pictures"][:2] == (5, 5)
    assert last["pictures"][2] > 1000


def test_an_entity_that_names_no_article_is_that_of_the_title_left_over():
    named = {"id": "Q1", "sitelinks": {"enwiki": {"title": "Universe"}}}
    nowhere = {"title": "Nowhere at all", "missing": ""}
    answer = {"entities": {"Q1": named, "Q2": {"id": "Q2"}, "-1": nowhere}}
    found = by_title(answer, ["Universe", "Earth", "Nowhere at all"])
    assert {one: status for one, (status, _) in found.items()} == {
        "Universe": "ok", "Earth": "ok", "Nowhere at all": "missing",
    }  # fmt: skip
    assert found["Earth"][1] == {"id": "Q2"}
    # Of two, nobody can say which is which.
    assert by_title(answer, ["Universe", "Earth", "Mars"])["Earth"] == ("missing", None)


# ------------------------------------------------------------------------------------------------ a larger stand-in
@pytest.fixture
def wikimedia(mirror):
    """Another server, with thousands of real texts and real photographs, faults included."""
    given = os.environ.get("TESSERA_WIKIMEDIA_SERVER")
    program = Path(given) if given else mirror.parent / "tools" / "wikimedia_server.py"
    if not program.is_file():
        pytest.skip(f"no larger server: TESSERA_WIKIMEDIA_SERVER names none, and {program} is none")
    command = [sys.executable, str(program), "--port", "0", "--faults", "0.3", "--rate", "400", "--seed", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield process.stdout.readline().strip()
        process.terminate()


def test_all_that_can_be_had_is_had(wikimedia, mirror, tmp_path):
    table = json.loads(next(mirror.glob("**/entity2wikidata.json")).read_text(encoding="utf-8"))
    known = sorted({row["wikidata_id"] for row in table.values()})[:120]
    policy = CrawlPolicy("a@b.org", rate=300, concurrency=4, retry=RetryPolicy(300, 7, 0.1, 300))
    wanted = Wanted([*known, "Q1"], pictures=2, licences=False)
    with WebStore(tmp_path / "web.sqlite") as store:
        fetch(wanted, store, policy, Addresses(wikimedia, wikimedia, None))
        entities, pictures = Counter(store.known(ENTITY).values()), Counter(store.known(PICTURE).values())
    assert entities == {"ok": len(known), "missing": 1}
    assert pictures["failed"] == 0
    assert pictures["ok"] > 50
    with urllib.request.urlopen(wikimedia + "/stats") as answer:
        stats = json.load(answer)
    faults = sum(count for name, count in stats.items() if name.startswith("fault"))
    too_fast = stats.get("status 429", 0) - stats.get("fault 429", 0)
    needed = 3 + 2 * pictures["ok"] + pictures["missing"]
    assert stats["requests"] == needed + faults + too_fast
    assert stats["most at once"] <= 4
