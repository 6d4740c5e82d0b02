"""A probe that fails opens the breaker again, but the recovery time is still counted from when it opened first, and
that is over. So the next caller is a probe again, at once, and so is the one after.

The breaker says "open", and a sick provider is asked without a pause, one call after another. Each of these callers
waits for a timeout. It is the retry loop that the breaker was to replace, with one thread. A provider that needs a
quiet minute to start does not get it.

A failed probe opens the breaker like any other failure that opens it: from now on, for a whole recovery time.

Read: "One probe" in the chapter Circuit breaker.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from enum import IntEnum
from typing import TypeVar

from flask import Flask, current_app
from prometheus_client import Gauge

from shop.models import PaymentStatus
from shop.reliability.failures import NotAsked, Refused, Unavailable
from shop.settings import Settings, settings_of

T = TypeVar("T")

DEPENDENCIES = ("payments", "delivery")
STATE = Gauge(
    "circuit_breaker_state",
    "Whether a dependency is asked: 0 closed, 1 half-open, 2 open.",
    ["dependency"],
    multiprocess_mode="livemax",  # of several workers, the one that is worst off
)


class State(IntEnum):
    """What a breaker does with a call, by the value that the metric has."""

    CLOSED = 0  # lets it through
    HALF_OPEN = 1  # lets one through at a time, to see
    OPEN = 2  # lets none through


class Breaker:
    """Stands before one dependency, for all threads of the process.

    What a call has to tell counts only while its ticket is the current one.

    Args:
        dependency: its name.
        settings: those that begin with `breaker_`.
    """

    _probing: bool  # whether a probe is out; this and the next two for as long as it is not closed
    _opened: float
    _probe_began: float

    def __init__(self, dependency: str, settings: Settings) -> None:
        self._dependency = dependency
        self._settings = settings
        self._turn = threading.Lock()  # held to read and write what is below, and never during a call
        self._ticket = 0
        self._close()

    def call(self, function: Callable[[], T]) -> T:
        """Make a call, as of the module's `call`."""
        ticket = self._enter()
        try:
            result = function()
        except BaseException as error:  # whatever it is: a probe must not be lost
            self._leave(ticket, failed=not isinstance(error, Refused))  # who refuses is well
            raise
        self._leave(ticket, failed=False)
        return result

    def _enter(self) -> int:
        """Give a call its ticket.

        Raises:
            NotAsked: it may not be made.
        """
        with self._turn:
            if self._state is not State.CLOSED:
                self._enter_as_probe(time.monotonic())
            return self._ticket

    def _enter_as_probe(self, now: float) -> None:
        recovery = self._settings.breaker_recovery_seconds
        if now < self._opened + recovery:
            raise NotAsked(f"{self._dependency} has been failing", retry_after=self._opened + recovery - now)
        if self._probing and now < self._probe_began + recovery:
            raise NotAsked(f"{self._dependency} is being tried", retry_after=self._probe_began + recovery - now)
        if self._probing:  # the last probe has not come back: it is given up, and was no success
            self._successes = 0
        self._become(State.HALF_OPEN)
        self._probing = True
        self._probe_began = now

    def _leave(self, ticket: int, *, failed: bool) -> None:
        """Hear how a call ended."""
        with self._turn:
            if ticket != self._ticket:
                return
            now = time.monotonic()
            if self._state is State.CLOSED:
                self._remember(now, failed=failed)
                if self._too_many_failed():
                    self._open(now)
            elif failed:
                self._probe_failed()
            else:
                self._probe_succeeded()

    def _probe_failed(self) -> None:
        self._probing = False
        self._successes = 0
        self._become(State.OPEN)

    def _probe_succeeded(self) -> None:
        self._probing = False
        self._successes += 1
        if self._successes >= self._settings.breaker_successes:
            self._close()

    def _remember(self, now: float, *, failed: bool) -> None:
        self._outcomes.append((now, failed))
        self._failures += failed
        while self._outcomes[0][0] < now - self._settings.breaker_window_seconds:
            self._failures -= self._outcomes.popleft()[1]

    def _too_many_failed(self) -> bool:
        calls = len(self._outcomes)
        if calls < self._settings.breaker_minimum_calls:
            return False
        return self._failures / calls >= self._settings.breaker_failure_rate

    def _close(self) -> None:
        self._outcomes: deque[tuple[float, bool]] = deque()  # when calls ended, and whether they failed
        self._failures = 0  # of these
        self._become(State.CLOSED)

    def _open(self, now: float) -> None:
        self._probing = False
        self._successes = 0  # of probes, in a row
        self._opened = now
        self._become(State.OPEN)

    def _become(self, state: State) -> None:
        self._state = state
        self._ticket += 1
        STATE.labels(self._dependency).set(state)


def init_app(app: Flask) -> None:
    """Make a breaker for each dependency of the application, for all of its requests."""
    settings = settings_of(app)
    app.extensions["breakers"] = {dependency: Breaker(dependency, settings) for dependency in DEPENDENCIES}


def call(dependency: str, function: Callable[[], T]) -> T:
    """Make a call to a dependency, unless it has been failing.

    Args:
        dependency: `payments` or `delivery`.
        function: makes the call.

    Raises:
        shop.reliability.failures.NotAsked: the breaker is open.
        Exception: whatever `function` raises: `Refused` if the dependency said no, `Unavailable` if it failed.
    """
    breaker: Breaker = current_app.extensions["breakers"][dependency]
    return breaker.call(function)


def fallback(error: Unavailable) -> PaymentStatus | None:  # noqa: ARG001 - whatever it was
    """As what a payment is recorded when the provider could not be asked or did not answer.

    Asked or not, nobody here knows that the money was taken, and nobody knows that it was not. A payment that is
    recorded as pending is charged later under the key that it has had from the beginning.
    """
    return "pending"
