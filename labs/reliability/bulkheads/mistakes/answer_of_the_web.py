"""The bulkhead answers the request itself: it raises HTTP's 503, past everybody who would have known better.

`run` is called from the middle of a payment. Its caller knows what to do when the provider was not asked: record the
payment as pending, charge it later, say so with 202. It catches `Unavailable`, and ServiceUnavailable of werkzeug is
another class, so all of that is skipped. The same call made by `flask settle`, where there is no request, ends with
an error of the web.

What limits calls says what became of the call: `NotAsked`. Which answer that makes is for the route to decide.

Read: "A refusal is an answer" in the chapter Bulkheads.
"""

from collections.abc import Callable
from threading import BoundedSemaphore
from typing import TypeVar

from flask import Flask, current_app
from werkzeug.exceptions import ServiceUnavailable

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
            raise ServiceUnavailable("Too many wait already.", retry_after=1)
        try:
            if not self._calling.acquire(timeout=self._wait_seconds):
                raise ServiceUnavailable("No call ended in time.", retry_after=1)
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
