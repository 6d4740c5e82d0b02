"""Whoever waits for a place waits for as long as it takes: `acquire()` has no timeout.

Calls are limited, and so is the queue. But a call that never ends never gives its place back, and whoever stands in
the queue stands there until it does: the queue has become more places for hanging. `bulkhead_wait_seconds` is read by
nobody. With a slow provider the page takes as long as the call of the one before and its own together.

Give `acquire` the timeout, and look at what it returns: it does not raise.

Read: "A wait that ends" in the chapter Bulkheads.
"""

from collections.abc import Callable
from threading import BoundedSemaphore
from typing import TypeVar

from flask import Flask, current_app

from shop.reliability.failures import NotAsked
from shop.settings import settings_of

T = TypeVar("T")


class Bulkhead:
    """Room for some calls at once, and for a few that wait."""

    def __init__(self, size: int, queue: int) -> None:
        self._inside = BoundedSemaphore(size + queue)
        self._calling = BoundedSemaphore(size)

    def run(self, function: Callable[[], T]) -> T:
        """Make a call when there is room for it."""
        if not self._inside.acquire(blocking=False):
            raise NotAsked("too many wait already", retry_after=1)
        try:
            with self._calling:
                return function()
        finally:
            self._inside.release()


def init_app(app: Flask) -> None:
    """Make a bulkhead for each dependency of the application."""
    settings = settings_of(app)
    app.extensions["bulkheads"] = {
        dependency: Bulkhead(settings.bulkhead_size, settings.bulkhead_queue) for dependency in ("payments", "delivery")
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
