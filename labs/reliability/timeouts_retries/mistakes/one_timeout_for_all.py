"""One timeout for everything: how long an answer may take is also how long making a connection may take.

`timeout=20`, because a charge takes ten seconds on a bad day. To make a connection takes a millisecond in the same data
centre and a tenth of a second across an ocean, however busy the other side is: the kernel answers. So after a second
without a connection it is known that nobody is there, a machine that died or a packet filter that says nothing.
With one timeout for all, each request waits for twenty seconds to find out, with a thread of the shop, and then
the next attempt does. This is how an outage of somebody else becomes the shop's.

Give the connection a timeout of its own, short: `httpx2.Timeout(read, connect=connect)`.

Read: "A timeout on every call" in the chapter Timeouts and retries.
"""

import itertools
import random
import threading
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from time import monotonic, sleep
from typing import Any, cast

import httpcore2
import httpx2
from flask import Flask, current_app

from shop import outgoing
from shop.reliability.failures import Refused, Unavailable
from shop.settings import Settings, settings_of

Json = dict[str, Any]

OVER_SOON = frozenset(
    {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT}
)
NEVER_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout)


class Transient(Unavailable):
    """A failure that may be over soon.

    Attributes:
        sent: whether the request may have arrived, and so may have been done.
    """

    def __init__(self, message: str, *, sent: bool = True, retry_after: float | None = None) -> None:
        super().__init__(message, retry_after=retry_after)
        self.sent = sent


YEAR = 365 * 24 * 60 * 60


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


class RetryBudget:
    """Keeps retries a small share of the calls, however many of them fail. Thread-safe.

    Args:
        most: how many retries there are at first, and at most.
        share: what each call adds to them.
    """

    def __init__(self, most: float, share: float) -> None:
        self._most, self._share, self._left = most, share, most
        self._lock = threading.Lock()

    def earn(self) -> None:
        """A call is made."""
        with self._lock:
            self._left = min(self._most, self._left + self._share)

    def spend(self) -> bool:
        """Take one retry, if there is one."""
        with self._lock:
            affordable = self._left >= 1
            self._left -= affordable
        return affordable


_deadline: ContextVar[float] = ContextVar("deadline")


def _time_left(timeout: float | None) -> float:
    """The timeout, or what is left until the deadline if that is less.

    Raises:
        httpcore2.ReadTimeout: nothing is left.
    """
    left = _deadline.get() - monotonic()
    if left <= 0:
        raise httpcore2.ReadTimeout("the deadline is over")
    return left if timeout is None else min(timeout, left)


class _Stream(httpcore2.NetworkStream):
    """A connection on which nothing waits beyond the deadline.

    A timeout on reading begins anew with every byte that comes. This one does not.
    """

    def __init__(self, stream: httpcore2.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _time_left(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _time_left(timeout))

    def start_tls(self, *arguments: Any, timeout: float | None = None, **more: Any) -> httpcore2.NetworkStream:
        return _Stream(self._stream.start_tls(*arguments, timeout=_time_left(timeout), **more))

    def close(self) -> None:
        self._stream.close()

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _Network(httpcore2.SyncBackend):
    """Opens such connections."""

    def connect_tcp(self, *arguments: Any, timeout: float | None = None, **more: Any) -> httpcore2.NetworkStream:
        return _Stream(super().connect_tcp(*arguments, timeout=_time_left(timeout), **more))


class _Transport(httpx2.HTTPTransport):
    """Keeps them open for the next call. How many there may be at once is for the bulkhead to say."""

    def __init__(self, *, secure: bool) -> None:
        # The base class lets nobody choose the network. A TLS context takes some 50 ms to make: once, and if needed.
        context = httpx2.create_ssl_context() if secure else None
        self._pool = httpcore2.ConnectionPool(
            ssl_context=context, max_connections=None, keepalive_expiry=5, network_backend=_Network()
        )


class Provider:
    """The HTTP interface of one of them.

    Args:
        url: where it is; none: it can be asked for nothing.
        settings: how long and how often it is asked.
    """

    def __init__(self, url: str | None, settings: Settings) -> None:
        self._url = url
        self._settings = settings
        self._budget = RetryBudget(settings.retry_budget, settings.retry_budget_share)
        self._client = httpx2.Client(
            transport=_Transport(secure=(url or "").startswith("https:")),
            timeout=settings.read_timeout_seconds,
        )

    def request(self, method: str, path: str, *, repeatable: bool, **options: Any) -> Json:
        """Ask, again if need be, and give what was answered.

        Args:
            method: such as `GET`.
            path: of what is asked for.
            repeatable: whether it makes no difference how often the request arrives.
            **options: more of `httpx2.Client.request`.

        Raises:
            Refused: it said no.
            Unavailable: it could not be reached, took too long, or failed.
        """
        if self._url is None:
            raise Unavailable("its address is not set")
        deadline = monotonic() + self._settings.deadline_seconds
        self._budget.earn()
        for attempt in itertools.count(1):
            try:
                return self._attempt(method, f"{self._url.rstrip('/')}{path}", deadline, **options)
            except Transient as failure:
                wait = max(self._backoff(attempt), failure.retry_after or 0)
                current_app.logger.warning("attempt %d of %s %s failed: %s", attempt, method, path, failure)
                if failure.sent and not repeatable:
                    raise
                if attempt == self._settings.retry_attempts or monotonic() + wait >= deadline:
                    raise
                if not self._budget.spend():
                    raise
            sleep(wait)
        raise AssertionError("it counts without end")

    def _backoff(self, attempt: int) -> float:
        """Anything up to a limit that doubles: those who failed together do not come back together."""
        return random.uniform(0, self._settings.retry_wait_seconds * 2 ** (attempt - 1))  # noqa: S311 - no secret

    def _attempt(self, method: str, url: str, deadline: float, headers: Json | None = None, **options: Any) -> Json:
        token = _deadline.set(deadline)
        try:
            response = self._client.request(method, url, headers=outgoing.headers() | (headers or {}), **options)
        except httpx2.RequestError as error:
            raise Transient(f"{type(error).__name__}: {error}", sent=not isinstance(error, NEVER_SENT)) from error
        finally:
            _deadline.reset(token)
        status = response.status_code
        if status in OVER_SOON:
            raise Transient(f"it answered {status}", retry_after=_retry_after(response))
        if response.is_client_error:
            raise Refused(f"it answered {status}", status=status)
        if not response.is_success:
            raise Unavailable(f"it answered {status}")
        try:
            return cast("Json", response.json())
        except ValueError as error:
            raise Transient(f"its answer cannot be read: {error}") from error


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


def _retry_after(response: httpx2.Response) -> float | None:
    """For how many seconds it wants to be left alone: RFC 9110, 10.2.3. None if it does not say, or nonsense."""
    told = response.headers.get("Retry-After", "")
    try:
        if told.isdigit():
            return min(float(told), YEAR)
        until = _moment(told)
        now = _moment(response.headers["Date"]) if "Date" in response.headers else datetime.now(UTC)
    except ValueError:
        return None
    return max(0.0, (until - now).total_seconds())  # by its own clock, which ours may not agree with


def _moment(date: str) -> datetime:
    moment = parsedate_to_datetime(date)
    return moment.replace(tzinfo=moment.tzinfo or UTC)
