"""tenacity, put together from its parts: what to repeat, when to stop, how long to wait, what to log.

The answer is read in chunks, with a look at the clock after each. The budget is one of the reasons to stop.
"""

import threading
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from time import monotonic
from typing import Any, cast

import httpx2
import tenacity
from flask import Flask, current_app

from shop import outgoing
from shop.reliability.failures import Refused, Unavailable
from shop.settings import Settings, settings_of

Json = dict[str, Any]

OVER_SOON = frozenset(
    {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT}
)
YEAR = 365 * 24 * 60 * 60


class Passing(Unavailable):
    """It may be over soon."""


class NotSent(Passing):
    """No connection was made: the request has not arrived."""


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


class budget_is_spent(tenacity.stop.stop_base):  # noqa: N801 - as tenacity calls its parts
    """Stops when there are no retries left. Each call adds a share of one."""

    def __init__(self, most: float, share: float) -> None:
        self._most, self._share, self._left, self._lock = most, share, most, threading.Lock()

    def add(self) -> None:
        """A call is made."""
        with self._lock:
            self._left = min(self._most, self._left + self._share)

    def __call__(self, retry_state: tenacity.RetryCallState) -> bool:  # noqa: ARG002 - as tenacity calls it
        """Take one, unless there is none."""
        with self._lock:
            if self._left < 1:
                return True
            self._left -= 1
            return False


class wait_as_told(tenacity.wait.wait_base):  # noqa: N801 - as above
    """Waits for as long as Retry-After says."""

    def __call__(self, retry_state: tenacity.RetryCallState) -> float:
        """In seconds; 0 if it said nothing."""
        failure = retry_state.outcome and retry_state.outcome.exception()
        return getattr(failure, "retry_after", None) or 0.0


class wait_longest(tenacity.wait.wait_base):  # noqa: N801 - as above
    """Waits for the longest of several waits."""

    def __init__(self, *waits: tenacity.wait.wait_base) -> None:
        self._waits = waits

    def __call__(self, retry_state: tenacity.RetryCallState) -> float:
        """In seconds."""
        return max(wait(retry_state) for wait in self._waits)


class Provider:
    """The HTTP interface of one of them.

    Args:
        url: where it is; none: it can be asked for nothing.
        settings: how long and how often it is asked.
    """

    def __init__(self, url: str | None, settings: Settings) -> None:
        self._url, self._settings = url, settings
        self._client = httpx2.Client(limits=httpx2.Limits(max_connections=None))
        self._budget = budget_is_spent(settings.retry_budget, settings.retry_budget_share)

    def request(self, method: str, path: str, *, repeatable: bool, **options: Any) -> Json:
        """Ask, again if need be, and give what was answered.

        Raises:
            Refused: it said no.
            Unavailable: it could not be reached, took too long, or failed.
        """
        if self._url is None:
            raise Unavailable("its address is not set")
        settings = self._settings
        until = monotonic() + settings.deadline_seconds
        self._budget.add()
        calling = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(Passing if repeatable else NotSent),
            stop=tenacity.stop_any(
                tenacity.stop_after_attempt(settings.retry_attempts),
                tenacity.stop_before_delay(settings.deadline_seconds),
                self._budget,
            ),
            wait=wait_longest(tenacity.wait_random_exponential(settings.retry_wait_seconds), wait_as_told()),
            after=_log,
            reraise=True,
        )
        return calling(self._attempt, method, self._url.rstrip("/") + path, until, **options)

    def _attempt(self, method: str, url: str, until: float, headers: Json | None = None, **options: Any) -> Json:
        left = max(until - monotonic(), 0.001)
        timeout = httpx2.Timeout(
            min(self._settings.read_timeout_seconds, left), connect=min(self._settings.connect_timeout_seconds, left)
        )
        asked = self._client.stream(
            method, url, headers=outgoing.headers() | (headers or {}), timeout=timeout, **options
        )
        try:
            with asked as response:
                body = bytearray()
                for chunk in response.iter_bytes():
                    body += chunk
                    if monotonic() > until:
                        raise Passing("ReadTimeout: it answers too slowly")
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            raise NotSent(f"{type(error).__name__}: {error}") from error
        except httpx2.RequestError as error:
            raise Passing(f"{type(error).__name__}: {error}") from error
        return _content(response, bytes(body))


def _log(retry_state: tenacity.RetryCallState) -> None:
    failure = retry_state.outcome and retry_state.outcome.exception()
    current_app.logger.warning("attempt %d failed: %s", retry_state.attempt_number, failure)


def _content(response: httpx2.Response, body: bytes) -> Json:
    status = response.status_code
    if status in OVER_SOON:
        raise Passing(f"it answered {status}", retry_after=_retry_after(response.headers))
    if response.is_client_error:
        raise Refused(f"it answered {status}", status=status)
    if response.is_error:
        raise Unavailable(f"it answered {status}")
    try:
        return cast("Json", httpx2.Response(status, content=body).json())
    except ValueError as error:
        raise Passing(f"its answer cannot be read: {error}") from error


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
