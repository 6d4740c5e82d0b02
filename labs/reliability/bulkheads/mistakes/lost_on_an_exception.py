"""A place is given back after the call, in a line that an exception skips.

Every call that fails takes a place with it for good. A bulkhead of three survives three failures, and then refuses
everything, though nothing is under way: "too many wait already", for ever, until somebody restarts the process. It
shows days later, because it takes failures, and it shows after the provider has recovered, so that it looks like
anything but this. Releasing on `Unavailable` alone is the same mistake, and `Refused` finds it.

What was taken is given back in a `finally`, or by a `with`.

Read: "Places come back" in the chapter Bulkheads.
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
        if not self._calling.acquire(timeout=self._wait_seconds):
            self._inside.release()
            raise NotAsked("no call ended in time", retry_after=1)
        result = function()
        self._calling.release()
        self._inside.release()
        return result


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
