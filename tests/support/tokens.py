"""Access tokens of Open Archiver, for tests."""

from __future__ import annotations

import time
from typing import Any

import jwt

from tests.support.exporters import JWT_SECRET


def token(secret: str = JWT_SECRET, algorithm: str = "HS256", **claims: Any) -> dict[str, str]:
    """An access token as Open Archiver's AuthService signs it."""
    payload = {
        "sub": "user-1",
        "email": "admin@example.org",
        "roles": ["Super Admin"],
        "iat": int(time.time()),
        "exp": int(time.time()) + 600,
    } | claims
    payload = {name: value for name, value in payload.items() if value is not None}
    return {"Authorization": f"Bearer {jwt.encode(payload, secret, algorithm)}"}
