"""How many requests may wait for a dependency at once. Here: all of them.

Its settings are those of `shop.settings` that begin with `bulkhead_`.
"""

from collections.abc import Callable
from typing import TypeVar

from flask import Flask

T = TypeVar("T")


def init_app(app: Flask) -> None:
    """The place to make the bulkheads of the application."""


def run(dependency: str, function: Callable[[], T]) -> T:  # noqa: ARG001 - all are treated alike
    """Make a call to a dependency when there is room for it.

    Args:
        dependency: `payments` or `delivery`.
        function: makes the call.

    Raises:
        shop.reliability.failures.NotAsked: there was no room.
        Exception: whatever `function` raises.
    """
    return function()
