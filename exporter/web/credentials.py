"""Who may use the Jobs API: Open Archiver's tokens, and API keys from the settings."""

from __future__ import annotations

import base64
import hmac
import secrets
import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import jwt

from exporter.settings import ApiSettings, Settings, names_of

MANAGE_ALL = "manage:all"
# Open Archiver's role with every permission (iam-policy).
SUPER_ADMIN = "Super Admin"
# How far (seconds) the clock of the machine that signed a token may be from ours.
CLOCK_SKEW_SECONDS = 30
# Secrets that Open Archiver has published: in .env.example and its installation guide, in its first
# versions, in its tests. Anybody can sign tokens with these.
PLACEHOLDERS = {
    "a-very-secret-key-that-you-should-change",
    "a-very-secret-key",
    "test-jwt-secret",
}
MIN_PASSWORD_BYTES = 16  # as many as an API key must have
MIN_SECRET_BYTES = 32  # RFC 7518, section 3.2: a key of HS256 is at least as long as its hash
# Why a credential is wrong, for metrics and the log.
WRONG_KEY, WRONG_TOKEN, EXPIRED_TOKEN, PENDING_TOKEN = (
    "api_key",
    "token",
    "expired_token",
    "mfa_pending",
)
REASONS = (WRONG_KEY, WRONG_TOKEN, EXPIRED_TOKEN, PENDING_TOKEN)

# secret_warnings() says it once, and names the setting.
warnings.filterwarnings("ignore", category=jwt.InsecureKeyLengthWarning)

_DIGEST_KEY = secrets.token_bytes(32)


def digest(secret: bytes) -> bytes:
    """A digest that nobody else can compute.

    So the time of a comparison or a lookup reveals nothing about a secret.
    """
    return hmac.digest(_DIGEST_KEY, secret, "sha256")


class Unauthorized(Exception):
    """No credential, or a wrong one. The message says which; `reason` is None if there is none."""

    def __init__(self, message: str, reason: str | None) -> None:
        super().__init__(f"Unauthorized: {message}")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Holder:
    """The owner of a valid credential."""

    name: str
    may_manage_all: bool


class Credentials:
    """Checks a request's headers as Open Archiver's requireAuth does: the API key first."""

    def __init__(self, settings: ApiSettings) -> None:
        self._holders = {
            digest(key.key.get_secret_value().encode()): Holder(
                f"key {key.name}", MANAGE_ALL in key.permissions
            )
            for key in settings.all_keys
        }
        secret = settings.jwt_secret.get_secret_value() if settings.jwt_secret else None
        self._jwt_secret = None if secret in PLACEHOLDERS else secret

    @property
    def configured(self) -> bool:
        return bool(self._holders or self._jwt_secret)

    def holder(self, headers: Mapping[str, str]) -> Holder:
        """Return the owner of the request's credential. Raises Unauthorized without a valid one."""
        if key := headers.get("X-API-KEY"):
            holder = self._holders.get(digest(key.encode("utf-8", "surrogateescape")))
            if holder is None:
                raise Unauthorized("Invalid API key", WRONG_KEY)
            return holder
        scheme, _, token = headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            # Another scheme is meant for somebody else, such as a proxy with its own password.
            raise Unauthorized("No token provided", None)
        return self._holder_of_token(token.strip())

    def _holder_of_token(self, token: str) -> Holder:
        # Checked first, because PyJWT parses the header before the signature: 2 ms for a made-up
        # token of 9 kB. This takes 10 µs.
        if self._jwt_secret is None or not _is_signed(token, self._jwt_secret):
            raise Unauthorized("Invalid token", WRONG_TOKEN)
        try:
            claims = jwt.decode(
                token,
                self._jwt_secret,
                algorithms=["HS256"],
                leeway=CLOCK_SKEW_SECONDS,
                # Open Archiver's jwtVerify does not check the audience.
                options={"require": ["sub"], "verify_aud": False},
            )
        except jwt.ExpiredSignatureError:
            raise Unauthorized("Invalid token", EXPIRED_TOKEN) from None
        except (jwt.PyJWTError, ValueError, OverflowError, RecursionError):
            raise Unauthorized("Invalid token", WRONG_TOKEN) from None
        if claims.get("mfaPending"):
            raise Unauthorized("MFA verification required", PENDING_TOKEN)
        roles = claims.get("roles")
        return Holder(f"token {claims['sub']}", isinstance(roles, list) and SUPER_ADMIN in roles)


def _is_signed(token: str, secret: str) -> bool:
    signed, _, signature = token.encode("utf-8", "surrogateescape").rpartition(b".")
    right = base64.urlsafe_b64encode(hmac.digest(secret.encode(), signed, "sha256"))
    return hmac.compare_digest(right.rstrip(b"="), signature)


def secret_warnings(settings: Settings) -> list[str]:
    """Return a line for each secret that can be found by trying, without the secret."""
    lines = []
    password, secret = settings.metrics.password, settings.api.jwt_secret
    if password is not None and len(password.get_secret_value().encode()) < MIN_PASSWORD_BYTES:
        lines.append(
            f"{names_of('metrics.password')} has less than {MIN_PASSWORD_BYTES} bytes: whoever "
            "reaches the port could find it by trying; set a longer one: openssl rand -hex 24"
        )
    if secret is None:
        return lines
    name, advice = names_of("api.jwt_secret"), "set a new one in Open Archiver and here"
    if secret.get_secret_value() in PLACEHOLDERS:
        lines.append(
            f"{name} is an example that Open Archiver has published, so anybody could sign a "
            f"token with it: no token is accepted; {advice}: openssl rand -hex 32"
        )
    elif len(secret.get_secret_value().encode()) < MIN_SECRET_BYTES:
        lines.append(
            f"{name} has less than {MIN_SECRET_BYTES} bytes: whoever has seen one token could "
            f"find it by trying, and sign tokens of their own; {advice}: openssl rand -hex 32"
        )
    return lines
