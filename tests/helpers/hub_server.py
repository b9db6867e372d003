"""A model hub on loopback, as its client asks it: one commit a repository, files by `resolve`, a listing with sizes."""

import hashlib
import http.server
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(http.server.ThreadingHTTPServer):
    """Folders below `root`, <organisation>/<name>, are repositories; `asked` has a line for each request.

    `gated`: files need a licence. `busy`: answer so many requests with 503 first. `cut`: break the next answer that is
    longer off after so many bytes. `elsewhere`: send who asks for weights to another path, as the hub does to its CDN.
    """

    daemon_threads = True

    def __init__(self, root: Path):
        super().__init__(("127.0.0.1", 0), _Answer)
        self.root, self.asked = root, []
        self.gated, self.busy, self.cut, self.elsewhere = False, 0, None, False

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def fetched(self) -> list[str]:
        """The files whose content was sent, in order."""
        sent = [line.split()[1] for line in self.asked if re.match(r"GET \S*/resolve/\S+ .* 20", line)]
        return [path.rsplit("/", 1)[1] for path in sent]


@contextmanager
def running(root: Path) -> Iterator[Hub]:
    """A hub that serves until the end of the block."""
    with Hub(root) as hub:
        threading.Thread(target=hub.serve_forever, args=(0.02,), daemon=True).start()
        yield hub
        hub.shutdown()


class _Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *_):
        pass

    def do_GET(self):
        path = self.path.partition("?")[0].removeprefix("/cdn")
        listing = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(?:revision|tree)/([^/]+)", path)
        file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        asked = listing or file
        if self.server.busy:
            self.server.busy -= 1
            self._answer(503, b"")
        elif not asked or not (self.server.root / asked[1]).is_dir():
            self._answer(401, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif asked[2] != COMMIT:
            self._answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        elif listing:
            self._listing(asked[1], "/tree/" in path)
        elif self.server.gated:
            self._answer(403, b"{}", {"X-Error-Code": "GatedRepo"})
        else:
            self._file(self.server.root / file[1] / file[3])

    do_HEAD = do_GET

    def _listing(self, repository: str, tree: bool) -> None:
        folder = self.server.root / repository
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
        if tree:
            rows = [{"type": "file", "oid": "0" * 40, "path": name, "size": size} for name, size in sizes.items()]
            self._answer(200, json.dumps(rows).encode())
            return
        siblings = [{"rfilename": name, "size": size} for name, size in sizes.items()]
        about = {"id": repository, "modelId": repository, "sha": COMMIT, "private": False, "tags": [], "downloads": 0}
        self._answer(200, json.dumps({**about, "siblings": siblings}).encode())

    def _file(self, path: Path) -> None:
        content = path.read_bytes() if path.is_file() else None
        if content is None:
            self._answer(404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        about = {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha256(content).hexdigest()}"'}
        about |= {"X-Linked-Size": str(len(content)), "X-Linked-Etag": about["ETag"]}
        if self.server.elsewhere and not self.path.startswith("/cdn"):
            self._answer(302, b"", {**about, "Location": f"/cdn{self.path}"})
        elif wanted := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or ""):
            first, last = int(wanted[1]), int(wanted[2] or len(content) - 1)
            span = f"bytes {first}-{last}/{len(content)}"
            self._answer(206, content[first : last + 1], {**about, "Content-Range": span})
        else:
            self._answer(200, content, about)

    def _answer(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.server.asked.append(f"{self.command} {self.path} {self.headers.get('Range') or '-'} {status}")
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.server.cut is not None and len(content) > self.server.cut:
            content, self.server.cut, self.close_connection = content[: self.server.cut], None, True
        self.wfile.write(content)
