"""The `finally` gives a place back also when none was got, and there is one more than before.

`acquire` stands inside the `try`. When it times out, NotAsked is raised, the `finally` runs, and `release` adds one
to a number from which nothing was taken. A plain Semaphore takes that without a word: each time-out makes the
bulkhead one larger. In an outage there are many, so the limit is gone just when it is needed, and it stays gone. A
BoundedSemaphore raises ValueError as soon as it has more than it began with; but when calls are under way it has
fewer, and it hides it, too.

Take first. Then `try`, and in the `finally` give back what was taken.

Read: "Places come back" in the chapter Bulkheads.
"""

from collections.abc import Callable
from threading import Semaphore
from typing import TypeVar

from flask import Flask, current_app

from shop.reliability.failures import NotAsked
from shop.settings import settings_of

T = TypeVar("T")


class Bulkhead:
    """Room for some calls at once, and for a few that wait."""

    def __init__(self, size: int, queue: int, wait_seconds: float) -> None:
        self._inside = Semaphore(size + queue)
        self._calling = Semaphore(size)
        self._wait_seconds = wait_seconds

    def run(self, function: Callable[[], T]) -> T:
        """Make a call when there is room for it."""
        if not self._inside.acquire(blocking=False):
            raise NotAsked("too many wait already", retry_after=1)
        try:
            if not self._calling.acquire(timeout=self._wait_seconds):
                raise NotAsked("no call ended in time", retry_after=1)
            return function()
        finally:
            self._calling.release()
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
