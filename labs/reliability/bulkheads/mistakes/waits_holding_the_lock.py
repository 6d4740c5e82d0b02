"""Whoever waits sleeps with the lock in hand, so that nobody else can even be refused, and no place be given back.

The loop looks whether a place is free, sleeps, and looks again, all inside `with self._lock`. Everybody who comes has
to take the lock first, to learn that the queue is full: they wait, unlimited and uncounted. And a call that ends
needs the lock to give its place back, so the loop waits for what cannot happen before it gives up. Each wait takes
the whole time allowed, though places are free.

Wait on a Condition, whose `wait` lets go of the lock; or on a semaphore, which has none to hold.

Read: "A wait that ends" in the chapter Bulkheads.
"""

import time
from collections.abc import Callable
from threading import Lock
from typing import TypeVar

from flask import Flask, current_app

from shop.reliability.failures import NotAsked
from shop.settings import settings_of

T = TypeVar("T")

POLL_SECONDS = 0.01


class Bulkhead:
    """Room for some calls at once, and for a few that wait."""

    def __init__(self, size: int, queue: int, wait_seconds: float) -> None:
        self._size, self._queue = size, queue
        self._wait_seconds = wait_seconds
        self._calling = self._waiting = 0
        self._lock = Lock()

    def run(self, function: Callable[[], T]) -> T:
        """Make a call when there is room for it."""
        with self._lock:
            self._take()
        try:
            return function()
        finally:
            with self._lock:
                self._calling -= 1

    def _take(self) -> None:
        if self._calling >= self._size:
            if self._waiting >= self._queue:
                raise NotAsked("too many wait already", retry_after=1)
            self._waiting += 1
            try:
                deadline = time.monotonic() + self._wait_seconds
                while self._calling >= self._size:
                    if time.monotonic() > deadline:
                        raise NotAsked("no call ended in time", retry_after=1)
                    time.sleep(POLL_SECONDS)
            finally:
                self._waiting -= 1
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
