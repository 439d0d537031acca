"""The ways to Redis: a Unix socket, a client certificate, a password that changes, Sentinel."""

from __future__ import annotations

import asyncio
import os
import re
import socketserver
import subprocess
import threading
import time
from collections.abc import Coroutine, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import redis
import trustme
from pydantic import SecretStr
from redis.crc import key_slot

from exporter.collect.watcher import Watcher, watched_queues
from exporter.concurrency.request_priority import RequestPriority
from exporter.queues.snapshot import Outcome
from exporter.settings import RedisSettings, Settings, SettingsError, load
from exporter.stores import open_store
from exporter.stores.bullmq.events.follower import Follower
from exporter.stores.bullmq.events.stream_info import stream_info
from exporter.stores.redis.client import RedisReader, RedisUnavailable, scored
from exporter.stores.redis.credentials import Credentials
from tests.support.bullmq import StartWork
from tests.support.exporters import Exporter, StartExporter
from tests.support.ports import free_port
from tests.support.servers import SERVERS, Server, binary_of, running
from tests.support.tls import with_tls, write_certificate
from tests.support.waiting import eventually

pytestmark = pytest.mark.takes(seconds=20)


def waits(exporter: Exporter, jobs: int) -> bool:
    return exporter.metrics.value("bullmq_job_count", queue="mail", state="waiting") == jobs


def up(exporter: Exporter) -> float | None:
    return exporter.metrics.value("bullmq_up")


@pytest.mark.parametrize("kind", SERVERS)
def test_a_unix_socket(
    kind: str, tmp_path: Path, start_exporter: StartExporter, start_work: StartWork
) -> None:
    socket = tmp_path / "a socket"
    with running(
        kind, tmp_path, "--unixsocket", str(socket), "--requirepass", "pass/word"
    ) as server:
        with server.client(password="pass/word") as client:
            client.hset("bull:mail:meta", "version", "bullmq:5.56.3")
            client.lpush("bull:mail:wait", "1", "2")
        by_url = start_exporter(f"unix://:pass%2Fword@{str(socket).replace(' ', '%20')}")
        variables = {"EXPORTER_REDIS_SOCKET": str(socket), "REDIS_PASSWORD": "pass/word"}
        by_variable = start_exporter("", **variables)
        for exporter in (by_url, by_variable):
            assert waits(exporter, 2)
            [line] = eventually(lambda each=exporter: each.lines("starting"))
            assert line["redis"] == str(socket)
        server.stop()
        eventually(lambda: up(by_url) == 0)
        assert str(socket) in eventually(lambda: by_url.lines("Redis is unavailable"))[0]["reason"]


def test_a_client_certificate_and_the_name_of_the_servers(
    tmp_path: Path, start_exporter: StartExporter
) -> None:
    authority = trustme.CA()
    write_certificate(authority, tmp_path)
    with with_tls(tmp_path, authority, "redis.internal") as (url, _):
        trusted = {"EXPORTER_REDIS_TLS_CA": str(tmp_path / "ca.pem")}
        named = trusted | {"EXPORTER_REDIS_TLS_SERVER_NAME": "redis.internal"}
        certified = named | {
            "EXPORTER_REDIS_TLS_CERT": str(tmp_path / "mine.pem"),
            "EXPORTER_REDIS_TLS_KEY": str(tmp_path / "mine.key"),
        }
        assert up(start_exporter(url, **certified)) == 1
        without = start_exporter(url, ready=False, **named)
        eventually(lambda: without.lines("Redis is unavailable"))
        other = certified | {"EXPORTER_REDIS_TLS_SERVER_NAME": "other.internal"}
        misnamed = start_exporter(url, ready=False, **other)
        line = eventually(lambda: misnamed.lines("Redis is unavailable"))[0]
        assert "certificate was not accepted" in line["reason"]
        assert up(without) == up(misnamed) == 0


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"EXPORTER_REDIS_TLS_CERT": "x.pem"}, "set both or none"),
        ({"EXPORTER_REDIS_SENTINELS": "a:1"}, "redis.sentinel_master"),
        ({"EXPORTER_REDIS_SENTINEL_MASTER": "m"}, "redis.sentinels"),
        ({"EXPORTER_REDIS_SENTINELS": "a", "EXPORTER_REDIS_SENTINEL_MASTER": "m"}, "HOST:PORT"),
        ({"EXPORTER_REDIS_SENTINELS": ":1", "EXPORTER_REDIS_SENTINEL_MASTER": "m"}, "HOST:PORT"),
        ({"EXPORTER_REDIS_SOCKET": "/s", "REDIS_TLS_ENABLED": "true"}, "cannot be combined"),
        ({"EXPORTER_REDIS_CLUSTER": "true"}, "same hash tag"),
        ({"EXPORTER_REDIS_CLUSTER": "true", "EXPORTER_PREFIX": "{a},{b}"}, "same hash tag"),
        ({"EXPORTER_REDIS_CLUSTER": "true", "EXPORTER_REDIS_DB": "1"}, "cannot be combined"),
        ({"EXPORTER_REDIS_URL": "unix://host/s"}, "unix://"),
        ({"EXPORTER_REDIS_URL": "unix://"}, "unix://"),
    ],
)
def test_what_does_not_go_together_is_refused(variables: dict[str, str], expected: str) -> None:
    with pytest.raises(SettingsError, match=r"^[^\n]+$") as refused:
        load({}, variables)
    assert expected in str(refused.value)


def test_a_url_stands_for_socket_and_sentinels_of_other_sources(tmp_path: Path) -> None:
    file = tmp_path / "exporter.yml"
    file.write_text(
        "redis: {sentinels: 'a:1,b:2', sentinel_master: m, socket: null, password_file: x}"
    )
    (tmp_path / "secret").write_text("of the file")
    file.write_text(
        file.read_text().replace("password_file: x", f"password_file: {tmp_path}/secret")
    )
    assert str(load({}, {}, file).redis.address) == "m of the Sentinels a:1, b:2"
    by_flag = load({"redis.url": "redis://:new@h:1"}, {}, file).redis
    assert (by_flag.address, by_flag.sentinels, by_flag.password_file) == ("h:1", (), None)
    by_socket = load({"redis.url": "unix:///run/s"}, {}, file).redis
    assert (by_socket.address, by_socket.sentinels) == ("/run/s", ())
    assert load({}, {"REDIS_PASSWORD": "p"}, file).redis.password_file is None


def test_a_password_that_changes_while_it_runs(
    tmp_path: Path, start_exporter: StartExporter
) -> None:
    secret = tmp_path / "password"
    secret.write_text("the-first\n")
    with running("valkey", tmp_path, "--requirepass", "the-first") as server:
        variables = {"REDIS_PASSWORD_FILE": str(secret), "REDIS_PORT": str(server.port)}
        exporter = start_exporter("", **variables)
        with server.client(password="the-first") as client:
            client.config_set("requirepass", "the-second")
            client.client_kill_filter(_type="normal", skipme=False)
        eventually(lambda: up(exporter) == 0)
        assert (
            "password" in eventually(lambda: exporter.lines("Redis is unavailable"))[-1]["reason"]
        )
        secret.write_text("the-second\n")
        eventually(lambda: up(exporter) == 1)
        assert "the-first" not in exporter.log
        assert "the-second" not in exporter.log
        # While it is being replaced the last one is used.
        secret.unlink()
        with server.client(password="the-second") as client:
            client.client_kill_filter(_type="normal")
        eventually(lambda: exporter.lines("Redis is available again") or up(exporter) == 1)


# Files that stall: nobody writes into a FIFO, so whoever opens it to read waits for ever


def switch(link: Path, to: Path) -> None:
    """In one step, as Kubernetes does with Secrets."""
    new = link.with_name(f"{link.name}.new")
    new.symlink_to(to)
    new.replace(link)


def release(fifo: Path) -> None:
    """Let those go that wait for it: they read nothing."""

    def open_and_close() -> bool:
        os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
        return True

    eventually(open_and_close)


def connected(client: redis.Redis) -> set[str]:
    return {each["id"] for each in client.client_list() if each["name"] == "bullmq-exporter"}


def end_connections(client: redis.Redis) -> None:
    before = connected(client)
    client.client_kill_filter(_type="normal", skipme=True)
    eventually(lambda: connected(client) - before)


def assert_polls_go_on(exporter: Exporter) -> None:
    def polls() -> float:
        return exporter.metrics.value("bullmq_exporter_poll_duration_seconds_count") or 0

    before = polls()
    eventually(lambda: up(exporter) == 1 and polls() > before + 3)
    assert exporter.metrics.get("/-/healthy").status == 200


def test_a_password_file_that_stalls_holds_up_nothing(
    tmp_path: Path, start_exporter: StartExporter
) -> None:
    link, fifo, secret = (tmp_path / name for name in ("link", "fifo", "password"))
    os.mkfifo(fifo)
    secret.write_text("the-first\n")
    switch(link, secret)
    with running("valkey", tmp_path, "--requirepass", "the-first") as server:
        exporter = start_exporter(server.url, REDIS_PASSWORD_FILE=str(link))
        with server.client(password="the-first") as client:
            # The last password is used.
            switch(link, fifo)
            end_connections(client)
            assert_polls_go_on(exporter)
            client.config_set("requirepass", "the-second")
            client.client_kill_filter(_type="normal", skipme=True)
        [line] = eventually(lambda: exporter.lines("Redis is unavailable"))
        assert f"(the password file {link} does not answer); see redis.user" in line["reason"]
        assert exporter.metrics.get("/-/healthy").status == 200
        # Once it answers, it is read again.
        secret.write_text("the-second\n")
        switch(link, secret)
        release(fifo)
        assert_polls_go_on(exporter)
        switch(link, fifo)
        with server.client(password="the-second") as client:
            end_connections(client)
        assert exporter.terminate() == 0


def test_tls_files_that_stall_hold_up_nothing_and_new_ones_are_used(
    tmp_path: Path, start_exporter: StartExporter
) -> None:
    authority, other = trustme.CA(), trustme.CA()
    link, fifo = tmp_path / "link", tmp_path / "fifo"
    os.mkfifo(fifo)
    write_certificate(authority, tmp_path)
    other.cert_pem.write_to_path(tmp_path / "other.pem")
    with (
        with_tls(tmp_path, authority, "redis.internal") as (url, server),
        server.client() as client,
    ):
        switch(link, tmp_path / "ca.pem")
        exporter = start_exporter(
            url,
            EXPORTER_REDIS_TLS_CA=str(link),
            EXPORTER_REDIS_TLS_CERT=str(tmp_path / "mine.pem"),
            EXPORTER_REDIS_TLS_KEY=str(tmp_path / "mine.key"),
            EXPORTER_REDIS_TLS_SERVER_NAME="redis.internal",
        )
        switch(link, fifo)
        end_connections(client)
        assert_polls_go_on(exporter)
        # The server accepts certificates of another authority only.
        client.config_set("tls-ca-cert-file", str(tmp_path / "other.pem"))
        client.client_kill_filter(_type="normal", skipme=True)
        line = eventually(lambda: exporter.lines("Redis is unavailable"))[-1]
        assert f"(one of the TLS files {link}, " in line["reason"]
        assert "/mine.key does not answer)" in line["reason"]
        write_certificate(other, tmp_path)
        switch(link, tmp_path / "ca.pem")
        release(fifo)
        assert_polls_go_on(exporter)
        switch(link, fifo)
        end_connections(client)
        assert exporter.terminate() == 0


async def test_however_many_connect_one_read_stalls_and_its_reason_is_known(
    tmp_path: Path,
) -> None:
    file = tmp_path / "password"
    os.mkfifo(file)
    settings = RedisSettings(user="me", password=SecretStr("known"), password_file=file, timeout=1)
    credentials = Credentials(settings)

    async def log_in() -> tuple[str, ...]:
        return await credentials.get_credentials_async()

    before = set(threading.enumerate())
    assert credentials.password_problem is None
    for _ in range(2):
        assert set(await asyncio.gather(*(log_in() for _ in range(20)))) == {("me", "known")}
    [stalled] = set(threading.enumerate()) - before
    assert credentials.password_problem == f"the password file {file} does not answer"
    # What it reads in the end is used: nobody waits for it then.
    file.write_text("new\n")
    await asyncio.to_thread(stalled.join)
    file.unlink()
    assert await log_in() == ("me", "new")
    for content, problem in (
        (None, "No such file or directory"),
        (b"\n", "it is empty"),
        (b"\xff", "not UTF-8 text"),
    ):
        if content is not None:
            file.write_bytes(content)
        assert await log_in() == ("me", "new")
        assert credentials.password_problem == (
            f"the password file {file} cannot be read: {problem}"
        )
    file.write_text("newest")
    assert await log_in() == ("me", "newest")
    assert credentials.password_problem is None


async def test_tls_files_that_cannot_be_read_even_once_are_named(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(file)
    settings = RedisSettings(host="127.0.0.1", port=free_port(), tls=True, tls_ca=file, timeout=0.5)
    file.unlink()
    reader = RedisReader(settings, connections=1)
    with pytest.raises(RedisUnavailable, match=f"TLS files {file} cannot be read: No such file"):
        await reader.command("PING")
    os.mkfifo(file)
    with pytest.raises(RedisUnavailable, match=f"TLS files {file} does not answer"):
        await reader.command("PING")
    await reader.close()


async def test_a_cluster_over_tls_with_a_password_file(tmp_path: Path) -> None:
    authority = trustme.CA()
    write_certificate(authority, tmp_path)
    password = tmp_path / "password"
    password.write_text("of-redis")
    more = ("--cluster-enabled", "yes", "--cluster-port", str(free_port()), "--tls-cluster", "yes")
    with with_tls(tmp_path, authority, "redis.internal", *more, "--requirepass", "of-redis") as (
        url,
        server,
    ):
        with server.client(password="of-redis") as client:
            client.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)
            eventually(lambda: client.execute_command("CLUSTER INFO")["cluster_state"] == "ok")
        variables = {
            "EXPORTER_REDIS_URL": url,
            "EXPORTER_REDIS_CLUSTER": "true",
            "EXPORTER_PREFIX": "{bull}",
            "REDIS_PASSWORD_FILE": str(password),
            "EXPORTER_REDIS_TLS_CA": str(tmp_path / "ca.pem"),
            "EXPORTER_REDIS_TLS_CERT": str(tmp_path / "mine.pem"),
            "EXPORTER_REDIS_TLS_KEY": str(tmp_path / "mine.key"),
            "EXPORTER_REDIS_TLS_SERVER_NAME": "redis.internal",
        }
        settings = load({}, variables)
        reader = RedisReader(settings.redis, connections=1, slot=settings.cluster_slot)
        assert await reader.command("EXISTS", "{bull}:mail:meta") == 0
        await reader.close()


@pytest.mark.parametrize("kind", SERVERS)
def test_resp3_is_spoken(kind: str, tmp_path: Path, start_exporter: StartExporter) -> None:
    with running(kind, tmp_path, "--requirepass", "a-password") as server:
        with server.client(password="a-password") as client:
            client.hset("bull:mail:meta", "version", "bullmq:5.56.3")
            exporter = start_exporter(server.url, REDIS_PASSWORD="a-password")
            eventually(lambda: exporter.metrics.samples("bullmq_queue_workers"))
            listed = str(client.execute_command("CLIENT", "LIST"))
        # 6.2 speaks it as well, but does not say so.
        assert re.search(r"name=bullmq-exporter .*? resp=3", listed) or kind == "redis-6.2", listed


async def test_both_protocols_report_the_same(shared_server: Server) -> None:
    """Scores as text, maps as maps: what the servers of each protocol say is read alike."""
    scores = {"a": 1795482933152, "b": 0.1, "c": -7, "d": float("inf"), "e": 2**53 + 2, "f": 1e300}
    replies = []
    for protocol in (2, 3):
        async with redis.asyncio.Redis(port=shared_server.port, protocol=protocol) as client:
            client.response_callbacks.clear()
            await client.execute_command("DEL", "scores", "stream")
            await client.zadd("scores", scores)
            await client.xadd("stream", {"event": "added"}, id="5-1")
            row = await client.execute_command("ZRANGE", "scores", 0, -1, "WITHSCORES")
            info = await client.execute_command("XINFO", "STREAM", "stream")
            replies.append((scored(row), stream_info(info)))
    assert replies[0] == replies[1]
    assert dict(replies[0][0])[b"a"] == b"1795482933152"


async def test_who_waits_for_a_connection_gets_it_in_turn(shared_server: Server) -> None:
    # One, as of several each is as slow as its own answers.
    reader = RedisReader(RedisSettings(port=shared_server.port), connections=1)
    asked = [0] * 10
    ahead = 0

    async def client(number: int) -> None:
        nonlocal ahead
        for _ in range(50):
            await reader.command("PING")
            asked[number] += 1
            ahead = max(ahead, asked[number] - min(asked))

    await asyncio.gather(*map(client, range(len(asked))))
    await reader.close()
    assert ahead == 1


async def test_replies_to_a_beginning_that_came_late_are_nobodys(own_server: Server) -> None:
    """The server hangs while a connection begins, and answers when the next command waits."""
    reader = RedisReader(RedisSettings(port=own_server.port, timeout=1), connections=1)
    own_server.pause()
    with pytest.raises(RedisUnavailable, match="did not answer within 1 s"):
        await reader.command("PING")
    later = asyncio.create_task(reader.command("ECHO", "mine"))
    await asyncio.sleep(0.1)  # it has been sent
    own_server.resume()
    assert await later == b"mine"
    await reader.close()


class Sentinels:
    """A master with two replicas, watched by three Sentinels."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self.servers: list[Server] = []
        for number in range(3):
            (directory / f"{number}").mkdir()
            options = ["--requirepass", "of-redis", "--masterauth", "of-redis"]
            options += ["--repl-diskless-sync-delay", "0"]
            if self.servers:
                options += ["--replicaof", f"127.0.0.1 {self.servers[0].port}"]
            server = Server(binary_of("redis"), directory / f"{number}", options)
            self.servers.append(server)
            server.start()
            stack.callback(server.stop)
        self.ports = [free_port() for _ in range(3)]
        for number, port in enumerate(self.ports):
            file = directory / f"sentinel-{number}.conf"
            file.write_text(
                f"port {port}\nbind 127.0.0.1\ndir {directory}\nrequirepass of-sentinel\n"
                f"sentinel sentinel-pass of-sentinel\n"
                f"sentinel monitor mail-master 127.0.0.1 {self.servers[0].port} 2\n"
                "sentinel auth-pass mail-master of-redis\n"
                "sentinel down-after-milliseconds mail-master 3000\n"
                "sentinel failover-timeout mail-master 10000\n"
            )
            command = [binary_of("redis"), str(file), "--sentinel"]
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            stack.callback(process.wait)
            stack.callback(process.terminate)
        # They have found each other and the replicas.
        for port in self.ports:
            with redis.Redis(port=port, password="of-sentinel", decode_responses=True) as sentinel:
                # Sentinel asks for replicas every 10 seconds.
                eventually(lambda: self._knows_all(sentinel))

    @staticmethod
    def _knows_all(sentinel: redis.Redis) -> bool:
        try:
            state = sentinel.execute_command("SENTINEL", "MASTER", "mail-master")
        except redis.ConnectionError:
            return False
        pairs = (
            dict(zip(state[::2], state[1::2], strict=True)) if isinstance(state, list) else state
        )
        return int(pairs["num-slaves"]) == 2 and int(pairs["num-other-sentinels"]) == 2

    def master(self) -> Server:
        """Who is the master now, by what the servers themselves say."""

        def found() -> Server | None:
            for server in self.servers:
                try:
                    with server.client(password="of-redis") as client:
                        if client.role()[0] in (b"master", "master"):
                            return server
                except redis.ConnectionError:
                    continue
            return None

        return eventually(found)


def test_after_a_failover_the_new_master_is_read(
    tmp_path: Path, start_exporter: StartExporter
) -> None:
    with ExitStack() as stack:
        cluster = Sentinels(tmp_path, stack)
        first = cluster.master()
        with first.client(password="of-redis") as client:
            client.hset("bull:mail:meta", "version", "bullmq:5.56.3")
            client.lpush("bull:mail:wait", "1", "2")
            # Sentinel knows replicas before they have anything.
            assert client.wait(2, 20_000) == 2
        exporter = start_exporter(
            "",
            # One of them is not there: that delays nothing.
            EXPORTER_REDIS_SENTINELS=",".join(
                f"127.0.0.1:{port}" for port in (free_port(), *cluster.ports)
            ),
            EXPORTER_REDIS_SENTINEL_MASTER="mail-master",
            EXPORTER_REDIS_SENTINEL_PASSWORD="of-sentinel",
            REDIS_PASSWORD="of-redis",
        )
        assert waits(exporter, 2)
        first.stop()
        eventually(lambda: up(exporter) == 0)
        eventually(lambda: up(exporter) == 1)

        def follows() -> bool:
            # A busy machine may fail over twice, and lose what was written in between.
            with cluster.master().client(password="of-redis") as client:
                jobs = client.lpush("bull:mail:wait", "further")
            time.sleep(1)  # five polls
            return waits(exporter, int(jobs))

        eventually(follows)
        assert "of-redis" not in exporter.log
        assert "of-sentinel" not in exporter.log

        unknown = start_exporter(
            "",
            ready=False,
            EXPORTER_REDIS_SENTINELS=f"127.0.0.1:{cluster.ports[0]}",
            EXPORTER_REDIS_SENTINEL_MASTER="nobody",
            EXPORTER_REDIS_SENTINEL_PASSWORD="of-sentinel",
        )
        line = eventually(lambda: unknown.lines("Redis is unavailable"))[0]
        assert "no Sentinel knows a master 'nobody'" in line["reason"]


def test_a_sentinel_that_still_names_a_replica_is_not_believed(
    tmp_path: Path, start_exporter: StartExporter
) -> None:
    with running("redis", tmp_path) as master, ExitStack() as stack:
        (tmp_path / "replica").mkdir()
        replica = stack.enter_context(
            running("redis", tmp_path / "replica", "--replicaof", f"127.0.0.1 {master.port}")
        )
        with master.client() as client:
            client.hset("bull:mail:meta", "version", "bullmq:5.56.3")
            assert client.wait(1, 20_000) == 1
            # A server that answers as a Sentinel which is behind does.
            names = stack.enter_context(speaking_for(replica.port))
            exporter = start_exporter(
                "",
                ready=False,
                EXPORTER_REDIS_SENTINELS=f"127.0.0.1:{names}",
                EXPORTER_REDIS_SENTINEL_MASTER="mail-master",
            )
            line = eventually(lambda: exporter.lines("Redis is unavailable"))[0]
            assert f"127.0.0.1:{replica.port} is no longer a master" in line["reason"]
            assert up(exporter) == 0
            with replica.client() as promoted:
                promoted.replicaof("NO", "ONE")
            eventually(lambda: up(exporter) == 1)


@contextmanager
def speaking_for(port: int) -> Iterator[int]:
    """The port of what says to each question of a Sentinel's client that the master is there."""

    class Answering(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while line := self.rfile.readline():
                words = [self._word() for _ in range(int(line[1:]))]
                if words[0].upper() == b"HELLO":
                    self.wfile.write(b"-ERR unknown command\r\n")
                else:
                    self.wfile.write(
                        b"*2\r\n$9\r\n127.0.0.1\r\n$%d\r\n%d\r\n" % (len(str(port)), port)
                    )

        def _word(self) -> bytes:
            length = int(self.rfile.readline()[1:])
            return self.rfile.read(length + 2)[:-2]

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Answering) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield int(server.server_address[1])
        server.shutdown()
        thread.join()


class Cluster:
    """Three nodes, each with a replica."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self.nodes: list[Server] = []
        for number in range(6):
            (directory / f"{number}").mkdir()
            options = ["--cluster-enabled", "yes", "--cluster-node-timeout", "6000"]
            # Otherwise a port 10,000 above, which another process may have.
            options += ["--cluster-port", str(free_port()), "--repl-diskless-sync-delay", "0"]
            node = Server(binary_of("redis"), directory / f"{number}", options)
            self.nodes.append(node)
            node.start()
            stack.callback(node.stop)
        addresses = [f"127.0.0.1:{node.port}" for node in self.nodes]
        create = ["redis-cli", "--cluster", "create", *addresses, "--cluster-replicas", "1"]
        subprocess.run([*create, "--cluster-yes"], check=True, capture_output=True)
        eventually(lambda: all(self._is_whole(node) for node in self.nodes))

    @staticmethod
    def _is_whole(node: Server) -> bool:
        with node.client() as client:
            state = client.execute_command("CLUSTER INFO")
            slots = client.execute_command("CLUSTER", "SLOTS")
        # First and last slot, the primary, its replica.
        return state["cluster_state"] == "ok" and all(len(each) == 4 for each in slots)

    def owner(self, slot: int) -> Server:
        """The node that has a slot, by what those say that live."""

        def found() -> Server | None:
            for node in self.nodes:
                try:
                    with node.client() as client:
                        slots = client.execute_command("CLUSTER", "SLOTS")
                except redis.ConnectionError:
                    continue
                for first, last, primary, *_ in slots:
                    if first <= slot <= last:
                        port = int(primary[1])
                        return next(each for each in self.nodes if each.port == port)
            return None

        return eventually(found)


def test_a_cluster_whose_slot_moves_and_whose_node_dies(
    tmp_path: Path, start_exporter: StartExporter
) -> None:
    with ExitStack() as stack:
        cluster = Cluster(tmp_path, stack)
        slot = key_slot(b"{bull}")
        owner = cluster.owner(slot)
        with owner.client() as client:
            client.hset("{bull}:mail:meta", "version", "bullmq:5.56.3")
            client.lpush("{bull}:mail:wait", "1", "2")
            client.hset("{bull}:mail:1", "name", "send")
            client.xadd("{bull}:mail:events", {"event": "waiting", "jobId": "1"})
        others = [node for node in cluster.nodes if node is not owner]
        settings = {"EXPORTER_REDIS_CLUSTER": "true", "EXPORTER_PREFIX": "{bull}"}
        # By a node that does not have the slot.
        exporter = start_exporter(others[0].url, **settings)
        assert waits(exporter, 2)
        assert exporter.metrics.value("bullmq_exporter_unreadable_values") == 0
        assert exporter.metrics.value("bullmq_queue_workers", queue="mail") is None
        [line] = eventually(
            lambda: exporter.lines("workers and heartbeats are not read in a cluster")
        )
        assert "BullMQNoWorker and BullMQWorkerHeartbeatGone cannot fire" in line["detail"]
        assert exporter.api.get("/v1/jobs/queues/mail/jobs/1").status == 200

        # Without knowing that it is a cluster it says so, rather than that there are no queues.
        untold = start_exporter(
            others[0].url, ready=False, EXPORTER_PREFIX="{bull}", EXPORTER_QUEUES="mail"
        )
        line = eventually(lambda: untold.lines("Redis is unavailable"))[0]
        assert "is a node of a cluster; set redis.cluster" in line["reason"]

        # The slot moves to another node, with all its keys.
        with owner.client() as client:
            owners = {each[2][1] for each in client.execute_command("CLUSTER", "SLOTS")}
        to = next(node for node in others if node.port in owners)
        move_slot(slot, owner, to, cluster.nodes)
        with to.client() as client:
            client.lpush("{bull}:mail:wait", "3")
            client.wait(1, 10_000)
        eventually(lambda: waits(exporter, 3))
        assert exporter.api.get("/v1/jobs/queues/mail?status=waiting").status == 200

        # Its new node dies, and the replica takes over.
        to.stop()
        eventually(lambda: up(exporter) == 0)
        eventually(lambda: up(exporter) == 1)
        assert waits(exporter, 3)


def move_slot(slot: int, source: Server, target: Server, nodes: list[Server]) -> None:
    """As redis-cli reshards."""

    def identity(node: Server) -> str:
        with node.client() as client:
            return str(client.execute_command("CLUSTER MYID"), "ascii")

    with source.client() as one, target.client() as other:
        other.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", identity(source))
        one.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", identity(target))
        while keys := one.execute_command("CLUSTER GETKEYSINSLOT", slot, 100):
            one.execute_command("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
        for node in (target, source, *nodes):
            with node.client() as client, suppress(redis.ResponseError):  # replicas follow
                client.execute_command("CLUSTER SETSLOT", slot, "NODE", identity(target))


async def first_pauses(
    monkeypatch: pytest.MonkeyPatch, run: Coroutine[Any, Any, None]
) -> list[float]:
    """The first 50 pauses that it makes, none of which is waited for."""
    pauses: list[float] = []
    enough, passing = asyncio.Event(), asyncio.sleep

    async def sleep(seconds: float) -> None:
        if seconds:
            pauses.append(seconds)
        if len(pauses) >= 50:
            enough.set()
            await asyncio.Event().wait()
        await passing(0)

    with monkeypatch.context() as patched:
        patched.setattr(asyncio, "sleep", sleep)
        task = asyncio.create_task(run)
        async with asyncio.timeout(180):
            await enough.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    return pauses


@pytest.mark.parametrize(("poll_interval", "longest"), [(0.5, 5.0), (300.0, 300.0)])
async def test_no_pause_between_two_attempts_is_longer_than_promised(
    monkeypatch: pytest.MonkeyPatch, poll_interval: float, longest: float
) -> None:
    """However long the outage is: docs/reliability.md says that it ends within 10 seconds."""
    redis_settings = RedisSettings(host="127.0.0.1", port=free_port())
    settings = Settings(redis=redis_settings, queues=("q",), poll_interval=poll_interval)
    outcomes: list[Outcome] = []

    async def publish(outcome: Outcome) -> None:
        outcomes.append(outcome)

    watched = watched_queues(settings)
    store = open_store(settings, watched, RequestPriority())
    reader = RedisReader(redis_settings, connections=1)
    follower = Follower(
        reader, settings.events, lambda: watched.queues, redis_timeout=redis_settings.timeout
    )
    watcher = Watcher(store, watched, settings, publish)
    for run, limit in ((watcher.run(), longest), (follower.run(), 5.0)):
        pauses = await first_pauses(monkeypatch, run)
        # The first attempts come soon, and all are some time apart.
        assert pauses[0] <= 0.25
        assert min(pauses) >= 0.125
        assert limit / 2 <= max(pauses) <= limit
    assert len(outcomes) == 50 and not any(outcome.snapshot for outcome in outcomes)
    await asyncio.gather(store.close(), reader.close())
