"""stamina repeats; a hook tells it how long to wait. Whoever drips is hung up on by a timer.

The budget counts the calls and the retries of the last ten seconds.
"""

import random
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from time import monotonic
from typing import Any, cast

import httpx2
import stamina
from flask import Flask, current_app

from shop import outgoing
from shop.reliability.failures import Refused, Unavailable
from shop.settings import Settings, settings_of

Json = dict[str, Any]

OVER_SOON = frozenset(
    {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT}
)
WINDOW = 10.0
YEAR = 365 * 24 * 60 * 60


class Passing(Unavailable):
    """It may be over soon, and to ask again does no harm."""


@dataclass(frozen=True)
class Charge:
    """Money taken, under the provider's reference."""

    reference: str


@dataclass(frozen=True)
class Quote:
    """What a delivery costs, in minor units, and how many days it takes."""

    speed: str
    amount: int
    currency: str
    days: int


class Window:
    """What was counted in the last ten seconds."""

    def __init__(self) -> None:
        self._moments: deque[float] = deque()

    def add(self) -> None:
        """Count one more."""
        self._moments.append(monotonic())

    def __len__(self) -> int:
        while self._moments and self._moments[0] < monotonic() - WINDOW:
            self._moments.popleft()
        return len(self._moments)


class Budget:
    """Allows some retries, and a share of the calls besides."""

    def __init__(self, settings: Settings) -> None:
        self._most, self._share = settings.retry_budget, settings.retry_budget_share
        self._calls, self._retries, self._lock = Window(), Window(), threading.Lock()

    def call(self) -> None:
        """Count a call."""
        with self._lock:
            self._calls.add()

    def retry(self) -> bool:
        """Count a retry, if there may be one."""
        with self._lock:
            allowed = len(self._retries) + 1 <= self._most + self._share * len(self._calls)
            if allowed:
                self._retries.add()
        return allowed


class Provider:
    """The HTTP interface of one of them.

    Args:
        url: where it is; none: it can be asked for nothing.
        settings: how long and how often it is asked.
    """

    def __init__(self, url: str | None, settings: Settings) -> None:
        self._url, self._settings, self._budget = url, settings, Budget(settings)
        self._client = httpx2.Client(limits=httpx2.Limits(max_connections=None))

    def request(self, method: str, path: str, *, repeatable: bool, **options: Any) -> Json:
        """Ask, again if need be, and give what was answered.

        Raises:
            Refused: it said no.
            Unavailable: it could not be reached, took too long, or failed.
        """
        if self._url is None:
            raise Unavailable("its address is not set")
        self._budget.call()
        until = monotonic() + self._settings.deadline_seconds
        again = self._hook(until)
        for attempt in stamina.retry_context(on=again, attempts=self._settings.retry_attempts, timeout=None):
            with attempt:
                return self._attempt(method, self._url.rstrip("/") + path, until, repeatable=repeatable, **options)
        raise AssertionError("stamina raises the last failure")

    def _hook(self, until: float) -> Callable[[Exception], bool | float]:
        """Says after how many seconds to try again; False for not at all."""
        longest = self._settings.retry_wait_seconds

        def again(failure: Exception) -> bool | float:
            nonlocal longest
            current_app.logger.warning("an attempt failed: %s", failure)
            if not isinstance(failure, Passing):
                return False
            wait = max(random.uniform(longest / 2, longest), failure.retry_after or 0)  # noqa: S311 - no secret
            longest *= 2
            return wait if monotonic() + wait < until and self._budget.retry() else False

        return again

    def _attempt(
        self, method: str, url: str, until: float, *, repeatable: bool, headers: Json | None = None, **options: Any
    ) -> Json:
        headers = outgoing.headers() | (headers or {})
        kind = Passing if repeatable else Unavailable
        try:
            asked = self._client.stream(method, url, headers=headers, timeout=self._timeout(until), **options)
            with asked as response, _hanging_up(response, until):
                response.read()
            return _content(response, kind)
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            raise Passing(f"{type(error).__name__}: {error}") from error
        except (httpx2.RequestError, ValueError) as error:
            raise kind(f"{type(error).__name__}: {error}") from error

    def _timeout(self, until: float) -> httpx2.Timeout:
        left = max(until - monotonic(), 0.001)
        settings = self._settings
        return httpx2.Timeout(
            min(settings.read_timeout_seconds, left), connect=min(settings.connect_timeout_seconds, left)
        )


@contextmanager
def _hanging_up(response: httpx2.Response, until: float) -> Iterator[None]:
    """End the connection when the time is over."""
    connection = response.extensions["network_stream"].get_extra_info("socket")

    def hang_up() -> None:
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(until - monotonic(), hang_up)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _content(response: httpx2.Response, kind: type[Unavailable]) -> Json:
    if response.status_code in OVER_SOON:
        raise kind(f"it answered {response.status_code}", retry_after=_retry_after(response.headers))
    if response.is_client_error:
        raise Refused(f"it answered {response.status_code}", status=response.status_code)
    if response.is_error:
        raise Unavailable(f"it answered {response.status_code}")
    return cast("Json", response.json())


def _retry_after(headers: httpx2.Headers) -> float | None:
    told = headers.get("Retry-After", "")
    with suppress(ValueError):
        if told.isdigit():
            return min(float(told), YEAR)
        return max(0.0, (parsedate_to_datetime(told).astimezone(UTC) - datetime.now(UTC)).total_seconds())
    return None


class PaymentProvider(Provider):
    """Takes money. Two requests with the same idempotency key are one charge."""

    def charge(self, *, amount: int, currency: str, reference: str, idempotency_key: str) -> Charge:
        """Take money.

        Args:
            amount: in minor units.
            currency: of the amount, as of ISO 4217.
            reference: ours, which the provider keeps beside its own.
            idempotency_key: of this charge and no other.

        Raises:
            ProviderError: no money was taken, as far as can be known.
        """
        charge = {"amount": amount, "currency": currency, "reference": reference}
        key = {"Idempotency-Key": idempotency_key}  # the same on each attempt
        answer = self.request("POST", "/charges", repeatable=True, json=charge, headers=key)
        return Charge(reference=_field(answer, "id", str))


class DeliveryCompany(Provider):
    """Knows what a delivery costs, and sends couriers. It knows no idempotency keys: two bookings are two couriers."""

    def quote(self, *, city: str, items: int, speed: str) -> Quote:
        """What it costs to have a number of items taken to a city.

        Raises:
            ProviderError: it cannot be had.
        """
        wanted = {"city": city, "items": items, "speed": speed}
        answer = self.request("GET", "/quotes", repeatable=True, params=wanted)
        price = _field(answer, "price", dict)
        return Quote(speed, _field(price, "amount", int), _field(price, "currency", str), _field(answer, "days", int))

    def book_pickup(self, *, reference: str) -> str:
        """Have a courier come; returns the number of the booking.

        Raises:
            ProviderError: no courier comes, as far as can be known.
        """
        answer = self.request("POST", "/pickups", repeatable=False, json={"reference": reference})
        return str(_field(answer, "id", str))


def init_app(app: Flask) -> None:
    """Give the application its clients."""
    settings = settings_of(app)
    payments_url, delivery_url = (str(url) if url else None for url in (settings.payments_url, settings.delivery_url))
    app.extensions["payments"] = PaymentProvider(payments_url, settings)
    app.extensions["delivery"] = DeliveryCompany(delivery_url, settings)


def payments() -> PaymentProvider:
    """The payment provider of the current application."""
    return cast("PaymentProvider", current_app.extensions["payments"])


def delivery() -> DeliveryCompany:
    """The delivery company of the current application."""
    return cast("DeliveryCompany", current_app.extensions["delivery"])


def _field(answer: Json, name: str, kind: type) -> Any:
    if not isinstance(answer, dict) or not isinstance(answer.get(name), kind):
        raise Unavailable(f"its answer has no {name} that makes sense")
    return answer[name]
