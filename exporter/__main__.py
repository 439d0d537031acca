"""Starts the program: handles SIGTERM first, then imports the rest, which takes a second."""

from __future__ import annotations

import os
import signal
from typing import NoReturn


def main() -> None:
    """Run the command line, see `exporter.cli`."""
    if os.getpid() == 1:
        # A container's first process has no default actions: until it has a handler, the kernel
        # throws SIGTERM away, and the container would be killed after its grace period.
        signal.signal(signal.SIGTERM, _end)
    # The image's entrypoint blocks the signal until there is a handler.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    from exporter import cli  # noqa: PLC0415

    cli.main()


def _end(number: int, _: object) -> NoReturn:
    os._exit(128 + number)


if __name__ == "__main__":
    main()
