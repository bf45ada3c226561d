"""Pages for people: one to try the server, one that lists its calls. Both need no network."""

import base64
import hashlib
import html
import json
import re
from importlib.resources import files
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from qdrant_rerank.serving.http_errors import Json
from qdrant_rerank.serving.openapi import description

__all__ = ["PageRoutes"]

STYLE = (
    ":root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;"
    "margin:0 auto;padding:1rem}pre{overflow:auto;border:1px solid #8886;padding:.6rem}"
)


class PageRoutes:
    """The handlers, with what they show. Nothing of it is secret: pages need no key."""

    def __init__(self) -> None:
        self._try = files(__package__).joinpath("page.html").read_text("utf-8")
        self._description = description()
        self._calls = _list_of_calls(self._description)

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route("/", self.try_it),
            Route("/docs", self.docs),
            Route("/openapi.json", self.openapi),
        ]

    async def try_it(self, request: Request) -> Response:
        """Show a page with a query box, and both orders side by side."""
        return _page(self._try)

    async def docs(self, request: Request) -> Response:
        """List the calls."""
        return _page(self._calls)

    async def openapi(self, request: Request) -> Response:
        """Describe the calls for programs."""
        return Json(self._description)


def _page(content: str) -> Response:
    """Answer with a page that may run its own script and style, and load nothing else."""
    policy = "default-src 'none'; connect-src 'self'; base-uri 'none'; form-action 'none'"
    for tag in ("script", "style"):
        inner = re.findall(rf"<{tag}>(.*?)</{tag}>", content, re.DOTALL)
        hashes = " ".join(f"'sha256-{_digest(one)}'" for one in inner)
        policy += f"; {tag}-src {hashes}" if inner else ""
    headers = {
        "Content-Security-Policy": policy + "; frame-ancestors 'none'",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
    }
    return Response(content, headers=headers, media_type="text/html")


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


def _list_of_calls(described: dict[str, Any]) -> str:
    """Write the page of an OpenAPI description."""
    parts = [f"<h1>{html.escape(described['info']['title'])}</h1>"]
    parts.append('<p>For programs: <a href="/openapi.json">openapi.json</a></p>')
    for path, methods in described["paths"].items():
        for method, call in methods.items():
            parts.append(f"<h2>{method.upper()} {html.escape(path)}</h2>")
            parts.append(f"<p>{html.escape(call['summary'])}</p>")
            if "requestBody" in call:
                schema = call["requestBody"]["content"]["application/json"]["schema"]
                parts.append(f"<pre>{html.escape(json.dumps(schema, indent=1))}</pre>")
    for name, schema in described["components"]["schemas"].items():
        parts.append(f'<h2 id="{html.escape(name)}">{html.escape(name)}</h2>')
        parts.append(f"<pre>{html.escape(json.dumps(schema, indent=1))}</pre>")
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Calls</title>'
        f"<style>{STYLE}</style></head><body>{body}</body></html>"
    )
