"""A Hugging Face hub on loopback: it answers the requests that list and fetch files.

Large files are stored as the hub stores them with LFS: the listing and the headers give their
sha256; of the others they give git's object id.
"""

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

LFS_SUFFIXES = {".onnx", ".onnx_data", ".data"}


@dataclass
class Hub:
    """A running hub, and its faults.

    Attributes:
        url: for ``HF_ENDPOINT``.
        repositories: "owner/name" -> directory that its default branch shows.
        licenses: "owner/name" -> identifier.
        requests: method and path of every request for a repository, in order.
        tokens: of the Authorization headers, in order.
        ranges: Range headers of file requests, in order.
        status: answered to every request instead of the file, where not 200.
        headers: sent with every answer.
        hangs: paths that hold this are not answered until the hub is closed.
        drops: end of a path -> bytes sent before the connection is cut, one for each request.
        stalls: end of a path -> bytes sent before nothing more comes, until the hub is closed.
        altered: end of a path -> bytes sent instead.
        etag: sent with every file instead of its digest.
        listing: makes another answer of each listing.
    """

    url: str
    repositories: dict[str, Path] = field(default_factory=dict)
    licenses: dict[str, str] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    ranges: list[str] = field(default_factory=list)
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    hangs: str | None = None
    drops: dict[str, list[int]] = field(default_factory=dict)
    stalls: dict[str, int] = field(default_factory=dict)
    altered: dict[str, bytes] = field(default_factory=dict)
    etag: str | None = None
    listing: Callable[[dict[str, Any]], Any] | None = None
    closed: threading.Event = field(default_factory=threading.Event)
    snapshots: dict[str, Path] = field(default_factory=dict)

    def repair(self) -> None:
        """Remove all faults, and forget the requests."""
        self.status, self.hangs, self.etag, self.listing = 200, None, None, None
        for each in (self.headers, self.drops, self.stalls, self.altered, self.licenses):
            each.clear()
        for asked in (self.requests, self.tokens, self.ranges):
            asked.clear()

    def commit(self, name: str) -> str:
        """Full hash of the default branch's commit; older commits stay available."""
        folder = self.repositories[name]
        commit = hashlib.sha1(f"{name} {folder}".encode(), usedforsecurity=False).hexdigest()
        self.snapshots[commit] = folder
        return commit

    def folder(self, name: str, revision: str) -> Path | None:
        """The directory of a revision; None where there is none."""
        if name in self.repositories and self.commit(name) and revision in {"", "main"}:
            return self.repositories[name]
        return self.snapshots.get(revision)

    def fetched(self) -> list[str]:
        """The names of the files that were fetched, in order, without their folders."""
        asked = [each for each in self.requests if each.startswith("GET ") and "/resolve/" in each]
        return [each.rpartition("/")[2] for each in asked]


@contextmanager
def hub_of(repositories: dict[str, Path]) -> Iterator[Hub]:
    """Serve directories as repositories: "owner/name" -> directory."""
    hub = Hub(url="", repositories=dict(repositories))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            path = unquote(urlsplit(self.path).path)
            if path == "/api/agent-harnesses":  # asked once a day for the User-Agent header
                self.reply(200, b"{}")
                return
            hub.requests.append(f"{self.command} {path}")
            hub.tokens.append(self.headers.get("Authorization", ""))
            if hub.hangs is not None and hub.hangs in path:
                hub.closed.wait(60)
                self.close_connection = True
            elif hub.status != 200:
                self.reply(hub.status, b"{}")
            elif path.startswith("/api/models/"):
                self.reply_listing(path.removeprefix("/api/models/"))
            else:
                self.reply_file(path.removeprefix("/"))

        do_GET = do_HEAD = handle_any  # noqa: N815 - names of http.server

        def reply_listing(self, rest: str) -> None:
            owner, name, *more = rest.split("/")
            name = f"{owner}/{name}"
            if name not in hub.repositories:
                self.reply(404, b"{}", {"X-Error-Code": "RepoNotFound"})
                return
            revision = more[1] if more else "main"
            folder = hub.folder(name, revision)
            if folder is None:
                self.reply(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
                return
            files = sorted(path for path in folder.rglob("*") if path.is_file())
            info = {
                "id": name,
                "sha": revision if revision in hub.snapshots else hub.commit(name),
                "tags": [f"license:{hub.licenses[name]}"] if name in hub.licenses else [],
                "siblings": [described(path, folder) for path in files],
            }
            content = info if hub.listing is None else hub.listing(info)
            body = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.reply(200, body)

        def reply_file(self, path: str) -> None:
            name, _, rest = path.partition("/resolve/")
            revision, _, file = rest.partition("/")
            folder = hub.folder(name, revision)
            if folder is None or not (folder / file).is_file():
                self.reply(404, b"", {"X-Error-Code": "EntryNotFound"})
                return
            target = folder / file
            about = described(target, folder)
            commit = revision if revision in hub.snapshots else hub.commit(name)
            headers = {"ETag": f'"{about["blobId"]}"', "X-Repo-Commit": commit}
            if "lfs" in about:
                headers["X-Linked-Etag"] = f'"{about["lfs"]["sha256"]}"'
                headers["X-Linked-Size"] = str(about["size"])
            if hub.etag is not None:
                headers |= {"ETag": hub.etag, "X-Linked-Etag": hub.etag}
            body = next(
                (other for end, other in hub.altered.items() if file.endswith(end)),
                target.read_bytes(),
            )
            status = 200
            if asked := self.headers.get("Range"):
                hub.ranges.append(asked)
                start = int(asked.removeprefix("bytes=").partition("-")[0])
                headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
                status, body = 206, body[start:]
            stall = next((n for end, n in hub.stalls.items() if file.endswith(end)), None)
            drops = next((n for end, n in hub.drops.items() if file.endswith(end) and n), None)
            if self.command == "GET":
                cut = drops.pop(0) if drops else stall
                self.reply(status, body, headers, cut=cut, stall=stall is not None)
            else:
                self.reply(status, body, headers)

        def reply(
            self,
            status: int,
            body: bytes,
            headers: dict[str, str] | None = None,
            *,
            cut: int | None = None,
            stall: bool = False,
        ) -> None:
            self.send_response(status)
            for key, value in {**(headers or {}), **hub.headers}.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body if cut is None else body[:cut])
            if cut is not None:
                self.wfile.flush()
                self.close_connection = True
            if stall:
                hub.closed.wait(60)

        def log_message(self, format: str, *args: object) -> None:
            """Keep the tests' output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign] - a client that went away
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield hub
    finally:
        hub.closed.set()
        server.shutdown()
        thread.join()
        server.server_close()


def described(path: Path, folder: Path) -> dict[str, Any]:
    """Describe a file as the hub's listing does."""
    size = path.stat().st_size
    blob, digest = digests(path, size, path.stat().st_mtime_ns)
    about = {"rfilename": path.relative_to(folder).as_posix(), "size": size, "blobId": blob}
    if path.suffix in LFS_SUFFIXES:
        about["lfs"] = {"sha256": digest, "size": size, "pointerSize": 134}
    return about


@cache
def digests(path: Path, size: int, mtime_ns: int) -> tuple[str, str]:
    """git's object id and the sha256 of a file that has not changed since."""
    content = path.read_bytes()
    blob = hashlib.sha1(b"blob %d\0" % size + content, usedforsecurity=False)
    return blob.hexdigest(), hashlib.sha256(content).hexdigest()
