"""The page for people: its files, as they stand in the package."""

from __future__ import annotations

import hashlib
from importlib import resources
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Handler

CONTENT_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
# Nothing from elsewhere, no script or style within the markup: whatever a job holds stays text.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def page_routes() -> list[tuple[str, Handler]]:
    """The page at `/`, and its files beside it. They hold nothing secret: the API does."""
    routes = []
    for file in sorted(resources.files("exporter.web").joinpath("page").iterdir(), key=str):
        if Path(file.name).suffix not in CONTENT_TYPES:
            continue
        path = "/" if file.name == "index.html" else f"/{file.name}"
        routes.append((path, _sending(file.name, file.read_bytes())))
    return routes


def _sending(name: str, body: bytes) -> Handler:
    tag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
    content_type = CONTENT_TYPES[Path(name).suffix]
    headers = {
        "Content-Security-Policy": CONTENT_SECURITY_POLICY,
        # Asked for each time, sent only after a change.
        "Cache-Control": "no-cache",
        "ETag": tag,
    }

    async def send(request: web.Request) -> web.Response:
        if request.headers.get("If-None-Match") == tag:
            return web.Response(status=304, headers=headers)
        return web.Response(body=body, content_type=content_type, charset="utf-8", headers=headers)

    return send
