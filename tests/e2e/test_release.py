"""What the release workflow does that can be done here: one version, and what is built."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from exporter import __version__
from tests.support.paths import ROOT
from tests.support.repository import committed

SCRIPT = ROOT / "tools" / "release.py"


def release(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, SCRIPT, "--root", root, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project, to be changed."""
    for name in committed():
        target = tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target, follow_symlinks=False)
    return tmp_path


@pytest.mark.takes(seconds=20)
def test_a_release_has_a_wheel_a_source_archive_a_chart_and_its_part_of_the_changelog(
    project: Path,
) -> None:
    done = release(project, "--tag", f"v{__version__}")
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == {
        f"dist/python/bullmq_exporter-{__version__}-py3-none-any.whl",
        f"dist/python/bullmq_exporter-{__version__}.tar.gz",
        f"dist/chart/bullmq-exporter-{__version__}.tgz",
        "dist/notes.md",
    }
    notes = (project / "dist" / "notes.md").read_text()
    assert notes.startswith("### Added\n- ")
    assert "\n## " not in notes
    assert notes in (ROOT / "CHANGELOG.md").read_text() + "\n"


@pytest.mark.parametrize(
    ("file", "old", "new", "says"),
    [
        (
            "exporter/__init__.py",
            __version__,
            "9.8.7",
            f"the tag is v{__version__}, and",
        ),
        ("exporter/__init__.py", "__version__", "version", "exporter/__init__.py: no __version__"),
        (
            "config/helm/bullmq-exporter/Chart.yaml",
            f'appVersion: "{__version__}"',
            'appVersion: "9.8.7"',
            f"config/helm/bullmq-exporter/Chart.yaml: appVersion is 9.8.7, not {__version__}",
        ),
        (
            "CHANGELOG.md",
            f"## [{__version__}]",
            "## [9.8.7]",
            f"CHANGELOG.md: no section for {__version__}",
        ),
    ],
)
def test_versions_that_differ_are_one_clear_line_and_nothing_is_built(
    file: str, old: str, new: str, says: str, project: Path
) -> None:
    text = (project / file).read_text()
    assert old in text
    (project / file).write_text(text.replace(old, new))
    done = release(project, "--tag", f"v{__version__}")
    assert done.returncode == 1
    assert done.stderr.startswith(says)
    assert len(done.stderr.splitlines()) == 1
    assert not (project / "dist").exists()


def workflow(name: str) -> dict[str, Any]:
    text = (ROOT / ".github" / "workflows" / name).read_text()
    return dict(yaml.safe_load(text)["jobs"])


def test_only_jobs_of_a_release_that_write_may_write() -> None:
    writing = {
        name
        for name, job in workflow("release.yml").items()
        if "write" in job["permissions"].values()
    }
    assert writing == {"image", "chart", "pypi", "release"}
    for name in writing:
        assert workflow("release.yml")[name]["needs"], "nothing is published before its tests"
    assert workflow("test.yml")["test"]["permissions"] == {"contents": "read"}
