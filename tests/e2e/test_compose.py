"""The compose files: rendered by Docker Compose, and what they start, in a network of its own."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.bullmq import StartWork
from tests.support.exporters import clean_environment
from tests.support.paths import ROOT
from tests.support.postgres import Database, PostgresServer
from tests.support.programs import DOCKER_COMPOSE, needs_root, newest, program
from tests.support.readme import security_role
from tests.support.rules import rules
from tests.support.servers import binary_of
from tests.support.waiting import eventually

CONFIG = ROOT / "config"
# What of Open Archiver's .env.example matters here (packages and passwords as they stand there).
ENV = """\
PORT_FRONTEND=3000
APP_URL=http://localhost:3000
ORIGIN=$APP_URL
SYNC_FREQUENCY='* * * * *'
REDIS_HOST=valkey
REDIS_PORT=6379
REDIS_PASSWORD=of-the-compose-test
REDIS_TLS_ENABLED=false
JWT_SECRET=a-very-secret-key-that-you-should-change
"""
Rendered = dict[str, Any]


# What the role of SECURITY.md is given as its password.
PASSWORD = "of-the-compose-test"
POSTGRES_ENV = f"{ENV}POSTGRES_DB=open_archive\nEXPORTER_POSTGRES_PASSWORD={PASSWORD}\n"
IN_POSTGRES = ("compose.yml", "compose.postgres.yml")


def compose_config(
    directory: Path, variables: str, files: Sequence[str]
) -> subprocess.CompletedProcess[str]:
    env = directory / ".env"
    env.write_text(variables)
    compose = [newest(DOCKER_COMPOSE), "--env-file", str(env)]
    for file in files:
        compose += ["--file", str(CONFIG / file)]
    return subprocess.run(
        [*compose, "config", "--format=json"],
        env={"PATH": "", "HOME": str(directory)},
        capture_output=True,
        text=True,
        check=False,
    )


def render(directory: Path, variables: str, files: Sequence[str] = ("compose.yml",)) -> Rendered:
    """What Docker Compose makes of the files."""
    done = compose_config(directory, variables, files)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, "it warns of nothing"
    return dict(json.loads(done.stdout))


@pytest.fixture
def rendered(tmp_path: Path) -> Rendered:
    return render(tmp_path, ENV)


def test_compose_takes_open_archivers_env_and_needs_none_of_it(tmp_path: Path) -> None:
    given = render(tmp_path, ENV)["services"]["bullmq-exporter"]["environment"]
    assert given["REDIS_PASSWORD"] == "of-the-compose-test"
    assert given["JWT_SECRET"] == "a-very-secret-key-that-you-should-change"
    bare = render(tmp_path, "")
    assert bare["services"]["bullmq-exporter"]["environment"] == {
        "REDIS_HOST": "valkey",
        "REDIS_PORT": "6379",
        "REDIS_USER": "",
        "REDIS_PASSWORD": "defaultredispassword",
        "REDIS_TLS_ENABLED": "false",
        "JWT_SECRET": "",
        "EXPORTER_API_KEY": "",
        "EXPORTER_EVENTS_STATE_FILE": "/var/lib/bullmq-exporter/state",
    }
    # The name that Docker Compose gives the network of a clone of Open Archiver.
    assert bare["networks"]["redis"]["name"] == "openarchiver_open-archiver-net"


def test_with_postgres_nothing_of_redis_is_left_and_the_password_has_to_be_there(
    tmp_path: Path,
) -> None:
    given = render(tmp_path, POSTGRES_ENV, IN_POSTGRES)
    redis = render(tmp_path, ENV)
    exporter, with_redis = (each["services"]["bullmq-exporter"] for each in (given, redis))
    assert exporter["environment"] == {
        "EXPORTER_POSTGRES_HOST": "postgres",
        "EXPORTER_POSTGRES_PORT": "5432",
        "EXPORTER_POSTGRES_DATABASE": "open_archive",
        "EXPORTER_POSTGRES_SCHEMA_NAME": "bullmq",
        "EXPORTER_POSTGRES_USER": "exporter",
        "EXPORTER_POSTGRES_PASSWORD": PASSWORD,
        "EXPORTER_POSTGRES_TLS": "false",
        "JWT_SECRET": "a-very-secret-key-that-you-should-change",
        "EXPORTER_API_KEY": "",
        "EXPORTER_EVENTS_STATE_FILE": "/var/lib/bullmq-exporter/state",
    }
    assert exporter["networks"].keys() == {"default", "postgres"}
    assert given["networks"].keys() == {"default", "postgres"}
    assert given["networks"]["postgres"]["name"] == "openarchiver_open-archiver-net"
    # All else is as without it.
    for its in (exporter, with_redis):
        del its["environment"], its["networks"]
    assert given["services"] == redis["services"]

    without = compose_config(tmp_path, ENV, IN_POSTGRES)
    assert without.returncode != 0
    assert "EXPORTER_POSTGRES_PASSWORD" in without.stderr
    assert "of the role that can only read, see SECURITY.md" in without.stderr


def test_every_file_that_is_mounted_is_there_and_nothing_is_open_to_others(
    rendered: Rendered,
) -> None:
    for name, service in rendered["services"].items():
        for port in service.get("ports", []):
            assert port["host_ip"] == "127.0.0.1", name
        for volume in service["volumes"]:
            assert volume["type"] == "volume" or Path(volume["source"]).is_dir()
            assert volume["type"] == "volume" or volume["read_only"]
    exporter = rendered["services"]["bullmq-exporter"]
    assert Path(exporter["build"]["context"]) == ROOT
    assert exporter["read_only"]
    assert exporter["cap_drop"] == ["ALL"]


def test_grafana_finds_its_dashboards_its_prometheus_and_the_way_to_jobs(
    rendered: Rendered,
) -> None:
    services = rendered["services"]
    mounted = {volume["target"]: volume["source"] for volume in services["grafana"]["volumes"]}
    provisioning = Path(mounted["/etc/grafana/provisioning"])
    provider = yaml.safe_load((provisioning / "dashboards" / "bullmq.yml").read_text())
    [path] = [each["options"]["path"] for each in provider["providers"]]
    assert (Path(mounted[path]) / "bullmq-overview.json").exists()
    home = services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == f"{path}/bullmq-overview.json"
    sources = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())
    [url] = [each["url"] for each in sources["datasources"]]
    assert url == "http://prometheus:9090"
    [links] = [rule["labels"] for rule in rules() if rule.get("record") == "bullmq:links"]
    published = {
        f"http://localhost:{port['published']}": name
        for name, service in services.items()
        for port in service["ports"]
    }
    assert published[links["jobs"]] == "bullmq-exporter"
    assert published[links["dashboards"]] == "grafana"


def test_its_prometheus_is_configured_as_the_one_without_compose(rendered: Rendered) -> None:
    content = rendered["configs"]["prometheus"]["content"]
    here = re.sub(r"bullmq-exporter(?=:)|alertmanager(?=:\d)", "localhost", content)
    assert yaml.safe_load(here) == yaml.safe_load(
        (CONFIG / "prometheus/prometheus.yml").read_text()
    )


AS_NOBODY = "--reuid=nobody --regid=nogroup --clear-groups"
LOOPBACK = """
import fcntl, socket, struct
with socket.socket() as sock:  # SIOCSIFFLAGS, IFF_UP
    fcntl.ioctl(sock, 0x8914, struct.pack("16sh14x", b"lo", 1))
"""


class Network:
    """Processes that see but each other, under the names and ports that compose gives them.

    Prometheus and Alertmanager are Debian's, in its file tree: commands and mounts are those of
    the compose file.
    """

    def __init__(self, directory: Path, rendered: Rendered, store: str, store_command: str) -> None:
        self._directory = directory
        self._rendered = rendered
        hosts = directory / "hosts"
        hosts.write_text(f"127.0.0.1 localhost {store} {' '.join(rendered['services'])}\n")
        lines = [
            f"{sys.executable} -c {shlex.quote(LOOPBACK)}",
            f"mount --bind {hosts} /etc/hosts",
            f"{store_command} >/dev/null &",
            self._exporter(),
            self._in_debian("prometheus", "/usr/bin/prometheus"),
            self._in_debian("alertmanager", "/usr/bin/prometheus-alertmanager"),
            "wait",
        ]
        command = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child"]
        self._log = directory / "log"
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [*command, "sh", "-ec", "\n".join(lines)],
                env=clean_environment(),
                stderr=log,
                start_new_session=True,
            )

    def _exporter(self) -> str:
        state = self._directory / "state"
        state.mkdir()
        variables = self._rendered["services"]["bullmq-exporter"]["environment"] | {
            # The volume, which has another path here.
            "EXPORTER_EVENTS_STATE_FILE": str(state / "state"),
            "EXPORTER_API_KEY": "a-key-for-the-compose-test",
        }
        given = [f"{name}={value}" for name, value in variables.items()]
        return f"{shlex.join(['env', *given, sys.executable, '-m', 'exporter'])} &"

    def _in_debian(self, name: str, binary: str) -> str:
        service = self._rendered["services"][name]
        place = self._directory / name
        files = place / "files"
        for folder in ("upper", "work", "files"):
            (place / folder).mkdir(parents=True)
        lower = Path(newest("prometheus")).parents[2]
        lines = [
            f"mount -t overlay overlay -o lowerdir={lower},upperdir={place}/upper,"
            f"workdir={place}/work {files}",
            # What Debian's installer would have linked.
            f"ln -s usr/lib {files}/lib && ln -s usr/lib64 {files}/lib64",
            f"touch {files}/etc/hosts && mount --bind /etc/hosts {files}/etc/hosts",
        ]
        for config in service.get("configs", []):
            content = self._rendered["configs"][config["source"]]["content"]
            (place / "config").write_text(content)
            lines += [f"mkdir -p $(dirname {files}{config['target']})"]
            lines += [f"cp {place}/config {files}{config['target']}"]
        for volume in service["volumes"]:
            lines += [f"mkdir -p {files}{volume['target']}"]
            if volume["type"] == "bind":
                lines += [f"mount --bind {volume['source']} {files}{volume['target']}"]
        return "\n".join(lines) + f"\nchroot {files} {shlex.join([binary, *service['command']])} &"

    def curl(self, url: str, *arguments: str) -> Any:
        """The JSON that is answered there."""
        network = Path(f"/proc/{self._process.pid}/ns/net")
        assert network.readlink() != Path("/proc/self/ns/net").readlink(), "not begun"
        command = ["nsenter", f"--net={network}", program("curl", "curl"), "-sf", *arguments, url]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{url}: {done.stdout}{self._log.read_text()}"
        return json.loads(done.stdout)

    def end(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


KEY = ("-H", "X-API-KEY: a-key-for-the-compose-test")


def queues_of(network: Network) -> Any:
    return network.curl("http://localhost:9539/v1/jobs/queues", *KEY)["queues"]


def test_the_stack_reads_a_valkey_with_open_archivers_password(
    rendered: Rendered, tmp_path: Path
) -> None:
    needs_root("makes a network and mounts")
    valkey = f"{binary_of('valkey')} --requirepass of-the-compose-test --save ''"
    network = Network(tmp_path, rendered, "valkey", valkey)
    try:
        assert eventually(lambda: [queues_of(network)]) == [[]]

        def prometheus(path: str) -> Any:
            return network.curl(f"http://localhost:9090/api/v1/{path}")["data"]

        def up() -> Any:
            return prometheus("query?query=bullmq_up")["result"]

        [sample] = eventually(up)
        assert sample["metric"]["instance"] == "bullmq-exporter:9538"
        assert sample["value"][1] == "1"
        groups = prometheus("rules")["groups"]
        assert sum(len(group["rules"]) for group in groups) == len(rules())
        assert {rule["health"] for group in groups for rule in group["rules"]} <= {"ok", "unknown"}
        [active] = eventually(lambda: prometheus("alertmanagers")["activeAlertmanagers"])
        assert active["url"] == "http://alertmanager:9093/api/v2/alerts"
        status = network.curl("http://localhost:9093/api/v2/status")
        assert "receiver: morning" in status["config"]["original"]
    finally:
        network.end()


def test_the_stack_reads_a_postgres_with_the_role_of_the_documents(
    own_postgres: PostgresServer, start_work: StartWork, tmp_path: Path
) -> None:
    needs_root("makes a network and mounts")
    Database(own_postgres, "postgres").execute("CREATE DATABASE open_archive TEMPLATE with_bullmq")
    archive = Database(own_postgres, "open_archive")
    archive.execute(security_role("exporter", PASSWORD))
    work = start_work("bullmq6", archive.url)
    work.add("ingestion", "sync", 3, {})
    work.close()
    own_postgres.stop()

    # As its image has it, other hosts need a password.
    access = own_postgres.directory / "data" / "pg_hba.conf"
    access.write_text("host all all all scram-sha-256\n")
    rendered = render(tmp_path, POSTGRES_ENV, IN_POSTGRES)
    command = own_postgres.command(port=5432)
    network = Network(tmp_path, rendered, "postgres", f"setpriv {AS_NOBODY} {shlex.join(command)}")
    try:
        [queue] = eventually(lambda: queues_of(network))
        assert (queue["name"], queue["counts"]["waiting"]) == ("ingestion", 3)
    finally:
        network.end()
