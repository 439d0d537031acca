"""What a release brings, on a machine that has only that."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from exporter import __version__
from tests.support.exporters import clean_environment
from tests.support.paths import ROOT
from tests.support.postgres import Database
from tests.support.repository import committed
from tests.support.servers import Server


@pytest.fixture
def release(tmp_path: Path) -> dict[str, Path]:
    """The source archive, and the wheel that is built from it, as `python -m build` makes them."""
    command = [sys.executable, "-m", "build", "--installer=uv", "--outdir", tmp_path / "dist", ROOT]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return {file.suffix: file for file in (tmp_path / "dist").iterdir()}


def test_the_release_holds_every_file_and_runs_where_there_is_nothing_else(
    release: dict[str, Path], server: Server, database: Database, tmp_path: Path
) -> None:
    name = f"bullmq_exporter-{__version__}"
    assert release[".gz"].name == f"{name}.tar.gz"
    with zipfile.ZipFile(release[".whl"]) as wheel:
        packed = {each for each in wheel.namelist() if ".dist-info/" not in each}
        licences = {"LICENSE", *(file for file in committed("exporter") if "LICENSE" in file)}
        assert {f"{name}.dist-info/licenses/{file}" for file in licences} <= set(wheel.namelist())
        assert len(licences) == 3  # that of the project, and those of the page's two libraries
    assert packed == committed("exporter")
    with tarfile.open(release[".gz"]) as archive:
        within = {each.removeprefix(f"{name}/") for each in archive.getnames()}
    # Beside the package what people copy from: settings, rules, dashboards, documents.
    assert committed("exporter", "config", "dashboards", "docs", "CHANGELOG.md") <= within

    # From the source archive, so that it is seen to build.
    environment = tmp_path / "environment"
    run = _runner(environment / "bin")
    # uv does what pip does, in 3 seconds instead of 30.
    uv = [Path(sys.executable).parent / "uv"]
    subprocess.run([*uv, "venv", "--quiet", "--python", sys.executable, environment], check=True)
    for arguments in (["install", "--quiet", release[".gz"]], ["check", "--quiet"]):
        subprocess.run([*uv, "pip", *arguments, "--python", environment], check=True)
    assert run("bullmq-exporter", "--version").stdout == f"bullmq-exporter {__version__}\n"
    checked = run("bullmq-exporter", "--check", "--redis-url", server.url)
    assert checked.returncode == 1, checked.stderr
    assert "no BullMQ queue found" in checked.stdout
    unreachable = run("bullmq-exporter", "--check", "--redis-url", "redis://127.0.0.1:1")
    assert unreachable.returncode == 2
    assert "REDIS_HOST" in unreachable.stderr
    for extras, flags in (("demo", ()), ("demo,postgres", ("--postgres",))):
        demo = run("bullmq-exporter", "--demo", *flags)
        assert demo.returncode == 2
        assert f"pip install 'bullmq-exporter[{extras}]'" in demo.stderr

    # PostgreSQL's driver is an extra.
    check = ("bullmq-exporter", "--check", "--postgres-url", database.url)
    without = run(*check)
    assert without.returncode == 2
    assert "pip install 'bullmq-exporter[postgres]'" in without.stderr
    with_extra = f"bullmq-exporter[postgres] @ {release['.gz'].as_uri()}"
    install = [*uv, "pip", "install", "--quiet", "--python", environment, with_extra]
    subprocess.run(install, check=True)
    checked = run(*check)
    assert checked.returncode == 1, checked.stderr
    assert "no BullMQ queue found" in checked.stdout


def _runner(programs: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    # Nothing of this checkout or of the tests' own environment is found from there.
    variables = clean_environment()
    for name in ("PYTHONPATH", "VIRTUAL_ENV"):
        variables.pop(name, None)

    def run(command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [programs / command, *arguments],
            cwd=programs,
            env=variables,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_the_version_stands_in_the_changelog_or_is_yet_to_be_released() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert f"## [{__version__}]" in changelog
