"""The page's addresses: /, /why, each with `.json` beside it, and what they are made of.

All is GET and writes nothing; an address holds the whole question. Everything from outside (names, texts, pictures) is
escaped or drawn anew, and the pages forbid the browser every other host.
"""

import math
import socket
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlencode

import jinja2
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from pipeline.errors import UserError
from stages import plots
from stages.ask.questions import Questions, Typed
from stages.report.page import TEMPLATES as OF_REPORT
from stages.report.page import Environment
from stages.report.tables import display
from stages.report.words import short
from trainers.answers.explain import Explanation

HERE = Path(__file__).parent
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; img-src 'self' data:; style-src 'self'; script-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
# Of this machine alone: a page elsewhere whose name was made to mean 127.0.0.1 is not answered.
HOSTS = ["127.0.0.1", "localhost"]


def app(questions: Questions) -> Starlette:
    """The application; `questions` answers."""
    pages = _Pages(questions)
    routes = [
        Route("/", pages.ask), Route("/ask.json", pages.ask_json),
        Route("/why", pages.why), Route("/why.json", pages.why_json),
        Route("/names", pages.names), Route("/relations", pages.relations),
        Route("/picture/{entity:int}.webp", pages.picture),
        Route("/style.css", pages.style), Route("/htmx.js", pages.script),
    ]  # fmt: skip
    return Starlette(routes=routes, middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=HOSTS)])


def serve(graph: Path, runs: list[Path], port: int) -> None:
    """Answer at 127.0.0.1:`port` until Ctrl-C. Raises UserError if the port is taken or a run cannot be used."""
    listening = listen(port)
    questions = Questions(graph, runs)
    print(f"Ask {', '.join(questions.runs)} about {graph.name} at http://127.0.0.1:{listening.getsockname()[1]}/")
    print("Ctrl-C ends it.", flush=True)
    uvicorn.Server(uvicorn.Config(app(questions), log_level="warning")).run(sockets=[listening])


def listen(port: int) -> socket.socket:
    """A socket on 127.0.0.1. Raises UserError if the port is taken."""
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        one.bind(("127.0.0.1", port))
    except (OSError, OverflowError) as error:
        one.close()
        raise UserError(f"Port {port} cannot be used ({error}); name another --port.") from error
    return one


class _Pages:
    """One method an address."""

    def __init__(self, questions: Questions):
        self.questions = questions
        loader = jinja2.FileSystemLoader([HERE / "templates", OF_REPORT])
        self.templates = Environment(
            loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
        )
        self.templates.globals |= {"short": short, "graph": questions.folder.name}
        self.templates.filters["items"] = lambda one: one.items()

    def ask(self, request: Request) -> Response:
        asked = self.questions.ask(Typed.of(request.query_params))
        status = 400 if asked.error else 200
        kept = Typed.of(request.query_params).kept()
        return self._page("ask.html", status, asked=asked, kept=kept, json=f"/ask.json?{request.url.query}")

    def ask_json(self, request: Request) -> Response:
        asked = self.questions.ask(Typed.of(request.query_params))
        return _json(asdict(asked), 400 if asked.error else 200)

    def why(self, request: Request) -> Response:
        query = request.query_params
        json = f"/why.json?{request.url.query}"
        try:
            found = self._explained(request)
        except UserError as error:
            return self._page("why.html", 400, error=str(error), found=None, model="", back="/", json=json)
        kept = Typed.of(query).kept()
        back = {"entity": query["head" if kept["side"] == "tail" else "tail"], "relation": query["relation"], **kept}
        values = {"found": found, "model": display(query["model"]), "back": f"/?{urlencode(back)}"}
        return self._page("why.html", 200, error="", json=json, **values)

    def why_json(self, request: Request) -> Response:
        try:
            return _json(asdict(self._explained(request)), 200)
        except UserError as error:
            return _json({"error": str(error)}, 400)

    def _explained(self, request: Request) -> Explanation:
        query = request.query_params
        names = {one: query.get(one, "") for one in ("model", "head", "relation", "tail")}
        return self.questions.why(**names, side=query.get("side", "tail"))

    def names(self, request: Request) -> Response:
        """<option>s for what has been typed."""
        return self._page("names.html", 200, offers=self.questions.type_ahead(request.query_params.get("entity", "")))

    def relations(self, request: Request) -> Response:
        """<option>s of the relations, the plausible ones of the entity first."""
        asked = self.questions.ask(Typed.of({**request.query_params, "relation": ""}))
        return self._page("relations.html", 200, asked=asked, chosen=request.query_params.get("relation", ""))

    def picture(self, request: Request) -> Response:
        try:
            data = self.questions.pictures[request.path_params["entity"]]
        except KeyError:
            return PlainTextResponse("no picture", 404, HEADERS)
        return Response(data, 200, HEADERS | {"Cache-Control": "max-age=3600"}, "image/webp")

    @lru_cache(maxsize=1)  # noqa: B019  # one object for the whole life of the process
    def _style(self) -> str:
        values = {"light": plots.variables(plots.LIGHT), "dark": plots.variables(plots.DARK)}
        return "\n".join(self.templates.get_template(one).render(values) for one in ("report.css", "ask.css"))

    def style(self, request: Request) -> Response:
        return Response(self._style(), 200, HEADERS, "text/css")

    def script(self, request: Request) -> Response:
        return Response((HERE / "static/htmx.min.js").read_bytes(), 200, HEADERS, "text/javascript")

    def _page(self, template: str, status: int, **values: object) -> Response:
        text = self.templates.get_template(template).render(**values)
        return Response(text, status, HEADERS, "text/html")


def _json(content: object, status: int) -> Response:
    """JSON, which knows no NaN and no infinity: null stands for a score that is none."""
    return JSONResponse(_finite(content), status, HEADERS)


def _finite(content: object) -> object:
    if isinstance(content, dict):
        return {name: _finite(one) for name, one in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(one) for one in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
