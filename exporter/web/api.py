"""The API port: the page, the Jobs API under both of its prefixes, and its description."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources

import aiohttp_cors
import orjson
from aiohttp import web

from exporter import __version__
from exporter.concurrency.request_priority import RequestPriority
from exporter.metrics.health import Health
from exporter.settings import ApiSettings
from exporter.web.guard import Guard, may_manage_all
from exporter.web.jobs_api import JobsApi
from exporter.web.responses import answering, json_response
from exporter.web.static import page_routes

# Maximum size of a request's first line: an id of 9,000 characters has up to 108,000
# percent-encoded, in the API's path as well as in the page's address. Each connection may hold one
# such line.
MAX_LINE_BYTES = 128 * 1024
# Open Archiver documents its API under /v1 and serves it under /api/v1.
PREFIXES = ("", "/api")


def openapi_document(prefixes: Sequence[str] | None, targets: Sequence[str]) -> dict[str, object]:
    """The API in OpenAPI 3.1, with the key prefixes and targets that a request may name."""
    document = orjson.loads(resources.files("exporter.web").joinpath("openapi.json").read_bytes())
    document["info"]["version"] = __version__
    parameters = document["components"]["parameters"]
    if prefixes is not None:
        parameters["Prefix"]["schema"]["enum"] = list(prefixes)
    # An empty list is not a valid schema; without targets the value does not matter.
    if targets:
        parameters["Target"]["schema"]["enum"] = list(targets)
    return dict(document)


def api_app(
    jobs: JobsApi, settings: ApiSettings, health: Health, request_priority: RequestPriority
) -> web.Application:
    """The application of the API port."""
    page = dict(page_routes())
    whole = openapi_document(jobs.prefixes, jobs.targets)
    # Names of prefixes and targets are only for clients that may see the queues.
    without_names = openapi_document(None, ())

    async def openapi(request: web.Request) -> web.Response:
        return json_response(whole if may_manage_all(request) else without_names)

    # Not counted, because the page has some 25 files: opening it five times would use up the
    # requests of a minute.
    delaying, guarding = Guard(settings, health).middlewares(
        free=set(page.values()), public={openapi}
    )
    # The API only reads, so it accepts no body.
    app = web.Application(
        middlewares=[delaying, answering(health, request_priority), guarding], client_max_size=1024
    )

    app.router.add_get("/openapi.json", openapi)
    for path, send in page.items():
        app.router.add_get(path, send)
    for prefix in PREFIXES:
        for path, handler in jobs.routes:
            app.router.add_get(f"{prefix}{path}", handler)
    if settings.cors_origins:
        options = aiohttp_cors.ResourceOptions(
            allow_headers=("Authorization", "X-API-KEY"),
            expose_headers=(
                "RateLimit-Limit",
                "RateLimit-Remaining",
                "RateLimit-Reset",
                "Retry-After",
            ),
            max_age=600,
        )
        cors = aiohttp_cors.setup(app, defaults=dict.fromkeys(settings.cors_origins, options))
        for route in list(app.router.routes()):
            cors.add(route)
    return app
