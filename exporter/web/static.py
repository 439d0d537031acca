"""The page: its files, as they are in the package."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import PurePath

from aiohttp import web
from aiohttp.typedefs import Handler

# The licences (.txt) of its libraries are served with them.
CONTENT_TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".txt": "text/plain",
}
# Nothing from other origins, no inline script or style: whatever a job contains stays text.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def page_routes() -> list[tuple[str, Handler]]:
    """The page at `/`, and its files next to it. They contain nothing secret, unlike the API."""
    routes = []
    for path, file in _files(resources.files("exporter.web").joinpath("page"), "/"):
        content_type = CONTENT_TYPES.get(PurePath(path).suffix)
        if content_type is None:  # types of the libraries, for editors
            continue
        address = "/" if path == "/index.html" else path
        routes.append((address, _sending(content_type, file.read_bytes())))
    return routes


def _files(folder: Traversable, path: str) -> Iterator[tuple[str, Traversable]]:
    """All files below a folder, by their paths; `path` is that of the folder."""
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            yield from _files(entry, f"{path}{entry.name}/")
        else:
            yield path + entry.name, entry


def _sending(content_type: str, body: bytes) -> Handler:
    tag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
    headers = {
        "Content-Security-Policy": CONTENT_SECURITY_POLICY,
        # Revalidated each time, and sent only after a change.
        "Cache-Control": "no-cache",
        "ETag": tag,
    }

    async def send(request: web.Request) -> web.Response:
        if request.headers.get("If-None-Match") == tag:
            return web.Response(status=304, headers=headers)
        return web.Response(body=body, content_type=content_type, charset="utf-8", headers=headers)

    return send
