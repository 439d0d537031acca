"""Who may use the Jobs API: Open Archiver's tokens, and API keys from the settings."""

from __future__ import annotations

import hmac
import logging
from collections.abc import Mapping

import jwt

from exporter.settings import ApiSettings

log = logging.getLogger(__name__)

MANAGE_ALL = "manage:all"
# Open Archiver's role with every permission (iam-policy).
SUPER_ADMIN = "Super Admin"
# How far (seconds) the clock of the machine that signed a token may be from ours.
CLOCK_SKEW = 30


class Unauthorized(Exception):
    """No credential, or none that is valid; the message says which."""


class Credentials:
    """Checks a request's headers as Open Archiver's requireAuth does: the API key first."""

    def __init__(self, settings: ApiSettings) -> None:
        self._keys = settings.all_keys
        self._jwt_secret = settings.jwt_secret.get_secret_value() if settings.jwt_secret else None

    @property
    def configured(self) -> bool:
        return bool(self._keys or self._jwt_secret)

    def may_manage_all(self, headers: Mapping[str, str]) -> bool:
        """Whether the request's credential has `manage:all`.

        Raises Unauthorized without a valid one.
        """
        if key := headers.get("X-API-KEY"):
            return MANAGE_ALL in self._permissions_of_key(key)
        scheme, _, token = headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise Unauthorized("Unauthorized: No token provided")
        return SUPER_ADMIN in self._roles(token.strip())

    def _permissions_of_key(self, given: str) -> tuple[str, ...]:
        found: tuple[str, ...] | None = None
        # Every key is compared, however early one fits: the time taken tells nothing.
        for key in self._keys:
            known = key.key.get_secret_value().encode()
            if hmac.compare_digest(known, given.encode("utf-8", "surrogateescape")):
                found = key.permissions
        if found is None:
            raise Unauthorized("Unauthorized: Invalid API key")
        return found

    def _roles(self, token: str) -> list[object]:
        if self._jwt_secret is None:
            raise Unauthorized("Unauthorized: Invalid token")
        try:
            claims = jwt.decode(
                token,
                self._jwt_secret,
                algorithms=["HS256"],
                leeway=CLOCK_SKEW,
                # Open Archiver's jwtVerify looks at no audience.
                options={"require": ["sub"], "verify_aud": False},
            )
        except (jwt.InvalidTokenError, ValueError, RecursionError):
            raise Unauthorized("Unauthorized: Invalid token") from None
        if claims.get("mfaPending"):
            raise Unauthorized("Unauthorized: MFA verification required")
        roles = claims.get("roles")
        return roles if isinstance(roles, list) else []
