"""What people call a setting: its place in the file, its environment variable, its flag.

A setting's place in the file (`api.rate_limit`) gives its environment variable
(`EXPORTER_API_RATE_LIMIT`), except where Open Archiver has a name for it already, so that the
sidecar takes the same `.env`.
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
    """The environment variable that a setting's place in the file gives."""
    return "EXPORTER_" + path.replace(".", "_").upper()


def variable_of(path: str) -> str:
    """The environment variable of a setting."""
    return OPEN_ARCHIVER_NAMES.get(path, derived_variable(path))


def names_of(path: str) -> str:
    """A setting by all its names, for a message: `redis.host (REDIS_HOST, --redis-url)`."""
    # The URL stands for the host, and is what one may have given.
    flag = FLAGS.get(path.replace(".host", ".url"))
    names = [variable_of(path), *([flag] if flag else [])]
    return f"{path} ({', '.join(names)})"
