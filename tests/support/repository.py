"""Which files the repository has."""

from __future__ import annotations

import subprocess

from tests.support.paths import ROOT


def committed(*folders: str) -> set[str]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *folders]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return set(done.stdout.split())
