"""The metrics port: `/metrics`, health and readiness, and a landing page."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Collection
from importlib import resources

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from exporter import __version__
from exporter.metrics.exposition import Exposition
from exporter.metrics.health import Health
from exporter.settings import MetricsSettings
from exporter.web.client_address import client_address
from exporter.web.credentials import digest
from exporter.web.failed_logins import FailedLogins
from exporter.web.sending import PIECE_BYTES, SharedBody

# A header that Prometheus sends with each scrape, as do agents that are based on its code.
SCRAPER_HEADER = "X-Prometheus-Scrape-Timeout-Seconds"
# Wrong passwords from one client within five minutes, after which answers are delayed.
MAX_WRONG_PASSWORDS = 20
WRONG_PASSWORD = "password"  # noqa: S105 - why a login failed


def metrics_app(
    exposition: Exposition, settings: MetricsSettings, health: Health
) -> web.Application:
    """The application of the metrics port."""
    landing = resources.files("exporter.web").joinpath("landing.html").read_text("utf-8")
    landing = landing.replace("{version}", __version__)

    async def metrics(request: web.Request) -> web.Response:
        compressed = _takes_gzip(request)
        accept = ",".join(request.headers.getall("Accept", []))
        content_type, page = await exposition.page(
            accept, for_prometheus=SCRAPER_HEADER in request.headers
        )
        headers = {"Content-Type": content_type, "Vary": "Accept, Accept-Encoding"}
        if compressed:
            headers["Content-Encoding"] = "gzip"
            return web.Response(body=page.packed, headers=headers)
        body = SharedBody(page.packed, page.size, page.text(PIECE_BYTES))
        return web.Response(body=body, headers=headers)

    async def healthy(_: web.Request) -> web.Response:
        return web.Response(text="healthy\n")

    async def ready(_: web.Request) -> web.Response:
        if not exposition.ready:
            return web.Response(
                status=503, text="not ready: Redis has not answered the last poll\n"
            )
        # If one of several targets is unreachable, the others are still exposed. Its name is not
        # public.
        named = () if settings.password else exposition.unread
        unread = [target for target in named if target is not None]
        return web.Response(text=f"ready{', except ' * bool(unread)}{', '.join(unread)}\n")

    async def root(_: web.Request) -> web.Response:
        return web.Response(
            text=landing,
            content_type="text/html",
            headers={"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"},
        )

    probes = (healthy, ready)
    app = web.Application(
        middlewares=[_basic_auth(settings, probes, health)] if settings.password else []
    )
    app.router.add_get("/metrics", metrics)
    app.router.add_get("/-/healthy", healthy)
    app.router.add_get("/-/ready", ready)
    app.router.add_get("/", root)
    return app


def _takes_gzip(request: web.Request) -> bool:
    for part in ",".join(request.headers.getall("Accept-Encoding", [])).split(","):
        coding, _, parameters = part.partition(";")
        if coding.strip().lower() in ("gzip", "*"):
            return parameters.replace(" ", "").lower() not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False


def _basic_auth(
    settings: MetricsSettings, probes: Collection[Handler], health: Health
) -> Middleware:
    assert settings.password is not None
    wanted = digest(f"{settings.user}:{settings.password.get_secret_value()}".encode())
    failed_logins = FailedLogins("metrics", (WRONG_PASSWORD,), MAX_WRONG_PASSWORDS, health)

    @web.middleware
    async def basic_auth(request: web.Request, handler: Handler) -> web.StreamResponse:
        # Probes of an orchestrator send no credentials, and learn only yes or no.
        if request.match_info.handler in probes:
            return await handler(request)
        scheme, _, encoded = request.headers.get("Authorization", "").partition(" ")
        is_given = scheme.lower() == "basic"
        if is_given and hmac.compare_digest(digest(_decoded(encoded)), wanted):
            return await handler(request)
        # 401 even after too many of them: with any other status, browsers assume that the password
        # is right, and send it again and again.
        response = web.Response(
            status=401,
            text="unauthorized\n",
            headers={"WWW-Authenticate": 'Basic realm="bullmq-exporter", charset="UTF-8"'},
        )
        if is_given and failed_logins.record(client_address(request, ()), WRONG_PASSWORD):
            response.force_close()
            await failed_logins.delay()
        return response

    return basic_auth


def _decoded(encoded: str) -> bytes:
    try:
        return base64.b64decode(encoded, validate=True)
    except ValueError:
        return b""
