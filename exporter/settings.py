"""Settings: what can be set, what is allowed, and by which names.

The models below are the one list of settings; `exporter.settings_sources` fills them. A setting's
place in the file (`api.rate_limit`) gives its environment variable (`EXPORTER_API_RATE_LIMIT`),
except where Open Archiver has a name for it already (`OPEN_ARCHIVER_NAMES`), so that the sidecar
takes the same `.env`.
"""

from __future__ import annotations

import errno
import os
import re
import ssl
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    model_validator,
)
from redis.crc import key_slot

from exporter.daemon_thread import call_in_daemon_thread

Result = TypeVar("Result")

# How long a start waits for a file system that stalls.
FILE_SYSTEM_SECONDS = 2.0
# And for a file that it needs, which may be the pipe of a program that asks another host for it.
MAX_READ_SECONDS = 10.0
# And how much of it is read (characters): one without an end, such as /dev/zero, takes all memory
# within that time.
MAX_FILE_LENGTH = 1 << 20

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
    "metrics.listen": "--metrics-listen",
    "api.listen": "--api-listen",
    "poll_interval": "--poll-interval",
    "queues": "--queues",
    "prefix": "--prefix",
    "log.level": "--log-level",
}


class SettingsError(Exception):
    """What is wrong with a setting and what is allowed, in one line and without its secrets."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


def secret_in(file: Path) -> str:
    """What a secret's file holds, without the line breaks at its ends.

    Raises OSError, or ValueError where it is not UTF-8 text.
    """
    try:
        return text_in(file).strip("\r\n")
    except UnicodeDecodeError:
        raise ValueError("not UTF-8 text") from None


def text_in(file: Path) -> str:
    """What a file holds. Raises OSError, also where it is too large, or UnicodeDecodeError."""
    with file.open(encoding="utf-8") as opened:
        text = opened.read(MAX_FILE_LENGTH + 1)
    if len(text) > MAX_FILE_LENGTH:
        raise OSError(errno.EFBIG, "it is larger than 1 MiB")
    return text


def read_in_time(read: Callable[[], Result]) -> Result:
    """The result of a call that reads files. Raises OSError where they do not answer.

    To allow only regular files would not do: one on a stalled network does not answer either, and
    a shell's `<(…)` is a pipe.
    """
    try:
        return call_in_daemon_thread(read).result(timeout=MAX_READ_SECONDS)
    except TimeoutError:
        reason = f"no answer within {MAX_READ_SECONDS:g} s"
        raise TimeoutError(errno.ETIMEDOUT, reason) from None
    except RuntimeError as error:  # no thread can be started
        raise OSError(errno.EAGAIN, str(error)) from None


class Address(NamedTuple):
    """Where to listen; port 0 takes a free one, an empty host is every address."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _address(value: Any) -> Any:
    if isinstance(value, Address):
        return value
    match = re.fullmatch(
        r"(?:\[(?P<v6>[^]]*)]|(?P<host>[^:/@]*)):(?P<port>[0-9]{1,5})",
        value.strip() if isinstance(value, str) else "",
    )
    if (
        not match
        or int(match["port"]) > 65535
        or (match["v6"] is not None and not _is_ipv6(match["v6"]))
    ):
        raise ValueError(
            "must be HOST:PORT with a port from 0 to 65535, such as 127.0.0.1:9538 or [::1]:9538"
        )
    return Address(match["v6"] or match["host"] or "", int(match["port"]))


def _host(value: str) -> str:
    if "/" in value or "@" in value:
        raise ValueError(
            f"must be a name or an address alone, without / and @; a URL belongs into "
            f"{names_of('redis.url')}"
        )
    return value


def _socket(value: Any) -> Any:
    if isinstance(value, str) and "://" in value:
        raise ValueError(f"must be a path; a URL belongs into {names_of('redis.url')}")
    return value


def described_path(file: Path) -> str:
    """The path of a secret's file for a message; nothing if that may be the secret itself."""
    return f"{file} " if file.is_absolute() else ""


def _is_ipv6(text: str) -> bool:
    try:
        IPv6Address(text)
    except ValueError:
        return False
    return True


def _comma_list(value: Any) -> Any:
    if isinstance(value, str):
        return [part for part in (part.strip() for part in value.split(",")) if part]
    return value


def _prefix(value: str) -> str:
    if not value or value.endswith(":"):
        raise ValueError("is empty or ends in a colon; a prefix is what stands before `:<queue>:`")
    return value


def _queue_name(value: str) -> str:
    if not value:
        raise ValueError("a queue's name has at least one character")
    return value


# How a special character of patterns is written that stands for itself.
ESCAPED = re.compile(r"\[([*?[])\]")


def is_pattern(value: str) -> bool:
    """Whether a prefix or a queue's name is a pattern like that of file names: `mail-*`, `[ab]*`.

    Braces are literal; `[*]` is a literal asterisk.
    """
    return literal(value) is None


def literal(value: str) -> str | None:
    """What a prefix or a queue's name stands for by itself; None for a pattern."""
    if any(special in ESCAPED.sub("", value) for special in "*?["):
        return None
    return ESCAPED.sub(r"\1", value)


def _slot(key: str) -> int:
    return int(key_slot(key.encode()))


# How a dual-stack socket writes IPv4 addresses.
IPV4_AS_IPV6 = IPv6Network("::ffff:0:0/96")


def _network(value: Any) -> Any:
    try:
        network = ip_network(value)
    except ValueError:
        raise ValueError("must be an address or a network, such as 10.0.0.0/8 or ::1") from None
    if isinstance(network, IPv6Network) and network.subnet_of(IPV4_AS_IPV6):
        mapped = network.network_address.ipv4_mapped
        return ip_network(f"{mapped}/{network.prefixlen - IPV4_AS_IPV6.prefixlen}")
    return network


def _permission(value: str) -> str:
    if not re.fullmatch(r"[a-z]+:[a-z]+", value):
        raise ValueError("must be an action and a subject, such as manage:all")
    return value


def _origin(value: str) -> str:
    if value != "*" and not re.fullmatch(r"https?://[^/?#\s]+", value):
        raise ValueError("must be an origin without a path, such as https://archive.example, or *")
    return value


Listen = Annotated[Address, BeforeValidator(_address)]
NonEmpty = Annotated[str, Field(min_length=1)]
Origin = Annotated[str, AfterValidator(_origin)]
ValueKind = Literal["tokens", "mail_addresses", "url_credentials"]
Network = Annotated[IPv4Network | IPv6Network, BeforeValidator(_network)]
Permission = Annotated[str, AfterValidator(_permission)]
Seconds = Annotated[float, Field(ge=0.1, le=86_400)]
Port = Annotated[int, Field(ge=1, le=65_535)]
# An empty secret would turn a check off, so it is refused: none is `null`, or no key at all.
Secret = Annotated[SecretStr, Field(min_length=1)]
Count = Annotated[int, Field(ge=1, le=1_000_000_000)]


def _buckets(value: tuple[float, ...]) -> tuple[float, ...]:
    if list(value) != sorted(set(value)) or any(round(bound, 3) != bound for bound in value):
        raise ValueError("must be seconds in rising order, in whole milliseconds: 0.05, 0.1, 1")
    return value


Buckets = Annotated[
    tuple[Annotated[float, Field(ge=0.001, le=31_536_000, allow_inf_nan=False)], ...],
    BeforeValidator(_comma_list),
    AfterValidator(_buckets),
    Field(min_length=1, max_length=50),
]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RedisSettings(Section):
    """Where Redis or Valkey is. A URL stands for the parts that it names."""

    host: Annotated[str, Field(min_length=1), AfterValidator(_host)] = "localhost"
    port: Port = 6379
    socket: Annotated[Path | None, BeforeValidator(_socket)] = None
    sentinels: Annotated[tuple[Listen, ...], BeforeValidator(_comma_list)] = ()
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
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_server_name: str | None = None
    timeout: Annotated[float, Field(ge=0.1, le=60)] = 3.0
    _target: str | None = PrivateAttr(None)

    def names_of(self, field: str) -> str:
        """One of these settings by all its names, for a message."""
        if self._target is None:
            return names_of(f"redis.{field}")
        return f"redis.{field} of the target {self._target}"

    @model_validator(mode="after")
    def _way(self) -> RedisSettings:
        if bool(self.sentinels) != (self.sentinel_master is not None):
            raise ValueError(_both("redis.sentinels", "redis.sentinel_master"))
        if any(not sentinel.host or not sentinel.port for sentinel in self.sentinels):
            raise ValueError(f"{names_of('redis.sentinels')}: each must be HOST:PORT")
        if self.cluster and (self.sentinels or self.socket is not None or self.db):
            raise ValueError(
                f"{names_of('redis.cluster')} goes with none of {names_of('redis.sentinels')}, "
                f"{names_of('redis.socket')} and {names_of('redis.db')}"
            )
        if self.socket is not None and (self.tls or self.sentinels):
            raise ValueError(
                f"{names_of('redis.socket')} goes neither with {names_of('redis.tls')} nor with "
                f"{names_of('redis.sentinels')}"
            )
        return self

    @model_validator(mode="after")
    def _tls(self) -> RedisSettings:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError(_both("redis.tls_cert", "redis.tls_key"))
        if self.tls_files:
            _load_in_time(self.tls_context, "redis", self.tls_files)
        return self

    @property
    def tls_files(self) -> tuple[Path, ...]:
        files = (self.tls_ca, self.tls_cert, self.tls_key)
        return tuple(file for file in files if file is not None)

    def tls_context(self) -> ssl.SSLContext:
        """What connects with TLS. Waits without a limit for files that do not answer.

        Raises ValueError for files that cannot be used.
        """
        context = ssl.create_default_context()
        if not self.tls_verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.tls_ca is not None:
            try:
                context.load_verify_locations(self.tls_ca)
            except (OSError, ValueError) as error:
                raise ValueError(
                    f"{names_of('redis.tls_ca')}: {self.tls_ca} cannot be used, a PEM file of "
                    f"certificates is wanted: {getattr(error, 'strerror', None) or error}"
                ) from None
        if self.tls_cert is not None:
            _load_pair(context, self.tls_cert, self.tls_key, "redis")
        return context

    @property
    def address(self) -> str:
        """Where it is, for people."""
        if self.socket is not None:
            return str(self.socket)
        if self.sentinels:
            return f"{self.sentinel_master} of the Sentinels {', '.join(map(str, self.sentinels))}"
        return str(Address(self.host, self.port))


def _load_pair(context: ssl.SSLContext, cert: Path, key: Path | None, section: str) -> None:
    """Loads a certificate with its key. Raises ValueError for files that cannot be used."""
    try:
        # A password, so that OpenSSL does not ask for one at the terminal.
        context.load_cert_chain(cert, key, password="")
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{names_of(f'{section}.tls_cert')} {described_path(cert)}and "
            f"{names_of(f'{section}.tls_key')} {described_path(key) if key else ''}cannot be used, "
            "two PEM files that belong together, the key without a password, are "
            f"wanted: {getattr(error, 'strerror', None) or error}"
        ) from None


def _load_in_time(
    load: Callable[[], ssl.SSLContext], section: str, files: Iterable[Path]
) -> ssl.SSLContext:
    """Raises ValueError for files that cannot be used, or that do not answer."""
    try:
        return read_in_time(load)
    except OSError as error:
        described = "".join(map(described_path, files))
        raise ValueError(
            f"{section}.tls_*: one of the files {described}cannot be read: {error.strerror}"
        ) from None


def _serving_context(cert: Path, key: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    _load_pair(context, cert, key, "metrics")
    return context


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
        self.tls_context()
        return self

    def tls_context(self) -> ssl.SSLContext | None:
        """What serves TLS, None where it is off.

        Raises ValueError for files that cannot be used.
        """
        if self.tls_cert is None or self.tls_key is None:
            return None
        files = (self.tls_cert, self.tls_key)
        return _load_in_time(partial(_serving_context, *files), "metrics", files)


class ApiKey(Section):
    """A key for `X-API-KEY`; the name is what logs call it."""

    name: Annotated[str, Field(min_length=1)]
    key: Annotated[SecretStr, Field(min_length=16)]
    permissions: Annotated[tuple[Permission, ...], BeforeValidator(_comma_list)] = ("manage:all",)


class ApiSettings(Section):
    """The port of the Jobs API."""

    listen: Listen = Address("", 9539)
    key: Annotated[SecretStr, Field(min_length=16)] | None = None
    keys: tuple[ApiKey, ...] = ()
    jwt_secret: Secret | None = None
    rate_limit: Annotated[int, Field(ge=0, le=1_000_000)] = 100
    cors_origins: Annotated[tuple[Origin, ...], BeforeValidator(_comma_list)] = ()
    redact: Annotated[tuple[NonEmpty, ...], BeforeValidator(_comma_list)] = ()
    redact_values: Annotated[tuple[ValueKind, ...], BeforeValidator(_comma_list)] = ()
    lockout: Annotated[int, Field(ge=0, le=1_000_000)] = 20
    trusted_proxies: Annotated[tuple[Network, ...], BeforeValidator(_comma_list)] = ()
    max_field_bytes: Annotated[int, Field(ge=1024, le=1 << 30)] = 1 << 20
    max_page_bytes: Annotated[int, Field(ge=1024, le=1 << 30)] = 16 << 20
    search_seconds: Annotated[float, Field(ge=0.1, le=60)] = 5.0

    @property
    def all_keys(self) -> tuple[ApiKey, ...]:
        if self.key is None:
            return self.keys
        return (ApiKey(name="api.key", key=self.key), *self.keys)


def _may_be_replaced(file: Path) -> bool:
    """Whether it is a regular file or none, and its directory may be written; behind symbolic links
    the directory of the file itself.
    """

    def look() -> bool:
        real = Path(os.path.realpath(file))
        is_regular = real.is_file() or not os.path.lexists(real)
        return is_regular and os.access(real.parent, os.W_OK)

    try:
        return call_in_daemon_thread(look).result(timeout=FILE_SYSTEM_SECONDS)
    except (TimeoutError, RuntimeError):
        return True  # a file system that stalls, or no thread for it; the start must not
    except (OSError, ValueError):  # or a NUL in its path
        return False


class EventsSettings(Section):
    """Following the queues' event streams: counters and durations."""

    enabled: bool = True
    state_file: Path | None = None
    max_jobs: Annotated[int, Field(ge=0, le=10_000_000)] = 100_000
    max_names: Annotated[int, Field(ge=1, le=10_000)] = 100
    # A job of an idle queue is taken within milliseconds, so what is shorter than 50 ms is no wait;
    # a backlog is minutes, an outage hours. Four hours are the last bound: what is older shows as
    # the age of the oldest waiting job.
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

    @model_validator(mode="after")
    def _state_directory(self) -> EventsSettings:
        if self.state_file is not None and not _may_be_replaced(self.state_file):
            raise ValueError(
                f"{names_of('events.state_file')}: {self.state_file} cannot be written, a file in "
                "a directory that exists and that this user may write is wanted"
            )
        return self


class LogSettings(Section):
    """What is logged on stderr."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"],
        BeforeValidator(lambda value: value.lower() if isinstance(value, str) else value),
    ] = "info"
    format: Literal["logfmt", "json"] = "logfmt"


class RetentionSettings(Section):
    """How many finished jobs the application keeps, where its jobs do not say so themselves."""

    completed: Count | None = None
    failed: Count | None = None


class Watched(Section):
    """Which Redis is watched, and which of its queues."""

    queues: Annotated[
        tuple[Annotated[str, AfterValidator(_queue_name)], ...], BeforeValidator(_comma_list)
    ] = ()
    prefix: Annotated[
        tuple[Annotated[str, AfterValidator(_prefix)], ...],
        BeforeValidator(_comma_list),
        Field(min_length=1),
    ] = ("bull",)
    queues_exclude: Annotated[
        tuple[Annotated[str, AfterValidator(_queue_name)], ...], BeforeValidator(_comma_list)
    ] = ()
    redis: RedisSettings = RedisSettings()
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
    def has_search(self) -> bool:
        """Whether queues are searched for, because not all of them are named."""
        return not self.queues or any(map(is_pattern, (*self.queues, *self.prefix)))

    @property
    def has_several_prefixes(self) -> bool:
        """Whether a queue's name alone may be ambiguous."""
        return len(self.prefix) > 1 or self.has_prefix_patterns

    @property
    def has_prefix_patterns(self) -> bool:
        return any(map(is_pattern, self.prefix))

    @property
    def plain_prefixes(self) -> tuple[str, ...]:
        """The prefixes that are no patterns, as they are in Redis."""
        return tuple(prefix for prefix in map(literal, self.prefix) if prefix is not None)

    @property
    def plain_queues(self) -> tuple[str, ...]:
        """The names of queues that are no patterns, as they are in Redis."""
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
        """The slot that the keys of all queues are in; None where there is no cluster."""
        return _slot(self.prefix[0]) if self.redis.cluster else None


class TargetSettings(Watched):
    """One of several; its name is the label `target` of all its metrics."""

    # No dot: the state file's name has the target's behind one.
    name: Annotated[str, Field(pattern="^[A-Za-z0-9_-]{1,63}$")]

    @property
    def named_redis(self) -> RedisSettings:
        """Its Redis, which says in messages whose it is."""
        redis = self.redis.model_copy()
        redis._target = self.name
        return redis


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
        """What holds for each target, by its name: None where there is one that has no name."""
        if not self.targets:
            return {None: self}
        file = self.events.state_file
        return {
            target.name: self.model_copy(
                update={
                    **{field: getattr(target, field) for field in Watched.model_fields},
                    "redis": target.named_redis,
                    "targets": (),
                    "events": self.events.model_copy(
                        update={"state_file": file and file.with_name(f"{file.name}.{target.name}")}
                    ),
                }
            )
            for target in self.targets
        }

    def secrets(self) -> Iterator[str]:
        """Every secret that was configured: what must never be shown."""
        of_redis = [
            secret
            for watched in (self, *self.targets)
            for secret in (watched.redis.password, watched.redis.sentinel_password)
        ]
        of_api = (self.api.jwt_secret, *(key.key for key in self.api.all_keys))
        for secret in (*of_redis, self.metrics.password, *of_api):
            if secret is not None and secret.get_secret_value():
                yield secret.get_secret_value()


@dataclass(frozen=True)
class _Leaf:
    path: str
    secret: bool

    @property
    def derived(self) -> str:
        return "EXPORTER_" + self.path.replace(".", "_").upper()

    @property
    def variable(self) -> str:
        return OPEN_ARCHIVER_NAMES.get(self.path, self.derived)


def _walk(model: type[BaseModel], under: str = "") -> Iterator[_Leaf]:
    for name, field in model.model_fields.items():
        if name.endswith("_file") and name.removesuffix("_file") in model.model_fields:
            continue  # the other form of a secret, which every secret has
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, Section):
            yield from _walk(annotation, f"{under}{name}.")
        else:
            types = (
                annotation,
                *get_args(annotation),
                *get_args(next(iter(get_args(annotation)), None)),
            )
            yield _Leaf(f"{under}{name}", SecretStr in types)


# `redis.url` is no field: each source's URL is taken apart into the fields before sources merge, so
# that an environment's REDIS_HOST still beats a file's URL.
LEAVES = {leaf.path: leaf for leaf in (*_walk(Settings), _Leaf("redis.url", secret=True))}


def names_of(path: str) -> str:
    """A setting by all its names, for a message: `redis.host (REDIS_HOST, --redis-url)`."""
    # The URL stands for the host, and is what one may have given.
    flag = FLAGS.get("redis.url" if path == "redis.host" else path)
    names = [LEAVES[path].variable, *([flag] if flag else [])]
    return f"{path} ({', '.join(names)})"


def _both(one: str, other: str) -> str:
    return f"{names_of(one)} and {names_of(other)} go together: set both or none"
