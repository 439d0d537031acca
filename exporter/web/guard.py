"""Access to the API: which requests are accepted, and how many of each client."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from exporter.metrics.health import Health
from exporter.settings import ApiSettings
from exporter.web.client_address import client_address, client_network
from exporter.web.credentials import REASONS, Credentials, Holder, Unauthorized
from exporter.web.failed_logins import FailedLogins
from exporter.web.rate_limit import Allowance, RateLimit
from exporter.web.responses import (
    Forbidden,
    TooManyRequests,
    TooManyWrongCredentials,
    respond,
)

_HOLDER = web.RequestKey("holder", Holder)
_IS_DELAYED = web.RequestKey("is_delayed", bool)


def may_manage_all(request: web.Request) -> bool:
    """Whether a guarded request has a credential with `manage:all`."""
    holder = request.get(_HOLDER)
    return holder is not None and holder.may_manage_all


class _Verdict(NamedTuple):
    refusal: Exception | None
    allowance: Allowance | None


class Guard:
    """Accepts requests with a credential that has `manage:all`, and slows down guesses.

    The credential is checked before any limit, and every holder has a rate limit of their own. So
    other requests from the same address (a proxy, an office) cannot lock a holder out.
    """

    def __init__(self, settings: ApiSettings, health: Health) -> None:
        self._credentials = Credentials(settings)
        self._trusted = settings.trusted_proxies
        self._failed_logins = FailedLogins("api", REASONS, settings.lockout, health)
        self._requests = RateLimit(settings.rate_limit) if settings.rate_limit else None

    def middlewares(
        self, free: Collection[Handler], public: Collection[Handler]
    ) -> tuple[Middleware, Middleware]:
        """Guard all handlers except these: `public` ones are only counted, `free` ones not even
        that.

        The first of the two, which delays answers, must be outside of everything that measures
        their duration.
        """

        @web.middleware
        async def delaying(request: web.Request, handler: Handler) -> web.StreamResponse:
            response = await handler(request)
            if _IS_DELAYED in request:
                response.force_close()  # no further guesses on the same connection
                await self._failed_logins.delay()
            return response

        @web.middleware
        async def guarding(request: web.Request, handler: Handler) -> web.StreamResponse:
            asked = request.match_info.handler
            # OPTIONS: a browser's preflight request has no credential.
            if asked in free or request.method == hdrs.METH_OPTIONS:
                return await handler(request)
            needs_holder = asked not in public and request.match_info.http_exception is None
            verdict = self._judge(request, needs_holder=needs_holder)

            async def admitted(request: web.Request) -> web.StreamResponse:
                if verdict.refusal is not None:
                    raise verdict.refusal
                return await handler(request)

            response = await respond(request, admitted)
            for name, value in verdict.allowance.headers.items() if verdict.allowance else ():
                response.headers[name] = value
            return response

        return delaying, guarding

    def _judge(self, request: web.Request, *, needs_holder: bool) -> _Verdict:
        """Count a request, and decide whether it is refused."""
        address = client_address(request, self._trusted)
        name: str | None = None
        lockout: int | None = None
        refusal: Exception | None = None
        try:
            holder = request[_HOLDER] = self._credentials.holder(request.headers)
            name = holder.name
            if needs_holder and not holder.may_manage_all:
                refusal = Forbidden(
                    "Forbidden: this needs the permission manage:all (role Super Admin)"
                )
        except Unauthorized as error:
            refusal = error if needs_holder else None
            if error.reason is not None:
                lockout = self._failed_logins.record(address, error.reason)
        allowance: Allowance | None = None
        if self._requests is not None:
            allowance = self._requests.take((client_network(address), name))
        if allowance is not None and not allowance.allowed:
            refusal = TooManyRequests(allowance.reset, has_credential=name is not None)
        if lockout is not None:
            request[_IS_DELAYED] = True
            if refusal is not None:
                refusal = TooManyWrongCredentials(lockout)
        return _Verdict(refusal, allowance)
