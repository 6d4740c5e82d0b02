"""Who waits is counted, but whoever gives up waiting is never counted off.

The counter goes up before the wait and down after it, and a time-out raises in between. Each of them leaves a ghost
in the queue. The calls themselves are limited rightly, so nothing looks wrong: the queue is just shorter by one after
each time-out, and soon there is none. From then on a burst that would have been served within milliseconds is
refused.

Whatever is counted up is counted down in a `finally`.

Read: "Places come back" in the chapter Bulkheads.
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
            if self._waiting >= self._queue:
                raise NotAsked("too many wait already", retry_after=1)
            self._waiting += 1
        if not self._calling.acquire(timeout=self._wait_seconds):
            raise NotAsked("no call ended in time", retry_after=1)
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
