"""A call needs one of a few tokens, which lie in a queue; to wait needs one of another kind, for which nobody waits."""

from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import TypeVar

from flask import Flask, current_app

from shop.reliability.failures import NotAsked
from shop.settings import settings_of

T = TypeVar("T")


class Bulkhead:
    """Tokens for some calls at once, and for a few that wait."""

    def __init__(self, size: int, queue: int, wait_seconds: float) -> None:
        self._to_call = _tokens(size)
        self._to_wait = _tokens(queue)
        self._wait_seconds = wait_seconds

    def run(self, function: Callable[[], T]) -> T:
        """Make a call when there is room for it."""
        token = self._token()
        try:
            return function()
        finally:
            self._to_call.put(token)

    def _token(self) -> object:
        try:
            return self._to_call.get(block=False)
        except Empty:
            pass
        try:
            permit = self._to_wait.get(block=False)
        except Empty:
            raise NotAsked("too many wait already", retry_after=1) from None
        try:
            return self._to_call.get(timeout=self._wait_seconds)
        except Empty:
            raise NotAsked("no call ended in time", retry_after=1) from None
        finally:
            self._to_wait.put(permit)


def _tokens(count: int) -> "SimpleQueue[object]":
    tokens: SimpleQueue[object] = SimpleQueue()
    for _ in range(count):
        tokens.put(object())
    return tokens


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
