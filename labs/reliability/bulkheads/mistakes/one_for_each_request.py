"""Each request has a bulkhead of its own, in `flask.g`, so no request is ever in another's way.

What is to be limited is what all requests do at once. `g` lives as long as one request, and the next gets a new one
with all places free. The same happens with a semaphore made inside `run`, or kept in thread-local storage. Every test
with one request passes. Under load all of them call at once, as if the file were empty; the one thing that is limited
is a single request that makes several calls, which needs no limit.

Make it once for the application, in `init_app`, and keep it in `app.extensions`.

Read: "One compartment for each dependency" in the chapter Bulkheads.
"""

from collections.abc import Callable
from threading import BoundedSemaphore
from typing import TypeVar

from flask import Flask, current_app, g

from shop.reliability.failures import NotAsked
from shop.settings import settings_of

T = TypeVar("T")


def init_app(app: Flask) -> None:
    """Nothing is made before there is a request."""


def run(dependency: str, function: Callable[[], T]) -> T:
    """Make a call to a dependency when there is room for it.

    Args:
        dependency: `payments` or `delivery`.
        function: makes the call.

    Raises:
        shop.reliability.failures.NotAsked: there was no room.
        Exception: whatever `function` raises.
    """
    settings = settings_of(current_app)
    inside, calling = g.setdefault(
        f"bulkhead of {dependency}",
        (
            BoundedSemaphore(settings.bulkhead_size + settings.bulkhead_queue),
            BoundedSemaphore(settings.bulkhead_size),
        ),
    )
    if not inside.acquire(blocking=False):
        raise NotAsked("too many wait already", retry_after=1)
    try:
        if not calling.acquire(timeout=settings.bulkhead_wait_seconds):
            raise NotAsked("no call ended in time", retry_after=1)
        try:
            return function()
        finally:
            calling.release()
    finally:
        inside.release()
