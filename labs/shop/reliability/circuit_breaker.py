"""Whether a dependency is asked at all. Here: always, whatever became of the calls before.

A breaker stands between the shop and each of its dependencies, `payments` and `delivery`. Its settings are those of
`shop.settings` that begin with `breaker_`. Its state is told at `/metrics`, by a gauge of the client library's default
registry, `circuit_breaker_state{dependency="..."}`: 0 closed, 1 half-open, 2 open.
"""

from collections.abc import Callable
from typing import TypeVar

from flask import Flask

from shop.models import PaymentStatus
from shop.reliability.failures import Unavailable

T = TypeVar("T")


def init_app(app: Flask) -> None:
    """The place to make the breakers of the application."""


def call(dependency: str, function: Callable[[], T]) -> T:  # noqa: ARG001 - all are treated alike
    """Make a call to a dependency, unless it has been failing.

    Args:
        dependency: `payments` or `delivery`.
        function: makes the call.

    Raises:
        shop.reliability.failures.NotAsked: the breaker is open.
        Exception: whatever `function` raises: `Refused` if the dependency said no, `Unavailable` if it failed.
    """
    return function()


def fallback(error: Unavailable) -> PaymentStatus | None:  # noqa: ARG001 - whatever it was, there is none
    """As what a payment is recorded when the provider could not be asked or did not answer.

    Whoever pays is told just that: 201 for `succeeded`, 202 for `pending`. A pending payment is charged later, under
    the same idempotency key. With None the answer is 502, and nothing is promised.
    """
    return None
