"""How many requests may wait for a dependency at once: a few for each, and one dependency's are none of another's.

Its settings are those of `shop.settings` that begin with `bulkhead_`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import BoundedSemaphore
from typing import TypeVar

from flask import Flask, current_app

from shop.reliability.failures import NotAsked
from shop.settings import settings_of

T = TypeVar("T")

DEPENDENCIES = ("payments", "delivery")
RETRY_AFTER_SECONDS = 1.0  # nobody knows when there will be room; this only spares whoever is asked in a loop


# [start:bulkhead]
class Bulkhead:
    """Room for some calls of one dependency at once, and for a few that wait until they may be made.

    A call is made in its caller's own thread, so it has its context, and an error of its goes to whoever called.

    Args:
        dependency: its name.
        size: most calls at once.
        queue: most callers that wait.
        wait_seconds: how long they wait at most.
    """

    def __init__(self, dependency: str, *, size: int, queue: int, wait_seconds: float) -> None:
        self._dependency = dependency
        self._wait_seconds = wait_seconds
        self._inside = BoundedSemaphore(size + queue)  # those who call and those who wait
        self._calling = BoundedSemaphore(size)

    def run(self, function: Callable[[], T]) -> T:
        """Make a call when there is room for it, as of the module's `run`."""
        with (
            self._place(self._inside, 0, "too many wait already"),
            self._place(self._calling, self._wait_seconds, "no call ended in time"),
        ):
            return function()

    @contextmanager
    def _place(self, places: BoundedSemaphore, wait_seconds: float, otherwise: str) -> Iterator[None]:
        """Have one of some places while the block runs, whatever becomes of it."""
        if not places.acquire(timeout=wait_seconds):
            raise NotAsked(f"{self._dependency}: {otherwise}", retry_after=RETRY_AFTER_SECONDS)
        try:
            yield
        finally:
            places.release()


# [end:bulkhead]


# [start:compartments]
def init_app(app: Flask) -> None:
    """Make a bulkhead for each dependency of the application, for all of its requests."""
    settings = settings_of(app)
    app.extensions["bulkheads"] = {
        dependency: Bulkhead(
            dependency,
            size=settings.bulkhead_size,
            queue=settings.bulkhead_queue,
            wait_seconds=settings.bulkhead_wait_seconds,
        )
        for dependency in DEPENDENCIES
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


# [end:compartments]
