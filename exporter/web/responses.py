"""The responses of the API port, errors included: always JSON, always with the same headers."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

import orjson
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from exporter.concurrency.request_priority import RequestPriority
from exporter.metrics.health import Health
from exporter.queues.errors import StoreUnavailable
from exporter.web.credentials import Unauthorized

log = logging.getLogger(__name__)

# Most answers are data for programs: nothing may frame them, sniff them or keep them.
SECURITY_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
CHALLENGE = {"WWW-Authenticate": 'Bearer realm="bullmq-exporter"'}


class BadRequest(Exception):
    """A parameter is wrong: which, and what is allowed."""


class NotFound(Exception):
    """What was requested does not exist."""


class Busy(Exception):
    """Too many requests at once; the message says what to do."""


class TooManyRequests(Exception):
    """Too many requests within a minute; `seconds` until the next one is answered."""

    def __init__(self, seconds: int, *, has_credential: bool) -> None:
        which = "" if has_credential else " without a valid credential"
        super().__init__(f"Too many requests{which}, try again in {seconds} s")
        self.seconds, self.has_credential = seconds, has_credential


class TooManyWrongCredentials(TooManyRequests):
    """A wrong credential, after too many of them."""

    def __init__(self, seconds: int) -> None:
        super().__init__(seconds, has_credential=False)
        self.args = (f"Too many wrong credentials, try again in {seconds} s",)


class Forbidden(Exception):
    """The credential is valid, but not sufficient."""


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


def answering(health: Health, request_priority: RequestPriority) -> Middleware:
    """The outermost layer: turns every error into its answer, and counts and times all answers."""

    @web.middleware
    async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
        began = time.monotonic()
        with request_priority.request():
            response = await respond(request, handler)
        for name, value in SECURITY_HEADERS.items():
            response.headers.setdefault(name, value)
        resource = request.match_info.route.resource
        route = resource.canonical.removeprefix("/api") if resource else "other"
        health.api_requests.labels(route, str(response.status)).inc()
        health.api_durations.labels(route).observe(time.monotonic() - began)
        return response

    return answer


async def respond(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Return the handler's response, or the one for the error that it raises."""
    try:
        return await handler(request)
    except BadRequest as error:
        return _message(400, str(error))
    except Unauthorized as error:
        return _message(401, str(error), CHALLENGE)
    except TooManyRequests as error:
        # The challenge says that a valid credential is accepted at once, so the page asks for one.
        challenge = {} if error.has_credential else CHALLENGE
        return _message(429, str(error), {"Retry-After": str(error.seconds), **challenge})
    except Forbidden as error:
        return _message(403, str(error))
    except NotFound as error:
        return _message(404, str(error))
    except StoreUnavailable as error:
        log.debug("answered 503", extra={"reason": str(error)})
        return _message(503, error.public, {"Retry-After": "5"})
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
