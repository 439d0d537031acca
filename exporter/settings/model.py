"""The one list of settings: what can be set, its type, bounds and default.

Validation is a pure function of the values: it reads no file, and the same values give the same
settings everywhere. `exporter.settings.sources` collects the values,
`exporter.settings.preparation` tries the files that they name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    model_validator,
)
from redis.crc import key_slot

from exporter.settings.names import names_of, variable_of
from exporter.settings.values import (
    Address,
    Buckets,
    Count,
    Host,
    Listen,
    LongSecret,
    Network,
    NonEmpty,
    Origin,
    Permission,
    Port,
    PostgresHost,
    Prefix,
    QueueName,
    SchemaName,
    Seconds,
    Secret,
    ValueKind,
    comma_list,
    is_pattern,
    literal,
    socket_path,
)


def _both(one: str, other: str) -> str:
    return f"{names_of(one)} and {names_of(other)} go together: set both or none"


def _slot(key: str) -> int:
    return int(key_slot(key.encode()))


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ServerSettings(Section):
    """The common part of the settings of a store's server; `section` is its name in the file."""

    section: ClassVar[str]

    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    _target: str | None = PrivateAttr(None)

    def names_of(self, field: str) -> str:
        """One of these settings by all its names, for a message."""
        if self._target is None:
            return names_of(f"{self.section}.{field}")
        return f"{self.section}.{field} of the target {self._target}"

    @model_validator(mode="after")
    def _tls(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError(_both(f"{self.section}.tls_cert", f"{self.section}.tls_key"))
        return self

    @property
    def tls_files(self) -> tuple[Path, ...]:
        files = (self.tls_ca, self.tls_cert, self.tls_key)
        return tuple(file for file in files if file is not None)


class RedisSettings(ServerSettings):
    """Where Redis or Valkey is. A URL stands for the parts that it names."""

    section = "redis"

    host: Host = "localhost"
    port: Port = 6379
    socket: Annotated[Path | None, BeforeValidator(socket_path)] = None
    sentinels: Annotated[tuple[Listen, ...], BeforeValidator(comma_list)] = ()
    sentinel_master: str | None = None
    sentinel_user: str | None = None
    sentinel_password: Secret | None = None
    user: str | None = None
    password: Secret | None = None
    password_file: Path | None = None
    cluster: bool = False
    db: Annotated[int, Field(ge=0, le=2_147_483_647)] = 0
    tls: bool = False
    tls_verify: bool = True
    tls_server_name: str | None = None
    timeout: Annotated[float, Field(ge=0.1, le=60)] = 3.0

    @model_validator(mode="after")
    def _way(self) -> RedisSettings:
        if bool(self.sentinels) != (self.sentinel_master is not None):
            raise ValueError(_both("redis.sentinels", "redis.sentinel_master"))
        if any(not sentinel.host or not sentinel.port for sentinel in self.sentinels):
            raise ValueError(f"{names_of('redis.sentinels')}: each must be HOST:PORT")
        if self.cluster and (self.sentinels or self.socket is not None or self.db):
            raise ValueError(
                f"{names_of('redis.cluster')} cannot be combined with "
                f"{names_of('redis.sentinels')}, {names_of('redis.socket')} or "
                f"{names_of('redis.db')}"
            )
        if self.socket is not None and (self.tls or self.sentinels):
            raise ValueError(
                f"{names_of('redis.socket')} cannot be combined with {names_of('redis.tls')} or "
                f"{names_of('redis.sentinels')}"
            )
        return self

    @property
    def address(self) -> str:
        """Where it is, for people."""
        if self.socket is not None:
            return str(self.socket)
        if self.sentinels:
            return f"{self.sentinel_master} of the Sentinels {', '.join(map(str, self.sentinels))}"
        return str(Address(self.host, self.port))


class PostgresSettings(ServerSettings):
    """Where BullMQ's PostgreSQL is. A URL stands for the parts that it names."""

    section = "postgres"

    host: PostgresHost | None = None  # None: the queues are in Redis
    port: Port = 5432
    database: NonEmpty | None = None  # None: that of the user's name, as in libpq
    schema_name: SchemaName = "bullmq"
    user: NonEmpty | None = None
    password: Secret | None = None
    password_file: Path | None = None
    tls: bool = True
    tls_verify: bool = True
    application_name: Annotated[str, Field(pattern="^[ -~]{1,63}$")] = "bullmq-exporter"
    timeout: Annotated[float, Field(ge=0.1, le=60)] = 3.0

    @model_validator(mode="after")
    def _somewhere(self) -> PostgresSettings:
        for field in ("database", "user", "password"):
            if self.host is None and getattr(self, field) is not None:
                raise ValueError(
                    f"{names_of(f'postgres.{field}')} needs {names_of('postgres.host')}"
                )
        return self

    @property
    def is_socket(self) -> bool:
        """Whether `host` is the directory of a Unix socket, which needs no TLS."""
        return self.host is not None and self.host.startswith("/")

    @property
    def address(self) -> str:
        """Where it is, for people."""
        if self.is_socket:
            return f"{self.host}/.s.PGSQL.{self.port}"
        return str(Address(self.host or "", self.port))


class MetricsSettings(Section):
    """The port that Prometheus scrapes."""

    listen: Listen = Address("", 9538)
    scrape_interval: Annotated[float, Field(ge=0, le=3600)] = 60.0
    user: str | None = None
    password: Secret | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None

    @model_validator(mode="after")
    def _pairs(self) -> MetricsSettings:
        if (self.user is None) != (self.password is None):
            raise ValueError(_both("metrics.user", "metrics.password"))
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError(_both("metrics.tls_cert", "metrics.tls_key"))
        return self


class ApiKey(Section):
    """A key for `X-API-KEY`; logs call it by its name."""

    name: NonEmpty
    key: LongSecret
    permissions: Annotated[tuple[Permission, ...], BeforeValidator(comma_list)] = ("manage:all",)


class ApiSettings(Section):
    """The port of the Jobs API."""

    listen: Listen = Address("", 9539)
    key: LongSecret | None = None
    keys: tuple[ApiKey, ...] = ()
    jwt_secret: Secret | None = None
    rate_limit: Annotated[int, Field(ge=0, le=1_000_000)] = 100
    cors_origins: Annotated[tuple[Origin, ...], BeforeValidator(comma_list)] = ()
    redact: Annotated[tuple[NonEmpty, ...], BeforeValidator(comma_list)] = ()
    redact_values: Annotated[tuple[ValueKind, ...], BeforeValidator(comma_list)] = ()
    lockout: Annotated[int, Field(ge=0, le=1_000_000)] = 20
    trusted_proxies: Annotated[tuple[Network, ...], BeforeValidator(comma_list)] = ()
    max_field_bytes: Annotated[int, Field(ge=1024, le=1 << 30)] = 1 << 20
    max_page_bytes: Annotated[int, Field(ge=1024, le=1 << 30)] = 16 << 20
    search_seconds: Annotated[float, Field(ge=0.1, le=60)] = 5.0

    @property
    def all_keys(self) -> tuple[ApiKey, ...]:
        if self.key is None:
            return self.keys
        return (ApiKey(name="api.key", key=self.key), *self.keys)


class EventsSettings(Section):
    """Following the queues' event streams: counters and durations."""

    enabled: bool = True
    state_file: Path | None = None
    max_jobs: Annotated[int, Field(ge=0, le=10_000_000)] = 100_000
    max_names: Annotated[int, Field(ge=1, le=10_000)] = 100
    max_reasons: Annotated[int, Field(ge=0, le=200)] = 20
    # A job of an idle queue is taken within milliseconds, so less than 50 ms is not waiting; a
    # backlog means minutes, an outage hours. The last bound is four hours: longer waits show as the
    # age of the oldest waiting job.
    wait_buckets: Buckets = (
        *(0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0),
        *(15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0),
    )
    # From a job that finds nothing to do (5 ms) over a batch for the search engine (seconds) to the
    # import of a mailbox (hours).
    process_buckets: Buckets = (
        *(0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0),
        *(15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0),
    )


class LogSettings(Section):
    """What is logged on stderr."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"],
        BeforeValidator(lambda value: value.lower() if isinstance(value, str) else value),
    ] = "info"
    format: Literal["logfmt", "json"] = "logfmt"


class RetentionSettings(Section):
    """How many finished jobs the application keeps, if its jobs' options do not say so."""

    completed: Count | None = None
    failed: Count | None = None


class Watched(Section):
    """Which Redis or PostgreSQL is watched, and which of its queues."""

    queues: Annotated[tuple[QueueName, ...], BeforeValidator(comma_list)] = ()
    prefix: Annotated[tuple[Prefix, ...], BeforeValidator(comma_list), Field(min_length=1)] = (
        "bull",
    )
    queues_exclude: Annotated[tuple[QueueName, ...], BeforeValidator(comma_list)] = ()
    bull: bool = True
    redis: RedisSettings = RedisSettings()
    postgres: PostgresSettings = PostgresSettings()
    retention: RetentionSettings = RetentionSettings()

    @model_validator(mode="after")
    def _one_slot(self) -> Self:
        if self.redis.cluster and any(map(is_pattern, self.prefix)):
            raise ValueError(
                f"{names_of('prefix')}: in a cluster it cannot hold a pattern, since the queues of "
                "one hash tag are read; name it, such as {bull}; others are targets of their own"
            )
        if self.redis.cluster and (
            len({_slot(prefix) for prefix in self.prefix}) > 1
            or not all(re.search(r"\{[^{}]+\}", prefix) for prefix in self.prefix)
        ):
            raise ValueError(
                f"{names_of('prefix')}: in a cluster each must hold the same hash tag, such as "
                "{bull} (BullMQ); prefixes of other slots are targets of their own"
            )
        return self

    def names_of(self, field: str) -> str:
        """One of these settings by all its names, for a message."""
        target = self.redis._target
        return names_of(field) if target is None else f"{field} of the target {target}"

    @property
    def in_postgres(self) -> bool:
        """Whether the queues are in PostgreSQL."""
        return self.postgres.host is not None

    @property
    def store_address(self) -> str:
        """Where the queues are, for people."""
        if self.in_postgres:
            return f"PostgreSQL at {self.postgres.address}"
        return f"Redis at {self.redis.address}"

    @property
    def has_search(self) -> bool:
        """Whether queues are searched for: not all of them are named."""
        return not self.queues or any(map(is_pattern, (*self.queues, *self.prefix)))

    @property
    def has_several_prefixes(self) -> bool:
        """Whether a queue's name may be ambiguous without its prefix."""
        return len(self.prefix) > 1 or self.has_prefix_patterns

    @property
    def has_prefix_patterns(self) -> bool:
        return any(map(is_pattern, self.prefix))

    @property
    def plain_prefixes(self) -> tuple[str, ...]:
        """The prefixes that are not patterns, as they are in Redis."""
        return tuple(prefix for prefix in map(literal, self.prefix) if prefix is not None)

    @property
    def plain_queues(self) -> tuple[str, ...]:
        """The names of queues that are not patterns, as they are in Redis."""
        return tuple(name for name in map(literal, self.queues) if name is not None)

    def selects(self, name: str) -> bool:
        """Whether a queue of this name is watched if it is found."""
        if any(fnmatchcase(name, pattern) for pattern in self.queues_exclude):
            return False
        return not self.queues or any(
            name == pattern or fnmatchcase(name, pattern) for pattern in self.queues
        )

    @property
    def cluster_slot(self) -> int | None:
        """The cluster's slot that the keys of all queues are in; None without a cluster."""
        return _slot(self.prefix[0]) if self.redis.cluster else None


class TargetSettings(Watched):
    """One of several; its name is the label `target` of all its metrics."""

    # No dot, because it separates the target's name in the state file's name.
    name: Annotated[str, Field(pattern="^[A-Za-z0-9_-]{1,63}$")]

    @property
    def named_stores(self) -> dict[str, Section]:
        """Its Redis and its PostgreSQL, whose messages name this target."""
        redis, postgres = self.redis.model_copy(), self.postgres.model_copy()
        redis._target = postgres._target = self.name
        return {"redis": redis, "postgres": postgres}


class Settings(Watched):
    """All settings."""

    poll_interval: Annotated[float, Field(ge=0.1, le=3600)] = 5.0
    discovery_interval: Seconds = 60.0
    workers_interval: Annotated[float, Field(ge=0, le=86_400)] = 15.0
    max_queues: Count = 20_000
    max_schedulers: Annotated[int, Field(ge=0, le=1000)] = 100
    targets: Annotated[tuple[TargetSettings, ...], Field(max_length=100)] = ()
    metrics: MetricsSettings = MetricsSettings()
    api: ApiSettings = ApiSettings()
    events: EventsSettings = EventsSettings()
    log: LogSettings = LogSettings()

    @model_validator(mode="after")
    def _target_names(self) -> Settings:
        names = [target.name for target in self.targets]
        if len(set(names)) < len(names):
            raise ValueError("targets: each must have a name of its own")
        return self

    def by_target(self) -> dict[str | None, Settings]:
        """The settings of each target by its name; None is the name of a single target."""
        if not self.targets:
            return {None: self._for_its_store()}
        file = self.events.state_file
        return {
            target.name: self.model_copy(
                update={
                    **{field: getattr(target, field) for field in Watched.model_fields},
                    **target.named_stores,
                    "targets": (),
                    "events": self.events.model_copy(
                        update={"state_file": file and file.with_name(f"{file.name}.{target.name}")}
                    ),
                }
            )._for_its_store()
            for target in self.targets
        }

    def _for_its_store(self) -> Settings:
        """The same for Redis. In PostgreSQL BullMQ has no prefix: the schema takes its place."""
        if not self.in_postgres:
            return self
        return self.model_copy(update={"prefix": (self.postgres.schema_name,)})

    def secrets(self) -> Iterator[str]:
        """Every configured secret, which must never be shown."""
        store_secrets = [
            secret
            for watched in (self, *self.targets)
            for secret in (
                *(watched.redis.password, watched.redis.sentinel_password),
                watched.postgres.password,
            )
        ]
        api_secrets = (self.api.jwt_secret, *(key.key for key in self.api.all_keys))
        for secret in (*store_secrets, self.metrics.password, *api_secrets):
            if secret is not None and secret.get_secret_value():
                yield secret.get_secret_value()


@dataclass(frozen=True)
class Leaf:
    """A single setting, by its path in the file."""

    path: str
    secret: bool

    @property
    def variable(self) -> str:
        return variable_of(self.path)


def _walk(model: type[BaseModel], under: str = "") -> Iterator[Leaf]:
    for name, field in model.model_fields.items():
        if name.endswith("_file") and name.removesuffix("_file") in model.model_fields:
            continue  # the other form of a secret, as a file
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, Section):
            yield from _walk(annotation, f"{under}{name}.")
        else:
            types = (
                annotation,
                *get_args(annotation),
                *get_args(next(iter(get_args(annotation)), None)),
            )
            yield Leaf(f"{under}{name}", SecretStr in types)


# A URL is not a field: each source's URL is split into fields before sources are merged, so that
# REDIS_HOST in the environment takes precedence over a URL in the file.
URLS = (Leaf("redis.url", secret=True), Leaf("postgres.url", secret=True))
LEAVES = {leaf.path: leaf for leaf in (*_walk(Settings), *URLS)}
