"""Builds and checks what a release consists of, in dist/; `make release-check` runs this.

`python/`: wheel and source archive. `chart/`: the Helm chart. `notes.md`: the version's section of
CHANGELOG.md. With a tag (`v1.2.3`), the versions that are written in the project must be its own.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path

import helm_python as helm
import yaml

ROOT = Path(__file__).parents[1]
CHART = Path("config", "helm", "bullmq-exporter")


class ReleaseError(Exception):
    """Why there can be no release."""


def version_of(root: Path) -> str:
    """`exporter.__version__`, without importing what it may need."""
    match = re.search(r'^__version__ = "(.+)"$', (root / "exporter/__init__.py").read_text(), re.M)
    if match is None:
        raise ReleaseError("exporter/__init__.py: no __version__")
    return match[1]


def section(changelog: str, version: str) -> str:
    """What the changelog says of a version, without its heading."""
    _, heading, rest = changelog.partition(f"\n## [{version}]")
    text = rest.partition("\n")[2].partition("\n## [")[0].strip()
    if not heading or not text:
        raise ReleaseError(f"CHANGELOG.md: no section for {version}")
    return text + "\n"


def check_versions(root: Path, tag: str | None) -> str:
    """The version, if it is the same everywhere."""
    version = version_of(root)
    if tag is not None and tag != f"v{version}":
        raise ReleaseError(f"the tag is {tag}, and exporter.__version__ is {version}")
    chart = yaml.safe_load((root / CHART / "Chart.yaml").read_text())
    for key in ("version", "appVersion"):
        if chart[key] != version:
            raise ReleaseError(f"{CHART}/Chart.yaml: {key} is {chart[key]}, not {version}")
    return version


def build(root: Path, target: Path, version: str) -> None:
    """Everything that is published, in `target`, which is made anew."""
    notes = section((root / "CHANGELOG.md").read_text("utf-8"), version)
    shutil.rmtree(target, ignore_errors=True)
    for name in ("python", "chart"):
        (target / name).mkdir(parents=True)
    (target / "notes.md").write_text(notes, "utf-8")
    _run("build", "--installer=uv", "--outdir", target / "python", root)
    _run("twine", "check", "--strict", *sorted((target / "python").iterdir()))
    helm.package(root / CHART, destination=target / "chart")


def _run(module: str, *arguments: str | Path) -> None:
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ReleaseError(f"{module} failed:\n{done.stdout}{done.stderr}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tag", help="the tag that is released, such as v1.2.3")
    parser.add_argument("--root", type=Path, default=ROOT)
    given = parser.parse_args()
    target = given.root / "dist"
    try:
        build(given.root, target, check_versions(given.root, given.tag or None))
    except ReleaseError as error:
        print(error, file=sys.stderr)
        return 1
    for path in sorted(target.rglob("*")):
        if path.is_file():
            print(path.relative_to(given.root))
    return 0


if __name__ == "__main__":
    sys.exit(main())
