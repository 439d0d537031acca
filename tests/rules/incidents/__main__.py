"""Prints the scoreboard: `python -m tests.rules.incidents [--loss 0 30] [-v] [incident …]`."""

from __future__ import annotations

import argparse

from tests.rules.incidents.catalogue import INCIDENTS
from tests.rules.incidents.scoreboard import LOSSES, details, scores, table


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.rules.incidents", description=__doc__)
    parser.add_argument("incidents", nargs="*", help="all, if none is named")
    parser.add_argument("--loss", nargs="*", type=int, choices=LOSSES, default=LOSSES)
    parser.add_argument("-v", "--verbose", action="store_true", help="what fires and is sent when")
    given = parser.parse_args()
    if unknown := set(given.incidents) - INCIDENTS.keys():
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    chosen = [each for name, each in INCIDENTS.items() if name in (given.incidents or INCIDENTS)]
    found = scores(chosen, given.loss)
    if given.verbose:
        for score in found:
            print(f"{score.job}: {score.incident.what}")
            print(*details(score), sep="\n")
            print()
    print(table(found))


main()
