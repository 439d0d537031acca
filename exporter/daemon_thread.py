"""Calls that may hang, such as those of a file system or a name server that is gone."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import ParamSpec, TypeVar

Result = TypeVar("Result")
Parameters = ParamSpec("Parameters")

# Calls of an executor that may run at the same time.
MAX_CALLS = 100


def call_in_daemon_thread(call: Callable[[], Result]) -> Future[Result]:
    """Start the call in a thread of its own; the future has its result, or a RuntimeError if no
    thread can be started.

    An executor's threads are joined at exit, so a call that hangs would keep the process from
    ending.
    """
    future: Future[Result] = Future()
    future.set_running_or_notify_cancel()  # who waits no longer does not end it
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


class DaemonThreadExecutor(ThreadPoolExecutor):
    """For the event loop, which resolves host names in it."""

    def __init__(self) -> None:
        super().__init__()
        self._free = threading.Semaphore(MAX_CALLS)

    def submit(
        self,
        call: Callable[Parameters, Result],
        /,
        *args: Parameters.args,
        **kwargs: Parameters.kwargs,
    ) -> Future[Result]:
        """Raises OSError if too many calls are running."""
        if not self._free.acquire(blocking=False):
            raise OSError("too many calls are still running")
        future = call_in_daemon_thread(partial(call, *args, **kwargs))
        future.add_done_callback(lambda _: self._free.release())
        return future
