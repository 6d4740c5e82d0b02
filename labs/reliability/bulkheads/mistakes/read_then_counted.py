"""The number of calls is read, compared, and only then raised: between the two everybody else reads the old number.

It is kept in Valkey, so that all workers share one limit, and asking Valkey takes a moment. Twenty requests that come
in the same moment all read 0, and all go. That is check-then-act; in one process a lock around both steps cures it,
in Valkey an INCR whose answer is compared, or a script. It is invisible as long as requests come one by one.

The number has another fault there: a worker that is killed never counts its calls down, and the places are lost for
all workers until somebody resets the key. And each payment now needs Valkey. A limit for each process needs neither.

Read: "Count and take in one step" in the chapter Bulkheads.
"""

import time
from collections.abc import Callable
from typing import TypeVar

import redis
from flask import Flask, current_app

from shop.reliability.failures import NotAsked
from shop.settings import settings_of

T = TypeVar("T")

POLL_SECONDS = 0.01


class Bulkhead:
    """Room for some calls at once, of all processes together, and for a few that wait."""

    def __init__(self, client: redis.Redis, name: str, size: int, queue: int, wait_seconds: float) -> None:
        self._client = client
        self._calls, self._waits = f"bulkhead:{name}:calls", f"bulkhead:{name}:waits"
        self._size, self._queue = size, queue
        self._wait_seconds = wait_seconds

    def run(self, function: Callable[[], T]) -> T:
        """Make a call when there is room for it."""
        if self._number(self._calls) >= self._size:
            self._wait()
        self._client.incr(self._calls)
        try:
            return function()
        finally:
            self._client.decr(self._calls)

    def _wait(self) -> None:
        if self._number(self._waits) >= self._queue:
            raise NotAsked("too many wait already", retry_after=1)
        self._client.incr(self._waits)
        try:
            deadline = time.monotonic() + self._wait_seconds
            while self._number(self._calls) >= self._size:
                if time.monotonic() > deadline:
                    raise NotAsked("no call ended in time", retry_after=1)
                time.sleep(POLL_SECONDS)
        finally:
            self._client.decr(self._waits)

    def _number(self, key: str) -> int:
        return int(self._client.get(key) or 0)


def init_app(app: Flask) -> None:
    """Make a bulkhead for each dependency, whose numbers all workers share."""
    settings = settings_of(app)
    client = redis.Redis.from_url(str(settings.redis_url), socket_timeout=2, socket_connect_timeout=2)
    app.extensions["bulkheads"] = {
        dependency: Bulkhead(
            client, dependency, settings.bulkhead_size, settings.bulkhead_queue, settings.bulkhead_wait_seconds
        )
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
