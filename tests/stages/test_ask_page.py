"""The page of questions: what it answers, what it never lets through, and how a real browser shows and drives it."""

import html
import io
import json
import re
import socket
import threading
import time
from urllib.parse import parse_qsl

import pytest
import uvicorn
from PIL import Image
from starlette.testclient import TestClient

from pipeline import tables
from pipeline.errors import UserError
from pipeline.modalities.parts import Parts, row
from pipeline.modalities.pictures import clean
from stages.ask.__main__ import runs_of
from stages.ask.app import app, listen
from stages.ask.questions import Questions
from tests.helpers.asked import write_names
from tests.helpers.tiny import settings_of, tiny
from trainers.about import module_of
from trainers.training.train import Schedule, train

MODELS = ("rotate", "distmult")
HOSTILE = "<script>document.title = 'taken'</script>\"' onerror=alert(1) x=" + "W" * 120
SVG = b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>"


def png() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (40, 30), (200, 30, 60)).save(out, "PNG")
    return out.getvalue()


@pytest.fixture(scope="module")
def questions(tmp_path_factory):
    root = tmp_path_factory.mktemp("page")
    graph = root / "data/tiny"
    write_names(graph / "graph", tiny())
    _hostile_names(graph)
    with Parts(graph / "images", {"source": "folder"}) as parts:
        parts.add(row(3, 0, "folder", clean(png())))
        parts.add({**row(0, 0, "folder", clean(png())), "bytes": SVG})
    schedule = Schedule(device="cpu", precision="float32", evaluate_every=2, patience=0, checkpoint_every=0)
    for model in MODELS:
        train(model, settings_of(module_of(model), epochs=2), schedule, graph=graph / "graph",
              encoded=graph / "encoded", run=root / "runs/tiny" / model, work=root / "work", seed=0)  # fmt: skip
    return Questions(graph, runs_of(root / "runs", "tiny", []))


def _hostile_names(graph) -> None:
    """Entity 0 has a label and a description that would be markup."""
    for path, kind in ((graph / "graph/entities.parquet", "entities"), (graph / "text.parquet", "text")):
        columns = tables.read(path, kind).to_pydict()
        columns["label"][0] = HOSTILE
        if kind == "text":
            columns["description"][0] = HOSTILE
        tables.write(path, kind, columns, {})


@pytest.fixture(scope="module")
def client(questions):
    return TestClient(app(questions), base_url="http://127.0.0.1")


def test_each_model_answers_as_its_run_does(client, questions):
    asked = client.get("/ask.json?entity=e3&relation=genre&k=5").json()
    assert [column["model"] for column in asked["columns"]] == sorted(MODELS)
    for column in asked["columns"]:
        expected = questions.runs[column["model"]].ask("e3", "genre", k=5)
        assert [one["entity"]["key"] for one in column["answers"]] == expected["key"].tolist()
    shared = set.intersection(*({one["entity"]["key"] for one in column["answers"]} for column in asked["columns"]))
    both = {one["entity"]["key"] for one in asked["columns"][0]["answers"] if one["models"] == 2}
    assert both == shared
    page = client.get("/?entity=e3&relation=genre&k=5")
    assert page.status_code == 200
    assert "/why?model=distmult" in page.text


@pytest.mark.parametrize("side", ["tail", "head"])
def test_hidden_facts_make_room_for_others(client, side):
    data = tiny()
    entity, relation = data.train[0, 0 if side == "tail" else 2].item(), data.train[0, 1].item()
    address = f"/ask.json?entity=e{entity}&relation={['bandMember', 'genre', 'r'][relation]}&side={side}"
    every, hidden = (client.get(address + more).json()["columns"][0]["answers"] for more in ("&k=100", "&k=6&hide=yes"))
    free = [one for one in every if not any(badge.startswith("known") for badge in one["badges"])]
    assert len(free) < len(every)
    keys = [one["entity"]["key"] for one in hidden]
    assert keys == [one["entity"]["key"] for one in free[:6]]


def links(page: str, to: str) -> list[dict[str, str]]:
    """What the page's links to an address ask for."""
    found = re.findall(rf'href="{re.escape(to)}\?([^"]*)"', page)
    return [dict(parse_qsl(html.unescape(one))) for one in found]


@pytest.mark.parametrize("hide", [{}, {"hide": "yes"}])
@pytest.mark.parametrize("side", ["tail", "head"])
def test_each_link_carries_on_what_was_chosen(client, side, hide):
    kept = {"side": side, "k": "7", **hide}
    offers = links(client.get("/", params={"entity": "e3", **kept}).text, "/")
    assert offers
    assert all(one == {"entity": "e3", "relation": one["relation"], **kept} for one in offers)
    asked = {"entity": "e3", "relation": "http://x.org/genre", **kept}
    answers = links(client.get("/", params=asked).text, "/why")
    assert answers
    assert {name: answers[0][name] for name in kept} == kept
    assert asked in links(client.get("/why", params=answers[0]).text, "/"), "the way back is to the same question"


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_a_score_that_is_no_number_is_null_in_json(questions, number):
    """JSON knows neither NaN nor infinity, and other programs read these answers."""
    broken = Questions(questions.folder, [questions.runs["distmult"].path])
    broken.runs["distmult"].model.entity.data[7] = number
    client = TestClient(app(broken), base_url="http://127.0.0.1")
    for address in (
        "/ask.json?entity=e3&relation=genre&k=23",
        "/why.json?model=distmult&head=e3&relation=genre&tail=e7",
    ):
        found = client.get(address)
        assert found.status_code == 200
        content = json.loads(found.text, parse_constant=lambda name: pytest.fail(name))
        scores = (
            [one["score"] for one in content["columns"][0]["answers"]] if "columns" in content else [content["score"]]
        )
        assert None in scores
    assert client.get("/?entity=e3&relation=genre&k=23").status_code == 200


def test_relations_that_suit_an_entity_come_first(questions):
    train = tiny().train
    offers = questions.plausible(9, "tail")
    own = {["dbo:bandMember", "http://x.org/genre", "r2"][one] for one in train[train[:, 0] == 9][:, 1].tolist()}
    assert len(own) == 2
    assert own == {one.name for one in offers.likely[:2]}
    assert len(offers.likely) + len(offers.others) == 3


@pytest.mark.parametrize(
    ("typed", "name"), [("entity 3", "Entity 3"), ("ALPHA", "Entity 3"), ("Mercury", "e4"), ("e8", "Entity 8")]
)
def test_offered_names_are_understood_as_they_stand(questions, typed, name):
    offers = questions.type_ahead(typed)
    assert name in [one.name for one in offers]
    for one in offers:
        questions.world.entities.find(one.name)


def test_what_is_no_question_is_a_sentence_on_the_page(client):
    found = client.get("/?entity=Mercurio&relation=genre")
    assert found.status_code == 400
    assert "the nearest names are" in found.text
    assert "error" in client.get("/why.json?model=nobody").json()
    assert client.get("/why?model=rotate&head=e3").status_code == 400
    assert client.get("/?entity=e3&relation=genre&k=9999999999999").status_code == 200


def test_nothing_from_outside_becomes_markup(client):
    for address in (
        "/?entity=e0&relation=genre&k=100",
        "/names?entity=%3Cscript",
        f"/?entity={HOSTILE}",
        "/relations?entity=e0",
        "/why?model=rotate&head=e0&relation=genre&tail=e0&side=tail",
        "/?entity=e3&relation=%3Cscript%3E",
    ):
        found = client.get(address)
        assert "<script>document" not in found.text
        assert "<script>" not in found.text.lower()
        assert "default-src 'none'" in found.headers["content-security-policy"]
    assert "&lt;script&gt;" in client.get("/?entity=e0&relation=genre").text


def test_a_picture_is_drawn_anew_and_what_is_none_is_not_given_out(client):
    found = client.get("/picture/3.webp")
    assert found.headers["content-type"] == "image/webp"
    assert found.content[:4] == b"RIFF"
    assert client.get("/picture/0.webp").status_code == 404
    assert client.get("/picture/5.webp").status_code == 404


def test_another_host_name_is_not_answered(questions):
    assert TestClient(app(questions), base_url="http://evil.example").get("/").status_code == 400


def test_a_port_in_use_and_a_graph_without_runs_are_refused_in_a_sentence(tmp_path):
    with listen(0) as taken:
        taken.listen()
        with socket.socket() as other, pytest.raises(UserError, match="another --port"):
            listen(taken.getsockname()[1])
        del other
    with pytest.raises(UserError, match=r"no finished run.*known: none"):
        runs_of(tmp_path, "tiny", [])
    (tmp_path / "tiny/rotate").mkdir(parents=True)
    (tmp_path / "tiny/rotate/run.json").write_text("{}")
    with pytest.raises(UserError, match="did you mean 'tiny'"):
        runs_of(tmp_path, "tinny", [])


@pytest.fixture(scope="module")
def address(questions):
    listening = listen(0)
    server = uvicorn.Server(uvicorn.Config(app(questions), log_level="error"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    thread.join(10)


WIDE = """(() => [...document.body.querySelectorAll("*")].filter(one => {
  const box = one.getBoundingClientRect();
  return box.width && box.right > document.documentElement.clientWidth + 1;
}).map(one => one.tagName + " " + one.textContent.slice(0, 30)))()"""


@pytest.mark.parametrize("width", [360, 768, 1280])
def test_the_page_fits_complains_of_nothing_and_asks_no_other_host(tab, address, width):
    for path in ("/?entity=e0&relation=genre&k=23", "/why?model=rotate&head=e0&relation=genre&tail=e3&side=tail"):
        tab.open(address + path, width, "light")
        assert tab.evaluate(WIDE) == []
        assert [one for one in tab.requests() if not one.startswith(address)] == []
        missing = [text for text in tab.complaints() if "404" not in text]  # the picture that is none
        assert missing == []
        assert "taken" not in tab.evaluate("document.title")[:8]


def press(tab, key: str, code: int, text: str = "") -> None:
    for kind in ("keyDown", "keyUp"):
        given = {"text": text} if text and kind == "keyDown" else {}
        tab.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **given)


def waited(tab, script: str) -> object:
    """The value of a script once it is true, within five seconds."""
    for _ in range(100):
        if found := tab.evaluate(script):
            return found
        time.sleep(0.05)
    raise AssertionError(f"never came true: {script}")


def test_the_keyboard_alone_asks_a_question_and_opens_its_reason(tab, address):
    tab.open(address, 1280, "dark")
    assert tab.evaluate("document.activeElement.name") == "entity"
    tab.call("Input.insertText", text="Entity 1")
    names = waited(tab, "[...document.querySelectorAll('#names option')].map(one => one.value).join()")
    assert "Entity 1" in names.split(",")
    tab.call("Input.insertText", text="0")
    press(tab, "Tab", 9)
    waited(tab, "document.querySelector('#relation optgroup').label == 'of such entities'")
    assert tab.evaluate("document.activeElement.name") == "relation"
    tab.call("Input.insertText", text="")
    press(tab, "g", 71, "g")  # a select goes to what begins so
    assert tab.evaluate("document.activeElement.value") == "http://x.org/genre"
    for _ in range(4):
        press(tab, "Tab", 9)
    assert tab.evaluate("document.activeElement.tagName") == "BUTTON"
    press(tab, "Enter", 13, "\r")
    waited(tab, "document.querySelectorAll('.answer a').length == 20")
    assert "entity=Entity+10" in tab.evaluate("location.search")
    tab.evaluate("document.querySelector('.answer a').focus()")
    press(tab, "Enter", 13, "\r")
    assert waited(tab, "location.pathname == '/why' && document.querySelector('h2')?.textContent").startswith(
        "DistMult"
    )
    assert (
        json.loads(tab.evaluate("fetch(document.querySelector('footer a').href).then(one => one.text())"))["rank"] >= 1
    )
