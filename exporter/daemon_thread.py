"""Calls that may hang for ever, such as those of a file system whose server is gone."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import copy_context
from typing import TypeVar

Result = TypeVar("Result")


def call_in_daemon_thread(call: Callable[[], Result]) -> Future[Result]:
    """Start the call in a thread of its own; the future is its result, or a RuntimeError where no
    thread can be started.

    An executor's threads are joined when the process ends, and would keep it from ending.
    """
    future: Future[Result] = Future()
    context = copy_context()  # the target that a log line is about

    def run() -> None:
        try:
            future.set_result(context.run(call))
        except BaseException as error:
            future.set_exception(error)

    try:
        threading.Thread(target=run, daemon=True).start()
    except RuntimeError as error:
        future.set_exception(error)
    return future
