"""A queue of length 0 is taken for no limit, and everybody waits.

`if self._queue and ...` reads well, and 0 is false. So whoever sets BULKHEAD_QUEUE=0, to refuse rather than wait,
gets the longest queue there is. Python's own `queue.Queue(maxsize=0)` is endless in the same way, and so are many
settings in which 0 stands for "not set". It shows on the day on which somebody turns the queue off because of an
outage.

Compare numbers with numbers: 0 waiting is not fewer than 0 allowed.

Read: "The bound that is missing" in the chapter Bulkheads.
"""

from collections.abc import Callable
from threading import BoundedSemaphore, Lock
from typing import TypeVar

from flask import Flask, current_app

from shop.reliability.failures import NotAsked
from shop.settings import settings_of

T = TypeVar("T")


class Bulkhead:
    """Room for some calls at once, and for a few that wait."""

    def __init__(self, size: int, queue: int, wait_seconds: float) -> None:
        self._calling = BoundedSemaphore(size)
        self._queue, self._waiting = queue, 0
        self._lock = Lock()
        self._wait_seconds = wait_seconds

    def run(self, function: Callable[[], T]) -> T:
        """Make a call when there is room for it."""
        if not self._calling.acquire(blocking=False):
            self._wait()
        try:
            return function()
        finally:
            self._calling.release()

    def _wait(self) -> None:
        with self._lock:
            if self._queue and self._waiting >= self._queue:
                raise NotAsked("too many wait already", retry_after=1)
            self._waiting += 1
        try:
            if not self._calling.acquire(timeout=self._wait_seconds):
                raise NotAsked("no call ended in time", retry_after=1)
        finally:
            with self._lock:
                self._waiting -= 1


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
