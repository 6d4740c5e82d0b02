"""The call is handed to a thread that knows nothing of the request: no application, no request id, no trace.

Flask's `current_app` and `g`, the id in every log line and the trace that the call belongs to are context variables,
and a thread of a pool has a context of its own: an empty one. Here the first thing that looks for the application
raises "Working outside of application context". Where nothing raises it is worse: the call goes out without its
request id, and nobody can tell afterwards whose it was.

Copy the context where the call is handed over: `submit(contextvars.copy_context().run, function)`.

Read: "The other kind: a pool of threads" in the chapter Bulkheads.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import BoundedSemaphore
from typing import TypeVar

from flask import Flask, current_app

from shop.reliability.failures import NotAsked
from shop.settings import settings_of

T = TypeVar("T")


class Bulkhead:
    """Threads that make the calls of one dependency, and a limit for those who wait for them."""

    def __init__(self, size: int, queue: int, wait_seconds: float) -> None:
        self._threads = ThreadPoolExecutor(size)
        self._calling = BoundedSemaphore(size)
        self._inside = BoundedSemaphore(size + queue)
        self._wait_seconds = wait_seconds

    def run(self, function: Callable[[], T]) -> T:
        """Make a call when there is room for it."""
        if not self._inside.acquire(blocking=False):
            raise NotAsked("too many wait already", retry_after=1)
        try:
            if not self._calling.acquire(timeout=self._wait_seconds):
                raise NotAsked("no call ended in time", retry_after=1)
            try:
                return self._threads.submit(function).result()
            finally:
                self._calling.release()
        finally:
            self._inside.release()


def init_app(app: Flask) -> None:
    """Make a bulkhead for each dependency of the application."""
    settings = settings_of(app)
    app.extensions["bulkheads"] = {
        dependency: Bulkhead(settings.bulkhead_size, settings.bulkhead_queue, settings.bulkhead_wait_seconds)
        for dependency in ("payments", "delivery")
    }


def run(dependency: str, function: Callable[[], T]) -> T:
    """Make a call to a dependency when there is room for it.

    Args:
        dependency: `payments` or `delivery`.
        function: makes the call.

    Raises:
        shop.reliability.failures.NotAsked: there was no room.
        Exception: whatever `function` raises.
    """
    bulkhead: Bulkhead = current_app.extensions["bulkheads"][dependency]
    return bulkhead.run(function)
