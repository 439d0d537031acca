"""How the API port answers, errors too: always JSON, always the same headers."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import orjson
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from exporter.bullmq.connection import RedisUnavailable
from exporter.bullmq.turns import Turns
from exporter.prometheus.health import Health
from exporter.web.client_address import Network, client_address
from exporter.web.credentials import Unauthorized
from exporter.web.rate_limit import RateLimit

log = logging.getLogger(__name__)

# Most answers are data for programs: nothing may frame them, sniff them or keep them.
SECURITY_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class BadRequest(Exception):
    """A parameter is wrong: which, and what is allowed."""


class NotFound(Exception):
    """There is no such thing: what was asked for."""


class Busy(Exception):
    """Too much is asked for at once: what to do."""


class LockedOut(Exception):
    """Too many wrong credentials came from there; for how many more seconds."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"Too many wrong credentials, try again in {seconds} s")
        self.seconds = seconds


class Forbidden(Exception):
    """The credential is valid, and not enough."""


def json_response(
    body: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    return web.Response(
        body=orjson.dumps(body),
        status=status,
        content_type="application/json",
        charset="utf-8",
        headers=headers,
    )


def _message(status: int, message: str, headers: Mapping[str, str] | None = None) -> web.Response:
    return json_response({"message": message}, status, headers)


def answering(health: Health, turns: Turns) -> Middleware:
    """The outermost layer: turns every error into its answer, and counts and times all answers."""

    @web.middleware
    async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
        began = time.monotonic()
        with turns.request():
            response = await _answer(request, handler)
        for name, value in SECURITY_HEADERS.items():
            response.headers.setdefault(name, value)
        resource = request.match_info.route.resource
        route = resource.canonical.removeprefix("/api") if resource else "other"
        health.api_requests.labels(route, str(response.status)).inc()
        health.api_durations.labels(route).observe(time.monotonic() - began)
        return response

    return answer


async def _answer(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except BadRequest as error:
        return _message(400, str(error))
    except Unauthorized as error:
        return _message(401, str(error), {"WWW-Authenticate": 'Bearer realm="bullmq-exporter"'})
    except LockedOut as error:
        return _message(429, str(error), {"Retry-After": str(error.seconds)})
    except Forbidden as error:
        return _message(403, str(error))
    except NotFound as error:
        return _message(404, str(error))
    except RedisUnavailable as error:
        log.debug("answered 503", extra={"reason": str(error)})
        return _message(503, "Redis cannot be reached", {"Retry-After": "5"})
    except Busy as error:
        return _message(503, str(error), {"Retry-After": "5"})
    except web.HTTPMethodNotAllowed as error:
        allowed = ", ".join(sorted(error.allowed_methods))
        return _message(405, f"Method not allowed; allowed: {allowed}", {"Allow": allowed})
    except web.HTTPNotFound:
        return _message(404, "Not found; GET /openapi.json lists what there is")
    except web.HTTPException as error:
        return _message(error.status, error.reason)
    except Exception:
        log.exception("a request failed", extra={"path": request.path[:200]})
        return _message(500, "Internal server error")


def rate_limited(
    limit: int, trusted_proxies: Sequence[Network], free: Collection[str]
) -> Middleware:
    """Answers 429 to an address that asks too often; what is `free` is not counted."""
    windows = RateLimit(limit)

    @web.middleware
    async def limited(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path in free:
            return await _answer(request, handler)
        allowance = windows.take(client_address(request, trusted_proxies))
        if allowance.allowed:
            response = await _answer(request, handler)
        else:
            response = _message(429, f"Too many requests, try again in {allowance.reset} s")
        response.headers.update(allowance.headers)
        return response

    return limited
