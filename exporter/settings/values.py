"""Types of single values: what is allowed, and the error message for everything else.

Nothing here or in `exporter.settings.model` reads a file or uses the network.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from exporter.settings.names import names_of


class Address(NamedTuple):
    """Where to listen; port 0 is any free port, an empty host is every address."""

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


def _is_ipv6(text: str) -> bool:
    try:
        IPv6Address(text)
    except ValueError:
        return False
    return True


def _host(value: str) -> str:
    if "/" in value or "@" in value:
        raise ValueError(
            "must be only a name or an address, without / and @; put a URL in "
            f"{names_of('redis.url')}"
        )
    return value


def _postgres_host(value: str) -> str:
    if "@" in value or ("/" in value and not value.startswith("/")):
        raise ValueError(
            "must be only a name or an address, or the absolute path of a socket's directory; "
            f"put a URL in {names_of('postgres.url')}"
        )
    return value


def _schema_name(value: str) -> str:
    # As BullMQ does (migrator.js of 6.7.0: quoteSchemaName).
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_$]{0,62}", value):
        raise ValueError(
            "must be a letter or _ followed by letters, digits, _ or $, at most 63 characters"
        )
    return value


def socket_path(value: Any) -> Any:
    """Reject a URL, which may contain a password, as the path of a socket."""
    if isinstance(value, str) and "://" in value:
        raise ValueError(f"must be a path; put a URL in {names_of('redis.url')}")
    return value


def comma_list(value: Any) -> Any:
    """The parts of a comma-separated text; anything else unchanged."""
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


# An escaped special character of patterns, which stands for itself.
ESCAPED = re.compile(r"\[([*?[])\]")


def is_pattern(value: str) -> bool:
    """Whether a prefix or a queue's name is a pattern like that of file names: `mail-*`, `[ab]*`.

    Braces are literal; `[*]` is a literal asterisk.
    """
    return literal(value) is None


def literal(value: str) -> str | None:
    """The literal text of a prefix or a queue's name; None for a pattern."""
    if any(special in ESCAPED.sub("", value) for special in "*?["):
        return None
    return ESCAPED.sub(r"\1", value)


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


def _buckets(value: tuple[float, ...]) -> tuple[float, ...]:
    if list(value) != sorted(set(value)) or any(round(bound, 3) != bound for bound in value):
        raise ValueError("must be seconds in increasing order, in whole milliseconds: 0.05, 0.1, 1")
    return value


Listen = Annotated[Address, BeforeValidator(_address)]
Host = Annotated[str, Field(min_length=1), AfterValidator(_host)]
PostgresHost = Annotated[str, Field(min_length=1), AfterValidator(_postgres_host)]
SchemaName = Annotated[str, AfterValidator(_schema_name)]
Port = Annotated[int, Field(ge=1, le=65_535)]
NonEmpty = Annotated[str, Field(min_length=1)]
Prefix = Annotated[str, AfterValidator(_prefix)]
QueueName = Annotated[str, AfterValidator(_queue_name)]
Origin = Annotated[str, AfterValidator(_origin)]
ValueKind = Literal["tokens", "mail_addresses", "url_credentials"]
Network = Annotated[IPv4Network | IPv6Network, BeforeValidator(_network)]
Permission = Annotated[str, AfterValidator(_permission)]
Seconds = Annotated[float, Field(ge=0.1, le=86_400)]
# An empty secret would turn off a check, so it is rejected. To set none, use `null` or omit the
# key.
Secret = Annotated[SecretStr, Field(min_length=1)]
LongSecret = Annotated[SecretStr, Field(min_length=16)]
Count = Annotated[int, Field(ge=1, le=1_000_000_000)]
Buckets = Annotated[
    tuple[Annotated[float, Field(ge=0.001, le=31_536_000, allow_inf_nan=False)], ...],
    BeforeValidator(comma_list),
    AfterValidator(_buckets),
    Field(min_length=1, max_length=50),
]
