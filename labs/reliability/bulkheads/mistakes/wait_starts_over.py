"""Each time that a place becomes free and another takes it, the wait begins anew.

`Condition.wait(timeout)` waits so long for a notification, and here one comes whenever a call ends. Whoever wakes and
finds that it is another's turn goes round the loop and waits the full time again. In a long queue at a busy moment that
happens at each end of a call, so nobody is ever refused, and a limit of 0.2 s becomes seconds. The loop around `wait`
is right, as every manual says; the timeout in it is not.

Count from arrival: take the deadline once, and wait for what is left. `Condition.wait_for` does just that, and so
does the timeout of a semaphore.

Read: "A wait that ends" in the chapter Bulkheads.
"""

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
        self._line: list[object] = []
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
        if self._calling >= self._size or self._line:
            self._wait_in_line()
        self._calling += 1

    def _wait_in_line(self) -> None:
        if len(self._line) >= self._queue:
            raise NotAsked("too many wait already", retry_after=1)
        place = object()
        self._line.append(place)
        try:
            while self._calling >= self._size or self._line[0] is not place:
                if not self._changed.wait(self._wait_seconds):
                    raise NotAsked("no call ended in time", retry_after=1)
        finally:
            self._line.remove(place)
            self._changed.notify_all()


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
