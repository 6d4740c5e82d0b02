"""A few threads for each dependency, the caller's context copied to them, and a bound for those who wait.

Whoever has waited in vain takes its call back. If that comes too late, the call is being made, and is waited for.
"""

import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import BoundedSemaphore, Event
from typing import TypeVar

from flask import Flask, current_app

from shop.reliability.failures import NotAsked
from shop.settings import settings_of

T = TypeVar("T")


class Bulkhead:
    """Threads that make the calls of one dependency, and a limit for those who wait for them."""

    def __init__(self, size: int, queue: int, wait_seconds: float) -> None:
        self._threads = ThreadPoolExecutor(size)
        self._inside = BoundedSemaphore(size + queue)
        self._wait_seconds = wait_seconds

    def run(self, function: Callable[[], T]) -> T:
        """Make a call when there is room for it."""
        if not self._inside.acquire(blocking=False):
            raise NotAsked("too many wait already", retry_after=1)
        try:
            begun = Event()

            def call() -> T:
                begun.set()
                return function()

            future = self._threads.submit(contextvars.copy_context().run, call)
            if not begun.wait(self._wait_seconds) and future.cancel():
                raise NotAsked("no call ended in time", retry_after=1)
            return future.result()
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
