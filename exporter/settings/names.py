"""The names of a setting: its path in the file, its environment variable, its flag.

The path in the file (`api.rate_limit`) determines the environment variable
(`EXPORTER_API_RATE_LIMIT`), unless Open Archiver already has a name for it, so that the sidecar can
use the same `.env`.
"""

from __future__ import annotations

OPEN_ARCHIVER_NAMES = {
    "redis.host": "REDIS_HOST",
    "redis.port": "REDIS_PORT",
    "redis.user": "REDIS_USER",
    "redis.password": "REDIS_PASSWORD",
    "redis.tls": "REDIS_TLS_ENABLED",
    "api.jwt_secret": "JWT_SECRET",
}
FLAGS = {
    "redis.url": "--redis-url",
    "postgres.url": "--postgres-url",
    "metrics.listen": "--metrics-listen",
    "api.listen": "--api-listen",
    "poll_interval": "--poll-interval",
    "queues": "--queues",
    "prefix": "--prefix",
    "log.level": "--log-level",
}
# Lists of mappings, which no variable can hold.
FILE_ONLY = frozenset({"api.keys", "targets"})


def derived_variable(path: str) -> str:
    """The environment variable that follows from a setting's path in the file."""
    return "EXPORTER_" + path.replace(".", "_").upper()


def variable_of(path: str) -> str:
    """The environment variable of a setting."""
    return OPEN_ARCHIVER_NAMES.get(path, derived_variable(path))


def names_of(path: str) -> str:
    """A setting by all its names, for a message: `redis.host (REDIS_HOST, --redis-url)`."""
    # The URL includes the host, and may be what the user set.
    flag = FLAGS.get(path.replace(".host", ".url"))
    names = [variable_of(path), *([flag] if flag else [])]
    return f"{path} ({', '.join(names)})"
