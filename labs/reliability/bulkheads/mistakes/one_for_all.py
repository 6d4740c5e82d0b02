"""All dependencies share one bulkhead, so whichever hangs first takes the places of all the others.

There is a limit, and the shop's own pages survive. But three payments that hang hold all three places, and now nobody
gets a quote for a delivery, though the delivery company is well. The shop has built by hand what a bulkhead is to
prevent: one sick dependency stops a healthy one. A shared pool of HTTP connections does the same, and so does one
thread pool for "everything outside".

Make one for each dependency, and look it up by its name.

Read: "One compartment for each dependency" in the chapter Bulkheads.
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

    def __init__(self, size: int, queue: int, wait_seconds: float) -> None:
        self._inside = BoundedSemaphore(size + queue)
        self._calling = BoundedSemaphore(size)
        self._wait_seconds = wait_seconds

    def run(self, function: Callable[[], T]) -> T:
        """Make a call when there is room for it."""
        if not self._inside.acquire(blocking=False):
            raise NotAsked("too many wait already", retry_after=1)
        try:
            if not self._calling.acquire(timeout=self._wait_seconds):
                raise NotAsked("no call ended in time", retry_after=1)
            try:
                return function()
            finally:
                self._calling.release()
        finally:
            self._inside.release()


def init_app(app: Flask) -> None:
    """Make the bulkhead of the application, for all that it calls."""
    settings = settings_of(app)
    app.extensions["bulkhead"] = Bulkhead(
        settings.bulkhead_size, settings.bulkhead_queue, settings.bulkhead_wait_seconds
    )


def run(dependency: str, function: Callable[[], T]) -> T:  # noqa: ARG001 - they are all outside
    """Make a call to a dependency when there is room for it.

    Args:
        dependency: `payments` or `delivery`.
        function: makes the call.

    Raises:
        shop.reliability.failures.NotAsked: there was no room.
        Exception: whatever `function` raises.
    """
    bulkhead: Bulkhead = current_app.extensions["bulkhead"]
    return bulkhead.run(function)
