"""The health check of the image asks the exporter that runs, whatever has configured it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest
import trustme

from tests.support.exporters import Exporter, StartExporter, clean_environment
from tests.support.ports import free_port
from tests.support.programs import needs_root
from tests.support.waiting import eventually

PYTHON_MODULE = (sys.executable, "-m", "exporter")
CONSOLE_SCRIPT = (str(Path(sys.executable).parent / "bullmq-exporter"),)
HEALTHY = (0, "healthy\n", "")


def check(*flags: str, enter: Sequence[str] = (), **variables: str) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of a health check."""
    ended = subprocess.run(
        [*enter, sys.executable, "-m", "exporter.healthcheck", *flags],
        env=clean_environment(**variables),
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    return ended.returncode, ended.stdout, ended.stderr


class Container:
    """Processes that see each other alone, as in a container: with /proc and process ids of their
    own. The network is that of the tests.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._first: subprocess.Popen[str] | None = None
        self._stack = ExitStack()
        self._count = 0

    def close(self) -> None:
        self._stack.close()

    def start(
        self, *flags: str, command: tuple[str, ...] = PYTHON_MODULE, **variables: str
    ) -> Exporter:
        """An exporter whose API has a free port; the first one has the process id 1."""
        self._count += 1
        log = self._directory / f"exporter-{self._count}.log"
        environment = clean_environment(EXPORTER_LOG_FORMAT="json", **variables)
        arguments = [*command, "--api-listen", "127.0.0.1:0", *flags]
        with log.open("w") as stderr:
            process = subprocess.Popen(
                [*self._enter(), *arguments],
                stderr=stderr,
                env=environment,
                cwd=self._directory,
                text=True,
            )
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        self._first = self._first or process
        return Exporter(process, log)

    def _enter(self) -> list[str]:
        if self._first is None:
            return ["unshare", "--pid", "--mount-proc", "--fork", "--kill-child"]
        return ["nsenter", "--target", str(self.first_id), "--pid", "--mount"]

    @property
    def first_id(self) -> int:
        """The process 1 of the container, as the tests see it."""
        assert self._first is not None
        parent = self._first.pid
        children = Path(f"/proc/{parent}/task/{parent}/children")
        return int(eventually(lambda: children.read_text().split())[0])

    def check(self, *flags: str, **variables: str) -> tuple[int, str, str]:
        """A health check inside."""
        return check(*flags, enter=self._enter(), **variables)


@pytest.fixture
def container(tmp_path: Path) -> Iterator[Container]:
    needs_root("makes a namespace of process ids")
    made = Container(tmp_path)
    yield made
    made.close()


@pytest.fixture
def address() -> str:
    return f"127.0.0.1:{free_port()}"


@pytest.mark.parametrize("command", [PYTHON_MODULE, CONSOLE_SCRIPT], ids=["module", "script"])
def test_an_exporter_with_flags_is_healthy(
    command: tuple[str, ...], container: Container, address: str
) -> None:
    container.start(f"--metrics-listen={address}", command=command)
    assert container.check() == HEALTHY


def test_an_exporter_with_variables_is_healthy_also_if_they_are_not_those_of_the_check(
    container: Container, address: str
) -> None:
    user = {"EXPORTER_METRICS_USER": "reader", "EXPORTER_METRICS_PASSWORD": "a-long-password"}
    container.start(EXPORTER_METRICS_LISTEN=address, **user)
    assert container.check() == HEALTHY
    assert container.check(EXPORTER_METRICS_LISTEN="127.0.0.1:1") == HEALTHY


def test_an_exporter_with_a_file_is_healthy(
    container: Container, address: str, tmp_path: Path
) -> None:
    text = f'metrics:\n  tls_cert: null\n  tls_key: ~\n  listen: "{address}"\n'
    (tmp_path / "exporter.yml").write_text(text)
    container.start("--config", "exporter.yml")  # found in the exporter's directory
    assert container.check() == HEALTHY


def test_flags_win_over_variables_and_those_over_the_file(
    container: Container, address: str, tmp_path: Path
) -> None:
    (tmp_path / "exporter.yml").write_text("metrics: {listen: ':1'}")
    other = f"127.0.0.1:{free_port()}"
    container.start("--config", "exporter.yml", EXPORTER_METRICS_LISTEN=address)
    assert container.check() == HEALTHY
    config = str(tmp_path / "exporter.yml")
    assert container.check("--config", config, EXPORTER_METRICS_LISTEN=address) == HEALTHY
    named = container.check("--metrics-listen", other, EXPORTER_METRICS_LISTEN=address)
    assert named == (1, "", f"unhealthy: {other}: Connection refused\n")


@pytest.mark.parametrize("listen", [":{}", "0.0.0.0:{}", "[::]:{}", "[::1]:{}", "localhost:{}"])
def test_every_kind_of_address_is_reached(listen: str, start_exporter: StartExporter) -> None:
    address = listen.format(free_port())
    start_exporter("", "--metrics-listen", address, ready=False)
    assert check("--metrics-listen", address) == HEALTHY


@pytest.mark.parametrize("source", ["variables", "file"])
def test_a_certificate_of_any_authority_and_name_will_do(
    source: str, container: Container, address: str, tmp_path: Path
) -> None:
    issued = trustme.CA().issue_cert("metrics.example")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    if source == "file":
        (tmp_path / "exporter.yml").write_text(
            f"metrics: {{listen: '{address}', tls_cert: cert.pem, tls_key: key.pem}}"
        )
        exporter = container.start("--config", "exporter.yml")
    else:
        exporter = container.start(
            EXPORTER_METRICS_LISTEN=address,
            EXPORTER_METRICS_TLS_CERT="cert.pem",
            EXPORTER_METRICS_TLS_KEY="key.pem",
        )
    assert exporter.metrics.url == f"https://{address}"
    assert container.check() == HEALTHY


def test_an_exporter_that_hangs_is_unhealthy(container: Container, address: str) -> None:
    container.start("--metrics-listen", address)
    os.kill(container.first_id, signal.SIGSTOP)
    status, _, said = container.check()
    assert status == 1
    assert said.startswith("unhealthy: ")
    assert len(said.splitlines()) == 1
    os.kill(container.first_id, signal.SIGCONT)
    assert container.check() == HEALTHY


def test_port_0_is_refused_because_only_the_log_says_which_one_that_is(
    container: Container,
) -> None:
    container.start("--metrics-listen", "127.0.0.1:0")
    status, _, said = container.check()
    assert status == 1
    assert said.startswith("unhealthy: metrics.listen has port 0, which takes any free port")


def test_one_of_several_exporters_has_to_be_named(container: Container, address: str) -> None:
    container.start("--metrics-listen", f"127.0.0.1:{free_port()}")
    container.start("--metrics-listen", address)
    status, _, said = container.check()
    assert status == 1
    assert said.startswith("unhealthy: several exporters run here (processes 1, ")
    assert said.endswith("name one by --metrics-listen or --config\n")
    assert container.check("--metrics-listen", address) == HEALTHY


def test_settings_that_are_wrong_are_not_repeated(tmp_path: Path) -> None:
    status, _, said = check("--metrics-listen", "user:hunter2@h:1")
    assert (status, said) == (1, "unhealthy: metrics.listen is not HOST:PORT\n")
    assert check("--metrics-port", "1")[0] == 1
    wrong = tmp_path / "wrong.yml"
    wrong.write_text("metrics: {password: *hunter2")
    os.mkfifo(tmp_path / "fifo")
    for name, reason in (
        ("missing.yml", f"{tmp_path}/missing.yml: No such file or directory"),
        ("wrong.yml", f"{wrong}: is not valid YAML"),
        ("fifo", f"{tmp_path}/fifo is not a regular file; name the address by --metrics-listen"),
    ):
        config = str(tmp_path / name)
        assert check("--config", config) == (1, "", f"unhealthy: {reason}\n")


def test_where_no_exporter_is_found_its_own_environment_counts(
    container: Container, start_exporter: StartExporter, address: str
) -> None:
    """As under a user of its own, or where /proc is hidden."""
    start_exporter("", "--metrics-listen", address, ready=False)
    assert container.check(EXPORTER_METRICS_LISTEN=address) == HEALTHY
    other = f"127.0.0.1:{free_port()}"
    refused = container.check(EXPORTER_METRICS_LISTEN=other)
    assert refused == (1, "", f"unhealthy: {other}: Connection refused\n")
