"""A Hugging Face hub on loopback: what huggingface_hub asks when it fetches a snapshot."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """A running hub.

    Attributes:
        url: for ``HF_ENDPOINT``.
        requests: method and path of every request, in order.
        status: answered to every request instead of the file, where not 200.
    """

    url: str
    requests: list[str] = field(default_factory=list)
    status: int = 200


@contextmanager
def hub_of(repositories: dict[str, Path]) -> Iterator[Hub]:
    """Serve directories as repositories: "owner/name" -> directory."""
    hub = Hub(url="")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.requests.append(f"{self.command} {path}")
            if hub.status != 200:
                self.reply(hub.status, b"{}")
            elif path.startswith("/api/models/"):
                self.reply_listing(path.removeprefix("/api/models/"))
            else:
                self.reply_file(path.removeprefix("/"))

        do_GET = do_HEAD = handle_any  # noqa: N815 - names of http.server

        def reply_listing(self, rest: str) -> None:
            name = "/".join(rest.split("/")[:2])
            folder = repositories.get(name)
            if folder is None:
                self.reply(404, b"{}", {"X-Error-Code": "RepoNotFound"})
                return
            files = sorted(p for p in folder.rglob("*") if p.is_file())
            names = [str(p.relative_to(folder)) for p in files]
            if "/tree/" in rest:
                listed = [
                    {"type": "file", "path": n, "size": p.stat().st_size, "oid": digest(p)}
                    for n, p in zip(names, files, strict=True)
                ]
                self.reply(200, json.dumps(listed).encode())
                return
            info = {"id": name, "sha": COMMIT, "siblings": [{"rfilename": n} for n in names]}
            self.reply(200, json.dumps(info).encode())

        def reply_file(self, path: str) -> None:
            name, _, rest = path.partition("/resolve/")
            _, _, file = rest.partition("/")
            folder = repositories.get(name)
            target = None if folder is None else folder / file
            if target is None or not target.is_file():
                self.reply(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
                return
            headers = {"ETag": f'"{digest(target)}"', "X-Repo-Commit": COMMIT}
            self.reply(200, target.read_bytes(), headers)

        def reply(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for key, value in (headers or {}).items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Keep the tests' output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def digest(path: Path) -> str:
    """An entity tag."""
    return hashlib.sha1(path.read_bytes(), usedforsecurity=False).hexdigest()
