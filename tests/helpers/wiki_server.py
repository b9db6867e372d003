"""A small stand-in for Wikidata, Wikipedia and Commons on a loopback port: what tests of the client talk to.

Faults are scripted: `server.script[path prefix]` is a list of faults, each used up by one request whose path starts so.
"""

import http.server
import io
import json
import threading
import time
import urllib.parse
from collections import Counter

from PIL import Image

ENTITIES = {
    "Q1": {"label": "Universe", "description": "totality of space and all contents", "title": "Universe",
           "aliases": ["cosmos", "the world"], "pictures": ["Hubble ultra deep field.jpg", "Second one.jpg"]},
    "Q2": {"label": "Earth", "description": "third planet from the Sun", "title": "Earth", "aliases": [],
           "pictures": ["The Blue Marble.jpg"]},
    "Q3": {"label": "life", "description": None, "title": "Life", "aliases": [], "pictures": []},
    "Q5": {"label": "human", "description": "any member of Homo sapiens", "title": "Human", "aliases": [],
           "pictures": ["Gone.jpg", "Drawing.svg"]},
}  # fmt: skip
REDIRECTS = {"Planet Earth": "Earth"}


def photograph(name: str) -> bytes:
    out = io.BytesIO()
    Image.effect_noise((64, 48), 50 + len(name)).convert("RGB").save(out, "JPEG")
    return out.getvalue()


class Server(http.server.ThreadingHTTPServer):
    """Remembers what it was asked (`seen`, in order, with times) and the most that were under way at once."""

    daemon_threads = True

    def __init__(self, entities: dict[str, dict] = ENTITIES):
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen: list[tuple[float, str]] = []
        self.agents: set[str] = set()
        self.entities = entities
        self.script: dict[str, list] = {}
        self.now, self.most, self.slow = 0, 0, 0.0
        self.no_actions: set[str] = set()
        self.most_values = 50
        self.lock = threading.Lock()
        self.address = f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request, client_address):
        pass  # a client that hangs up is what some tests are about

    def paths(self) -> Counter:
        return Counter(path for _, path in self.seen)

    def asked(self, part: str) -> list[str]:
        return [path for _, path in self.seen if part in path]

    def __enter__(self):
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *args):
        pass

    def answer(self, status, body=b"", kind="text/plain", headers=None, cut=None):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body if cut is None else body[:cut])
        self.close_connection = self.close_connection or cut is not None

    def json(self, value):
        self.answer(200, json.dumps(value).encode(), "application/json")

    def do_GET(self):
        server, path = self.server, urllib.parse.unquote(self.path)
        with server.lock:
            server.seen.append((time.monotonic(), path))
            server.agents.add(self.headers.get("User-Agent", ""))
            server.now += 1
            server.most = max(server.most, server.now)
            prefix = next((one for one, faults in server.script.items() if path.startswith(one) and faults), None)
            fault = server.script[prefix].pop(0) if prefix is not None else None
        try:
            if server.slow:
                time.sleep(server.slow)
            if fault is not None:
                return self.fail(fault)
            url = urllib.parse.urlsplit(self.path)
            if url.path == "/w/api.php":
                return self.api(dict(urllib.parse.parse_qsl(url.query)))
            name = urllib.parse.unquote(url.path.rsplit("/", 1)[-1])
            if url.path.startswith("/wiki/Special:FilePath/"):
                if name == "Gone.jpg":
                    return self.answer(404, b"File not found", "text/html")
                return self.answer(302, headers={"Location": "/thumb/" + urllib.parse.quote(name)})
            if name.endswith(".svg"):
                return self.answer(200, b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image/svg+xml")
            return self.answer(200, photograph(name), "image/jpeg")
        finally:
            with server.lock:
                server.now -= 1

    def fail(self, fault):
        if fault == "reset":
            self.close_connection = True
            self.connection.close()
        elif fault == "cut":
            self.answer(200, b'{"entities":{"Q1":' + b" " * 400, "application/json", cut=20)
        elif fault == "html":
            self.answer(200, b"<!DOCTYPE html><html>Wikimedia Error</html>", "text/html")
        elif fault == "maxlag":
            body = {"error": {"code": "maxlag", "info": "6 seconds lagged", "lag": 6}}
            self.answer(200, json.dumps(body).encode(), "application/json", {"Retry-After": "1"})
        elif fault == "hang":
            time.sleep(1.5)
        else:
            status, wait = fault
            self.answer(status, b"no", headers={"Retry-After": wait} if wait else {})

    def api(self, query):
        action = query.get("action")
        if action in self.server.no_actions:
            return self.json({"error": {"code": "badvalue", "info": "Unrecognized value"}})
        if action == "query":
            return self.json(self.query(query))
        wanted = [one for one in query.get("ids", "").split("|") if one]
        titles = [one for one in query.get("titles", "").split("|") if one]
        assert query["maxlag"] == "5"
        if len(wanted) + len(titles) > self.server.most_values:
            return self.json({"error": {"code": "toomanyvalues", "info": "Too many values supplied"}})
        strange = [one for one in wanted if one.startswith("Q99999")]
        if strange:
            return self.json({"error": {"code": "no-such-entity", "info": f"no {strange[0]}", "id": strange[0]}})
        by_title = {one["title"]: q for q, one in self.server.entities.items()}
        languages = query["languages"].split("|")
        entities = {q: self.entity(q, languages) for q in wanted}
        for place, title in enumerate(titles, 1):
            q = by_title.get(title)
            entities[q or str(-place)] = (
                self.entity(q, languages) if q else {"site": "enwiki", "title": title, "missing": ""}
            )
        return self.json({"entities": entities, "success": 1})

    def entity(self, q, languages):
        if q not in self.server.entities:
            return {"id": q, "missing": ""}
        one = self.server.entities[q]

        def en(value):
            return {"language": "en", "value": value}

        def statement(name, rank="normal"):
            value = {"snaktype": "value", "property": "P18", "datavalue": {"value": name, "type": "string"}}
            return {"mainsnak": value, "type": "statement", "rank": rank}

        claims = [statement(name) for name in one["pictures"]]
        claims += [{"mainsnak": {"snaktype": "novalue", "property": "P18"}, "rank": "normal"}]
        claims += [statement("Wrong.jpg", "deprecated")]
        said = {
            "labels": {"en": en(one["label"])},
            "descriptions": {"en": en(one["description"])} if one["description"] else {},
            "aliases": {"en": [en(alias) for alias in one["aliases"]]} if one["aliases"] else {},
            **one.get("said", {}),
        }
        asked = {
            what: {language: value for language, value in of.items() if language in languages}
            for what, of in said.items()
        }
        return {
            "type": "item", "id": q, **asked,
            "sitelinks": {"enwiki": {"site": "enwiki", "title": one["title"], "badges": []}},
            "claims": {"P18": claims, "P31": [statement("Q5")]},
        }  # fmt: skip

    def query(self, query):
        titles = query["titles"].split("|")
        answer: dict = {"pages": {}, "normalized": [], "redirects": []}
        by_title = {one["title"]: q for q, one in self.server.entities.items()}
        for place, title in enumerate(titles, 1):
            lead = REDIRECTS.get(title, title)
            if lead != title:
                answer["redirects"].append({"from": title, "to": lead})
            page = {"title": lead, "pageid": place}
            if query["prop"] == "imageinfo":
                meta = {"LicenseShortName": {"value": "CC BY-SA 4.0"},
                        "Artist": {"value": '<a href="//x">Jane &amp; Joe</a>'}}  # fmt: skip
                page["imageinfo"] = [{"extmetadata": meta, "sha1": "0" * 40}]
            elif lead not in by_title:
                page["missing"] = ""
            elif query["prop"] == "pageprops":
                page["pageprops"] = {"wikibase_item": by_title[lead]}
            else:
                assert len(titles) <= 20
                page["extract"] = f"{lead} is the subject of this introduction.\n"
            answer["pages"][str(place)] = page
        return {"query": answer}
