"""`future.result(timeout=...)` gives up on calls that are already being made, and says that nobody was asked.

The time allowed is for the wait in the queue. `result` counts from the moment of `submit`, over the wait and the
call. A provider that takes a little longer than `bulkhead_wait_seconds`, as it does on any busy day, is asked, takes
the money, and its customer reads that nothing was done. `cancel()` does not help: it returns False for a future that
runs. The worker goes on, and its place stays taken, for a result that nobody will look at.

Stop waiting when the call begins. How long a call may take is its own timeout's to say, and it is another number.

Read: "The other kind: a pool of threads" in the chapter Bulkheads.
"""

import contextvars
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
        self._inside = BoundedSemaphore(size + queue)
        self._wait_seconds = wait_seconds

    def run(self, function: Callable[[], T]) -> T:
        """Make a call when there is room for it."""
        if not self._inside.acquire(blocking=False):
            raise NotAsked("too many wait already", retry_after=1)
        future = self._threads.submit(contextvars.copy_context().run, function)
        future.add_done_callback(lambda _: self._inside.release())
        try:
            return future.result(timeout=self._wait_seconds)
        except TimeoutError as error:
            future.cancel()
            raise NotAsked("no call ended in time", retry_after=1) from error


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
