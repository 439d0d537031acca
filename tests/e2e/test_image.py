"""The Dockerfile, built and run: by Buildah and chroot, which need no daemon."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from exporter import __version__
from tests.support.bullmq import History
from tests.support.exporters import API_KEY, Exporter
from tests.support.paths import ROOT, TESTS
from tests.support.ports import free_port
from tests.support.postgres import Database
from tests.support.programs import needs_root, program
from tests.support.servers import Server

# Debian 13 with its Python 3.13, as the Dockerfile's base has; made by `make test`.
BASE = TESTS / "image" / "base.tar"


class Buildah:
    """Images in a directory of their own."""

    def __init__(self, directory: Path) -> None:
        self._command = [program("buildah", "buildah"), "--storage-driver", "vfs"]
        self._command += ["--root", str(directory / "root"), "--runroot", str(directory / "run")]

    def __call__(self, *arguments: str | Path) -> str:
        done = subprocess.run(
            [*self._command, *map(str, arguments)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()


class Container:
    """What a runtime makes of an image: its files read-only, its user, its environment."""

    def __init__(self, files: Path, config: dict[str, Any]) -> None:
        self._files = files
        self.config = config

    def command(self, *arguments: str, **variables: str) -> list[str]:
        """The command line that runs `arguments` inside."""
        inside = ["chroot", f"--userspec={self.config['User']}", str(self._files)]
        inside += ["env", "--ignore-environment", *self.config["Env"]]
        inside += [f"{name}={value}" for name, value in variables.items()]
        files = shlex.quote(str(self._files))
        # /proc and /dev as every runtime gives them; /dev/null and urandom are enough.
        script = (
            f"mount --bind {files} {files} && mount -o remount,bind,ro {files}"
            f" && mount -t proc proc {files}/proc && mount --rbind /dev {files}/dev"
            f" && exec {shlex.join([*inside, *arguments])}"
        )
        return ["unshare", "--mount", "sh", "-c", script]

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        command = self.command(*arguments, **variables)
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)

    @contextmanager
    def exporter(self, log: Path, **variables: str) -> Iterator[Exporter]:
        command = self.command(*self.config["Entrypoint"], **variables)
        with log.open("w") as stderr, subprocess.Popen(command, stderr=stderr, text=True) as run:
            try:
                yield Exporter(run, log)
            finally:
                run.kill()


@pytest.fixture
def container(tmp_path: Path) -> Iterator[Container]:
    needs_root("mounts and changes its root")
    assert BASE.exists(), "the image's base is missing: make test makes it"
    buildah = Buildah(tmp_path / "buildah")
    scratch = buildah("from", "scratch")
    buildah("add", scratch, BASE, "/")
    buildah("commit", scratch, "localhost/base")
    build = ["build", "--isolation=chroot", "--format=docker", "--build-arg=PYTHON=localhost/base"]
    # Whom this machine trusts, the build trusts.
    build += ["--volume=/etc/ssl/certs:/etc/ssl/certs:ro", "--tag=localhost/bullmq-exporter"]
    buildah(*build, ROOT)
    image = json.loads(buildah("inspect", "--type=image", "localhost/bullmq-exporter"))
    files = Path(buildah("mount", buildah("from", "localhost/bullmq-exporter")))
    yield Container(files, image["Docker"]["config"])
    buildah("umount", "--all")


@pytest.mark.takes(seconds=40)
def test_the_image_watches_real_queues_read_only_and_without_rights(
    container: Container, server: Server, database: Database, history: Any, tmp_path: Path
) -> None:
    made: History = history("bullmq5", server.port, "ingestion")
    assert container.config["User"] == "65532:65532"
    assert set(container.config["ExposedPorts"]) == {"9538/tcp", "9539/tcp"}

    # Only what it needs: no compiler, no pip, nothing of the build.
    for absent in ("cc", "gcc", "pip", "curl"):
        assert container.run("sh", "-c", f"command -v {absent}").stdout == ""
    assert container.run("ls", "/source", "/build", "/dist").stdout == ""
    touched = container.run("touch", "/opt/bullmq-exporter/x", "/var/lib/bullmq-exporter/x")
    assert touched.stderr.count("Read-only file system") == 2
    owner = container.run("stat", "--format=%u:%g %a", "/var/lib/bullmq-exporter").stdout
    assert owner == "65532:65532 700\n"
    assert container.run("bullmq-exporter", "--version").stdout == (
        f"bullmq-exporter {__version__}\n"
    )

    # The driver of PostgreSQL is there, with its library.
    database.add_jobs("mail", 2)
    checked = container.run("bullmq-exporter", "--check", "--postgres-url", database.url)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "mail" in checked.stdout

    health = container.config["Healthcheck"]["Test"]
    assert health[0] == "CMD"
    port = free_port()
    addresses = {
        "EXPORTER_METRICS_LISTEN": f"127.0.0.1:{port}",
        "EXPORTER_API_LISTEN": "127.0.0.1:0",
    }
    environment = addresses | {
        "REDIS_HOST": "127.0.0.1",
        "REDIS_PORT": str(server.port),
        "EXPORTER_API_KEY": API_KEY,
        "EXPORTER_LOG_FORMAT": "json",
    }
    with container.exporter(tmp_path / "log", **environment) as exporter:
        exporter.wait_ready()
        for state, count in made.truth["counts"].items():
            exposed = exporter.metrics.value("bullmq_job_count", queue="ingestion", state=state)
            assert exposed == count, state
        listed = exporter.api.get("/v1/jobs/queues").json
        assert [queue["name"] for queue in listed["queues"]] == ["ingestion"]
        for file in ("page.js", "vendor/preact.js", "vendor/preact.LICENSE.txt"):
            assert exporter.api.get(f"/{file}").status == 200

        healthy = container.run(*health[1:])
        assert (healthy.returncode, healthy.stdout) == (0, "healthy\n"), healthy.stderr
        assert exporter.terminate() == 0
    gone = container.run(*health[1:], EXPORTER_METRICS_LISTEN=f":{port}")
    assert gone.returncode == 1
    assert "Connection refused" in gone.stderr
