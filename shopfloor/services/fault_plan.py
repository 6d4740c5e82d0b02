"""How an outside provider behaves: how long it takes, how much it can do at once, and what goes wrong.

A fault is a short text, the same wherever it is written:

| text | what happens | the work is done |
| --- | --- | --- |
| `ok` | nothing goes wrong | yes |
| `slow`, `slow 2.5` | it takes so many seconds longer (1) | yes |
| `error`, `error 500` | it answers with that status (503) | no |
| `limited`, `limited 5`, `limited 5 date` | 429 at once, Retry-After in seconds (1) or as an HTTP date | no |
| `hang` | no answer until the plan changes; then it comes after all | unless the client left before |
| `reset` | the connection is reset at once | no |
| `lost` | the connection ends without an answer | yes |
| `malformed` | the answer's JSON ends half-way | yes |
"""

import math
import random
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Literal, cast

Kind = Literal["ok", "slow", "error", "limited", "hang", "reset", "lost", "malformed"]


@dataclass(frozen=True)
class Fault:
    """What happens to a request.

    Attributes:
        text: as it is written in a plan.
        status: of the answer, of an `error`.
        seconds: how much longer it takes, of `slow`; how long to wait, of `limited`.
        as_date: whether `limited` gives a date.
    """

    text: str
    kind: Kind
    status: int = 0
    seconds: float = 0.0
    as_date: bool = False


def fault(text: str) -> Fault:
    """Read a fault.

    Raises:
        ValueError: it is none.
    """
    match text.split():
        case ["ok" | "hang" | "reset" | "lost" | "malformed" as kind]:
            return Fault(text, cast("Kind", kind))
        case ["slow", *rest] if len(rest) <= 1:
            return Fault(text, "slow", seconds=_seconds(rest, text))
        case ["error", *rest] if len(rest) <= 1:
            return Fault(text, "error", status=_status(rest, text))
        case ["limited", *rest, "date"] if len(rest) <= 1:
            return Fault(text, "limited", seconds=_seconds(rest, text), as_date=True)
        case ["limited", *rest] if len(rest) <= 1:
            return Fault(text, "limited", seconds=_seconds(rest, text))
    raise ValueError(f"{text!r} is no fault")


def _seconds(words: list[str], text: str) -> float:
    seconds = float(words[0]) if words else 1.0
    if not 0 <= seconds < math.inf:
        raise ValueError(f"{text!r}: the seconds must be 0 or more")
    return seconds


def _status(words: list[str], text: str) -> int:
    status = HTTPStatus(int(words[0])) if words else HTTPStatus.SERVICE_UNAVAILABLE
    if status < HTTPStatus.BAD_REQUEST:
        raise ValueError(f"{text!r}: the status must be 400 or more")
    return status.value


@dataclass(frozen=True)
class Plan:
    """How a provider behaves from now on. The same plan gives the same faults and times, in the order of arrival.

    Attributes:
        latency: the median of the seconds that a request takes.
        sigma: of the lognormal distribution of these seconds: 0 for no spread, 1 for a 99th percentile of ten times
            the median.
        rates: how likely each fault is, from 0 to 1, such as `{"error 503": 0.2, "hang": 0.01}`; else it is ok.
        script: what happens to the next requests, one after another, before the rates count: `("reset", "ok")`.
        capacity: how many requests are worked on at once; None for any number. One whose client has left is worked
            on all the same: it cannot be told apart until it is answered.
        queue: how many more may wait for their turn; 503 at once for those beyond.
        seed: of what is drawn.

    Raises:
        ValueError: it cannot be.
    """

    latency: float = 0.0
    sigma: float = 0.0
    rates: Mapping[str, float] = field(default_factory=dict)
    script: tuple[str, ...] = ()
    capacity: int | None = None
    queue: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        for text in (*self.rates, *self.script):
            fault(text)
        if not all(0 <= rate <= 1 for rate in self.rates.values()) or sum(self.rates.values()) > 1 + 1e-9:
            raise ValueError(f"The rates must be 0 to 1, and so must their sum: {dict(self.rates)}")
        if not (0 <= self.latency < math.inf and 0 <= self.sigma < math.inf):
            raise ValueError("latency and sigma must be 0 or more")
        if self.queue < 0 or (self.capacity is not None and self.capacity < 1):
            raise ValueError("capacity must be 1 or more, and queue 0 or more")


class Draws:
    """What a plan holds for one request after another. Not thread-safe."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._script = deque(map(fault, plan.script))
        self._rates = [(fault(text), rate) for text, rate in plan.rates.items()]
        self._random = random.Random(plan.seed)  # noqa: S311 - not for secrets

    def fault(self) -> Fault:
        """What happens to the next request."""
        if self._script:
            return self._script.popleft()
        drawn = self._random.random()
        for likely, rate in self._rates:
            if drawn < rate:
                return likely
            drawn -= rate
        return fault("ok")

    def latency(self) -> float:
        """How many seconds the next request takes: always drawn, so that it changes no fault that comes after."""
        return self.plan.latency * self._random.lognormvariate(0.0, self.plan.sigma)
