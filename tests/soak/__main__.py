"""Soaks for a while, and prints what came of it."""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.soak.run import soak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    minutes = parser.parse_args().minutes
    with TemporaryDirectory() as directory:
        report = soak(Path(directory), minutes)
    first, last = report.samples[0], report.samples[-1]
    print(
        f"{minutes:g} minutes, {report.jobs:,} jobs, every counter exact\n"
        f"memory: {first.resident / 1e6:.1f} MB at first, {last.resident / 1e6:.1f} MB at last; "
        f"{report.growth / 1e6:+.1f} MB from the second third to the last\n"
        f"open files: {first.files} at first, {last.files} at last; {report.further_files:+d}"
    )


if __name__ == "__main__":
    main()
