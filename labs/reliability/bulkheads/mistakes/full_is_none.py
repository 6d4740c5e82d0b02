"""A call for which there is no room is not refused: `run` returns None, as if that were an answer.

Whoever called asks None for its reference, and crashes: the customer reads "Internal Server Error", the log has a
traceback that names a line far from here, and an alert goes off for what was a decision. Worse is a caller that does
not look: a payment without a reference would be written down as made. Returning None also takes from the shop what it
has for such a moment: `NotAsked` becomes 503 with Retry-After, or a payment that is recorded and charged later.

Refuse with an exception that says what it is: `NotAsked`.

Read: "A refusal is an answer" in the chapter Bulkheads.
"""

from collections.abc import Callable
from threading import BoundedSemaphore
from typing import TypeVar

from flask import Flask, current_app

from shop.settings import settings_of

T = TypeVar("T")


class Bulkhead:
    """Room for some calls at once, and for a few that wait."""

    def __init__(self, size: int, queue: int, wait_seconds: float) -> None:
        self._inside = BoundedSemaphore(size + queue)
        self._calling = BoundedSemaphore(size)
        self._wait_seconds = wait_seconds

    def run(self, function: Callable[[], T]) -> T | None:
        """Make a call if there is room for it."""
        if not self._inside.acquire(blocking=False):
            return None
        try:
            if not self._calling.acquire(timeout=self._wait_seconds):
                return None
            try:
                return function()
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


def run(dependency: str, function: Callable[[], T]) -> T | None:
    """Make a call to a dependency if there is room for it, else return None.

    Args:
        dependency: `payments` or `delivery`.
        function: makes the call.

    Raises:
        Exception: whatever `function` raises.
    """
    bulkhead: Bulkhead = current_app.extensions["bulkheads"][dependency]
    return bulkhead.run(function)
