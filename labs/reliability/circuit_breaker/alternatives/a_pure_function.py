"""The breaker is a value, and two functions from value to value; a lock is held to put one value in another's place.

Nothing is changed in place, so every step can be tested without threads, clocks or sleeping.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from flask import Flask, current_app
from prometheus_client import Gauge

from shop.models import PaymentStatus
from shop.reliability.failures import NotAsked, Refused, Unavailable
from shop.settings import Settings, settings_of

T = TypeVar("T")

GAUGE = Gauge("circuit_breaker_state", "0 closed, 1 half-open, 2 open", ["dependency"])
VALUES = {"closed": 0, "half-open": 1, "open": 2}


@dataclass(frozen=True)
class Breaker:
    """All that is known of a dependency.

    Attributes:
        era: how many times the state or the probe has changed.
        calls: when calls ended, newest last, and whether they failed; only while closed.
        successes: of probes in a row.
        not_before: when the next probe may be made.
    """

    state: Literal["closed", "half-open", "open"] = "closed"
    era: int = 0
    calls: tuple[tuple[float, bool], ...] = ()
    successes: int = 0
    probing: bool = False
    not_before: float = 0.0


def entered(breaker: Breaker, now: float, settings: Settings) -> Breaker | None:
    """What it is after letting a call through; None if it does not."""
    if breaker.state == "closed":
        return breaker
    if now < breaker.not_before:
        return None
    return replace(
        breaker,
        state="half-open",
        era=breaker.era + 1,
        successes=0 if breaker.probing else breaker.successes,
        probing=True,
        not_before=now + settings.breaker_recovery_seconds,
    )


def left(breaker: Breaker, now: float, settings: Settings, *, failed: bool) -> Breaker:
    """What it is after one of its calls has ended."""
    opened = Breaker("open", breaker.era + 1, not_before=now + settings.breaker_recovery_seconds)
    if breaker.state != "closed":
        if failed:
            return opened
        if breaker.successes + 1 == settings.breaker_successes:
            return Breaker(era=breaker.era + 1)
        return replace(breaker, successes=breaker.successes + 1, probing=False, not_before=now)
    begin = now - settings.breaker_window_seconds
    calls = (*(call for call in breaker.calls if call[0] > begin), (now, failed))
    failures = sum(failed for _, failed in calls)
    if len(calls) >= settings.breaker_minimum_calls and failures / len(calls) >= settings.breaker_failure_rate:
        return opened
    return replace(breaker, calls=calls)


class Cell:
    """Holds the value."""

    def __init__(self, dependency: str, settings: Settings) -> None:
        self._gauge = GAUGE.labels(dependency)
        self._settings = settings
        self._lock = threading.Lock()
        self._put(Breaker())

    def _put(self, breaker: Breaker) -> None:
        self._value = breaker
        self._gauge.set(VALUES[breaker.state])

    def enter(self) -> int:
        """Returns the era in which the call begins."""
        with self._lock:
            now = time.monotonic()
            after = entered(self._value, now, self._settings)
            if after is None:
                raise NotAsked("the breaker is open", retry_after=self._value.not_before - now)
            self._put(after)
            return after.era

    def leave(self, era: int, *, failed: bool) -> None:
        """Take in how a call of that era ended."""
        with self._lock:
            if era == self._value.era:
                self._put(left(self._value, time.monotonic(), self._settings, failed=failed))


def init_app(app: Flask) -> None:
    """Make the breakers."""
    app.extensions["circuit_breaker"] = {name: Cell(name, settings_of(app)) for name in ("payments", "delivery")}


def call(dependency: str, function: Callable[[], T]) -> T:
    """Make a call to a dependency, unless it has been failing."""
    cell: Cell = current_app.extensions["circuit_breaker"][dependency]
    era = cell.enter()
    try:
        result = function()
    except Refused:
        cell.leave(era, failed=False)
        raise
    except BaseException:
        cell.leave(era, failed=True)
        raise
    cell.leave(era, failed=False)
    return result


def fallback(error: Unavailable) -> PaymentStatus | None:  # noqa: ARG001 - whatever it was
    """Nobody knows: pending."""
    return "pending"
