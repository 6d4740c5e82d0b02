"""Two numbers under one lock, and a condition on which waiters sleep until their number is up.

Everybody who waits draws a number; the lowest goes first, so no newcomer passes them.
"""

import itertools
from collections.abc import Callable
from threading import Condition
from typing import TypeVar

from flask import Flask, current_app

from shop.reliability.failures import NotAsked
from shop.settings import settings_of

T = TypeVar("T")


class Bulkhead:
    """Room for some calls at once, and for a few that wait."""

    def __init__(self, size: int, queue: int, wait_seconds: float) -> None:
        self._size, self._queue = size, queue
        self._wait_seconds = wait_seconds
        self._calling = 0
        self._numbers = itertools.count()
        self._waiting: list[int] = []  # ascending, as they were drawn
        self._changed = Condition()

    def run(self, function: Callable[[], T]) -> T:
        """Make a call when there is room for it."""
        with self._changed:
            self._take()
        try:
            return function()
        finally:
            with self._changed:
                self._calling -= 1
                self._changed.notify_all()

    def _take(self) -> None:
        if self._calling >= self._size or self._waiting:
            if len(self._waiting) >= self._queue:
                raise NotAsked("too many wait already", retry_after=1)
            number = next(self._numbers)
            self._waiting.append(number)
            try:
                if not self._changed.wait_for(
                    lambda: self._calling < self._size and self._waiting[0] == number, self._wait_seconds
                ):
                    raise NotAsked("no call ended in time", retry_after=1)
            finally:
                self._waiting.remove(number)
                self._changed.notify_all()  # another may be the first now
        self._calling += 1


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
