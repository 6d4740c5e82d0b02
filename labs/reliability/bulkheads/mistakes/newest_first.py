"""A place that becomes free goes to whoever came last, as `pop` takes from the end of the list.

As long as at most one waits, nobody notices. When several do, the first stays at the bottom: each newcomer passes it,
and it waits until its time is over, while the average looks fine. That is how a service has a good median and a bad
99th percentile. (Some large services serve the newest first on purpose, under overload, as the oldest have probably
given up. They decide that; they do not get it from a list.)

Serve in order of arrival: a deque, and `popleft`.

Read: "A wait that ends" in the chapter Bulkheads.
"""

from collections.abc import Callable
from threading import Event, Lock
from typing import TypeVar

from flask import Flask, current_app

from shop.reliability.failures import NotAsked
from shop.settings import settings_of

T = TypeVar("T")


class Bulkhead:
    """Room for some calls at once, and for a few that wait."""

    def __init__(self, size: int, queue: int, wait_seconds: float) -> None:
        self._free, self._queue = size, queue
        self._wait_seconds = wait_seconds
        self._waiting: list[Event] = []
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
            if len(self._waiting) >= self._queue:
                raise NotAsked("too many wait already", retry_after=1)
            turn = Event()
            self._waiting.append(turn)
        if turn.wait(self._wait_seconds):
            return
        with self._lock:
            if turn.is_set():  # it came at the last moment
                return
            self._waiting.remove(turn)
        raise NotAsked("no call ended in time", retry_after=1)

    def _give_back(self) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.pop().set()
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
