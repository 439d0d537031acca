"""Servers with TLS, and certificates."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trustme

from tests.support.ports import free_port
from tests.support.servers import Server, running


@contextmanager
def with_tls(
    directory: Path, authority: trustme.CA, name: str, *more: str
) -> Iterator[tuple[str, Server]]:
    """A Redis that wants a client's certificate, and has one itself for `name`; its address first.

    Its other port speaks without TLS.
    """
    made = authority.issue_cert(name)
    made.private_key_pem.write_to_path(directory / "server.key")
    made.cert_chain_pems[0].write_to_path(directory / "server.pem")
    authority.cert_pem.write_to_path(directory / "ca.pem")
    port = free_port()
    options = ("--tls-port", str(port), "--tls-auth-clients", "yes")
    for option, file in (("cert", "server.pem"), ("key", "server.key"), ("ca-cert", "ca.pem")):
        options += (f"--tls-{option}-file", str(directory / file))
    with running("redis", directory, *options, *more) as server:
        yield f"rediss://127.0.0.1:{port}", server


def write_certificate(authority: trustme.CA, directory: Path) -> None:
    """The exporter's own."""
    mine = authority.issue_cert("exporter.internal")
    mine.private_key_pem.write_to_path(directory / "mine.key")
    mine.cert_chain_pems[0].write_to_path(directory / "mine.pem")
