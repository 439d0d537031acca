"""What is used of redis-py that its documentation does not promise."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from redis.asyncio import ConnectionPool
from redis.asyncio.connection import Connection, UnixDomainSocketConnection

from exporter.stores.redis import connections

# Methods that stores/redis/connections.py overrides or calls, and the parameters that it passes.
OVERRIDDEN: dict[str, tuple[str, ...]] = {
    "_connect": (),
    "on_connect_check_health": ("check_health",),
    "read_response": (),
}
CALLED: dict[str, tuple[str, ...]] = {
    "disconnect": ("nowait",),
    "send_command": ("args", "kwargs"),
    "send_packed_command": ("command", "check_health"),
}


def test_a_connection_over_tcp_says_how_it_is_opened() -> None:
    assert Connection(host="h", port=1)._connection_arguments().keys() >= {"host", "port"}


@pytest.mark.parametrize("kind", [Connection, UnixDomainSocketConnection])
@pytest.mark.parametrize(("name", "parameters"), [*OVERRIDDEN.items(), *CALLED.items()])
def test_a_connection_has_this_method(kind: Any, name: str, parameters: tuple[str, ...]) -> None:
    method = getattr(kind, name)
    assert set(parameters) <= set(inspect.signature(method).parameters)
    assert inspect.iscoroutinefunction(method)


def test_a_connection_reads_from_an_asyncio_stream_and_parses_errors() -> None:
    connection = Connection(host="127.0.0.1", port=1)
    assert connection._reader is None
    error = connection._parser.parse_error("LOADING Redis is loading the dataset in memory")
    assert type(error).__name__ == "BusyLoadingError"


def test_a_pool_makes_each_kind_of_connection_with_its_own_options() -> None:
    for kind in (
        connections._ResolvedTcpConnection,
        connections._ResolvedTlsConnection,
        connections._SocketConnection,
        connections._TcpConnection,
        connections._TlsConnection,
    ):
        pool = ConnectionPool(connection_class=kind)
        assert pool.connection_class is kind
        # Ours come before those of redis-py.
        order = [each.__name__ for each in kind.__mro__]
        assert order.index("_Resp3Handshake") < order.index("AbstractConnection")
