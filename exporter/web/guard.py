"""Who gets into the API: whoever may manage all, and nobody who guesses."""

from __future__ import annotations

from aiohttp import web
from aiohttp.typedefs import Handler

from exporter.settings import ApiSettings
from exporter.web.answers import Forbidden, LockedOut
from exporter.web.client_address import client_address
from exporter.web.credentials import Credentials, Unauthorized
from exporter.web.rate_limit import LOCKOUT, RateLimit


class Guard:
    """Lets in who has a credential with `manage:all`, and nobody who guesses."""

    def __init__(self, settings: ApiSettings) -> None:
        self._credentials = Credentials(settings)
        self._trusted = settings.trusted_proxies
        self._wrong = RateLimit(settings.lockout, LOCKOUT) if settings.lockout else None

    def guarding(self, handler: Handler) -> Handler:
        """The handler, behind the guard."""

        async def guarded(request: web.Request) -> web.StreamResponse:
            self._check(request)
            return await handler(request)

        return guarded

    def _check(self, request: web.Request) -> None:
        address = client_address(request, self._trusted)
        if self._wrong is not None and not (allowance := self._wrong.look(address)).allowed:
            raise LockedOut(allowance.reset)
        try:
            allowed = self._credentials.may_manage_all(request.headers)
        except Unauthorized:
            # Who brings none does not guess: a browser before somebody signs in.
            given = "X-API-KEY" in request.headers or "Authorization" in request.headers
            if self._wrong is not None and given:
                self._wrong.take(address)
            raise
        if not allowed:
            raise Forbidden("Forbidden: this needs the permission manage:all (role Super Admin)")
