"""A place is handed over to somebody who has given up waiting, and nobody ever gives it back.

Whoever waits stands in a row, and whoever has made a call hands the place to the first of them. A waiter whose time
is over raises NotAsked, and stays in the row. The next place goes to it. Nobody is there to make a call with it, or
to give it back. Each time-out costs one place for good, so a bulkhead does not survive its first outage: afterwards
it is full of nobody, and refuses everything until a restart. A well-known Java library had just this:
"Bulkhead(Executor) does not always release permits", failsafe-lib/failsafe issue 393.

Whoever stops waiting leaves the row, under the lock; and looks there once more, as the place may have come that
moment.

Read: "Places come back" in the chapter Bulkheads.
"""

from collections import deque
from collections.abc import Callable
from threading import Event, Lock
from typing import TypeVar

from flask import Flask, current_app

from shop.reliability.failures import NotAsked
from shop.settings import settings_of

T = TypeVar("T")


class Bulkhead:
    """Room for some calls at once, and for a few that wait in a row."""

    def __init__(self, size: int, queue: int, wait_seconds: float) -> None:
        self._free, self._queue = size, queue
        self._wait_seconds = wait_seconds
        self._row: deque[Event] = deque()
        self._waiting = 0
        self._lock = Lock()

    def run(self, function: Callable[[], T]) -> T:
        """Make a call when there is room for it."""
        self._take()
        try:
            return function()
        finally:
            self._give_back()

    def _take(self) -> None:
        with self._lock:
            if self._free:
                self._free -= 1
                return
            if self._waiting >= self._queue:
                raise NotAsked("too many wait already", retry_after=1)
            self._waiting += 1
            turn = Event()
            self._row.append(turn)
        came = turn.wait(self._wait_seconds)
        with self._lock:
            self._waiting -= 1
        if not came:
            raise NotAsked("no call ended in time", retry_after=1)

    def _give_back(self) -> None:
        with self._lock:
            if self._row:
                self._row.popleft().set()
            else:
                self._free += 1


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
