"""Each state is an object that knows what it does with a call, and the breaker is a place that holds the current one.

A call reports to the state that let it through, so what began in an earlier state tells it to an object that nobody
looks at any more. The window is ten counts, one for each tenth of it. A probe that does not come back counts as failed.
"""

import threading
import time
from collections.abc import Callable
from typing import Protocol, TypeVar

from flask import Flask, current_app
from prometheus_client import Gauge

from shop.models import PaymentStatus
from shop.reliability.failures import NotAsked, Refused, Unavailable
from shop.settings import Settings, settings_of

T = TypeVar("T")

PARTS = 10
STATE = Gauge("circuit_breaker_state", "0 closed, 1 half-open, 2 open.", ["dependency"], multiprocess_mode="max")


class State(Protocol):
    """What a breaker does at the moment. Both methods are called under its lock, and return the state that follows."""

    value: int

    def enter(self, now: float) -> "State":
        """Let a call through, or raise NotAsked."""

    def leave(self, now: float, *, failed: bool) -> "State":
        """Hear how a call ended that this state let through."""


class Closed:
    """Lets all through, and counts."""

    value = 0

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._part_seconds = settings.breaker_window_seconds / PARTS
        self._counts: dict[int, list[int]] = {}  # by part of time: calls, and failures

    def enter(self, now: float) -> State:  # noqa: ARG002 - whenever it is
        """As of `State`."""
        return self

    def leave(self, now: float, *, failed: bool) -> State:
        """As of `State`."""
        part = int(now / self._part_seconds)
        self._counts = {at: counts for at, counts in self._counts.items() if at > part - PARTS}
        counts = self._counts.setdefault(part, [0, 0])
        counts[0] += 1
        counts[1] += failed
        calls, failures = (sum(column) for column in zip(*self._counts.values(), strict=True))
        enough = calls >= self._settings.breaker_minimum_calls
        if enough and failures >= calls * self._settings.breaker_failure_rate:
            return Open(self._settings, now)
        return self


class Open:
    """Lets none through until its time is over."""

    value = 2

    def __init__(self, settings: Settings, now: float) -> None:
        self._settings = settings
        self._until = now + settings.breaker_recovery_seconds

    def enter(self, now: float) -> State:
        """As of `State`."""
        if now < self._until:
            raise NotAsked("it has been failing", retry_after=self._until - now)
        return HalfOpen(self._settings, now)

    def leave(self, now: float, *, failed: bool) -> State:  # noqa: ARG002 - it let none through
        """As of `State`."""
        return self


class HalfOpen:
    """One probe is under way, or may be."""

    value = 1

    def __init__(self, settings: Settings, now: float, successes: int = 0) -> None:
        self._settings = settings
        self._successes = successes
        self._given_up = now + settings.breaker_recovery_seconds

    def enter(self, now: float) -> State:
        """As of `State`."""
        if now < self._given_up:
            raise NotAsked("it is being tried", retry_after=self._given_up - now)
        return HalfOpen(self._settings, now)

    def leave(self, now: float, *, failed: bool) -> State:
        """As of `State`."""
        if failed:
            return Open(self._settings, now)
        if self._successes + 1 >= self._settings.breaker_successes:
            return Closed(self._settings)
        return Waiting(self._settings, self._successes + 1)


class Waiting:
    """Half-open, between two probes."""

    value = 1

    def __init__(self, settings: Settings, successes: int) -> None:
        self._settings = settings
        self._successes = successes

    def enter(self, now: float) -> State:
        """As of `State`."""
        return HalfOpen(self._settings, now, self._successes)

    def leave(self, now: float, *, failed: bool) -> State:  # noqa: ARG002 - it let none through
        """As of `State`."""
        return self


class Breaker:
    """Holds the current state of one dependency."""

    def __init__(self, settings: Settings, gauge: Gauge) -> None:
        self._lock = threading.Lock()
        self._gauge = gauge
        self._state: State = Closed(settings)
        gauge.set(self._state.value)

    def call(self, function: Callable[[], T]) -> T:
        """Make a call."""
        with self._lock:
            mine = self._become(self._state.enter(time.monotonic()))
        failed = True
        try:
            result = function()
            failed = False
        except Refused:
            failed = False
            raise
        finally:
            with self._lock:
                if self._state is mine:
                    self._become(mine.leave(time.monotonic(), failed=failed))
        return result

    def _become(self, state: State) -> State:
        self._state = state
        self._gauge.set(state.value)
        return state


def init_app(app: Flask) -> None:
    """Make the breakers."""
    app.extensions["breakers"] = {
        name: Breaker(settings_of(app), STATE.labels(name)) for name in ("payments", "delivery")
    }


def call(dependency: str, function: Callable[[], T]) -> T:
    """Make a call to a dependency, unless it has been failing."""
    breaker: Breaker = current_app.extensions["breakers"][dependency]
    return breaker.call(function)


def fallback(error: Unavailable) -> PaymentStatus | None:  # noqa: ARG001 - whatever it was
    """Nobody knows: pending."""
    return "pending"
