"""A thread for each breaker owns what is known, and callers send it messages: no lock, and nothing is shared.

A refusal is no success here and no failure: the probe has come back, and the next caller is the next probe. Time is
remembered as the moments of the newest calls and of the newest failures among them.
"""

import itertools
import queue
import threading
import time
from bisect import bisect_left
from collections.abc import Callable
from concurrent.futures import Future
from typing import Literal, TypeVar

from flask import Flask, current_app
from prometheus_client import Gauge

from shop.models import PaymentStatus
from shop.reliability.failures import NotAsked, Refused, Unavailable
from shop.settings import Settings, settings_of

T = TypeVar("T")

Outcome = Literal["succeeded", "refused", "failed"]
GAUGE = Gauge("circuit_breaker_state", "0 closed, 1 half-open, 2 open", ["dependency"])


class Decider(threading.Thread):
    """Answers whether a call may be made, and hears how it ended, one message after another."""

    def __init__(self, dependency: str, settings: Settings) -> None:
        super().__init__(name=f"breaker of {dependency}", daemon=True)
        self._settings = settings
        self._gauge = GAUGE.labels(dependency)
        self._gauge.set(0)
        self._messages: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()

    def ask(self) -> int:
        """The number of a call; raises NotAsked."""
        answer: Future[int] = Future()
        self._messages.put(lambda: self._decide(answer))
        return answer.result()

    def tell(self, number: int, outcome: Outcome) -> None:
        """How the call of that number ended."""
        heard: Future[None] = Future()
        self._messages.put(lambda: heard.set_result(self._hear(number, outcome)))
        heard.result()

    def run(self) -> None:
        """Deal with messages, for as long as the process lives."""
        self._numbers = itertools.count()
        self._closed()
        while True:
            self._messages.get()()

    def _closed(self) -> None:
        self._open = False
        self._since = next(self._numbers)  # calls with smaller numbers began before
        self._calls: list[float] = []
        self._failures: list[float] = []
        self._gauge.set(0)

    def _opened(self, now: float) -> None:
        self._open = True
        self._probe: int | None = None
        self._successes = 0
        self._shut_until = now + self._settings.breaker_recovery_seconds
        self._gauge.set(2)

    def _decide(self, answer: "Future[int]") -> None:
        now = time.monotonic()
        if self._open and now < self._shut_until:
            answer.set_exception(NotAsked("it is not asked now", retry_after=self._shut_until - now))
            return
        number = next(self._numbers)
        if self._open:
            self._successes = self._successes if self._probe is None else 0
            self._probe = number
            self._shut_until = now + self._settings.breaker_recovery_seconds
            self._gauge.set(1)
        answer.set_result(number)

    def _hear(self, number: int, outcome: Outcome) -> None:
        now = time.monotonic()
        if self._open:
            if number == self._probe:
                self._hear_probe(now, outcome)
        elif number > self._since and outcome != "refused":
            self._count(now, failed=outcome == "failed")

    def _hear_probe(self, now: float, outcome: Outcome) -> None:
        if outcome == "failed":
            self._opened(now)
            return
        self._probe, self._shut_until = None, now
        self._successes += outcome == "succeeded"
        if self._successes == self._settings.breaker_successes:
            self._closed()

    def _count(self, now: float, *, failed: bool) -> None:
        self._calls.append(now)
        if failed:
            self._failures.append(now)
        for moments in (self._calls, self._failures):
            del moments[: bisect_left(moments, now - self._settings.breaker_window_seconds)]
        if len(self._calls) < self._settings.breaker_minimum_calls:
            return
        if len(self._failures) >= self._settings.breaker_failure_rate * len(self._calls):
            self._opened(now)


def init_app(app: Flask) -> None:
    """Make the breakers, and start their threads."""
    deciders = {name: Decider(name, settings_of(app)) for name in ("payments", "delivery")}
    for decider in deciders.values():
        decider.start()
    app.extensions["deciders"] = deciders


def call(dependency: str, function: Callable[[], T]) -> T:
    """Make a call to a dependency, unless it has been failing."""
    decider: Decider = current_app.extensions["deciders"][dependency]
    number = decider.ask()
    outcome: Outcome = "failed"
    try:
        result = function()
        outcome = "succeeded"
    except Refused:
        outcome = "refused"
        raise
    finally:
        decider.tell(number, outcome)
    return result


def fallback(error: Unavailable) -> PaymentStatus | None:  # noqa: ARG001 - whatever it was
    """Nobody knows: pending."""
    return "pending"
