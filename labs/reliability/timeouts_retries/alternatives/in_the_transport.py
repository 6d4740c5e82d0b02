"""The transport repeats, below the client: what calls it sees one request and one answer.

Retries are throttled as in gRPC: a failed attempt takes a token, a successful one gives back a share of one, and there
are retries while more than half of the tokens are left.
"""

import random
import threading
import time
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from time import monotonic
from typing import Any, cast

import httpx2
from flask import Flask, current_app

from shop import outgoing
from shop.reliability.failures import Refused, Unavailable
from shop.settings import Settings, settings_of

Json = dict[str, Any]

OVER_SOON = frozenset(
    {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT}
)
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


class Throttle:
    """Tokens that failures take and successes give back."""

    def __init__(self, retries: float, share: float) -> None:
        self._most = self._left = 2 * retries
        self._share, self._lock = share, threading.Lock()

    def succeeded(self) -> None:
        """An attempt was answered."""
        with self._lock:
            self._left = min(self._most, self._left + self._share)

    def failed(self) -> bool:
        """An attempt failed; returns whether there may be another."""
        with self._lock:
            self._left = max(0.0, self._left - 1)
            return self._left >= self._most / 2


class RepeatingTransport(httpx2.BaseTransport):
    """Repeats what its method or an idempotency key allows."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._throttle = Throttle(settings.retry_budget, settings.retry_budget_share)
        self._network = httpx2.HTTPTransport(limits=httpx2.Limits(max_connections=None))

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Ask until there is an answer that is worth having.

        Raises:
            httpx2.RequestError: there is none.
        """
        repeatable = request.method == "GET" or "Idempotency-Key" in request.headers
        until = monotonic() + self._settings.deadline_seconds
        attempt = 0
        while True:
            attempt += 1
            wait = random.uniform(0, self._settings.retry_wait_seconds * 2 ** (attempt - 1))  # noqa: S311 - no secret
            try:
                response = self._attempt(request, until)
                if response.status_code not in OVER_SOON and _is_whole(response):
                    self._throttle.succeeded()
                    return response
                wait = max(wait, _retry_after(response.headers) or 0)
                failure: httpx2.RequestError | None = None
                current_app.logger.warning("attempt %d: %s", attempt, response.status_code)
            except httpx2.RequestError as error:
                failure = error
                current_app.logger.warning("attempt %d: %s: %s", attempt, type(error).__name__, error)
            safe = repeatable or isinstance(failure, (httpx2.ConnectError, httpx2.ConnectTimeout))
            last = attempt == self._settings.retry_attempts or monotonic() + wait >= until
            if not self._throttle.failed() or last or not safe:
                if failure:
                    raise failure
                return response
            time.sleep(wait)

    def _attempt(self, request: httpx2.Request, until: float) -> httpx2.Response:
        left = max(until - monotonic(), 0.001)
        limits = {"connect": self._settings.connect_timeout_seconds, "read": self._settings.read_timeout_seconds}
        request.extensions["timeout"] = {name: min(seconds, left) for name, seconds in limits.items()}
        with closing(self._network.handle_request(request)) as response:
            body = bytearray()
            for chunk in response.iter_raw():
                body += chunk
                if monotonic() > until:
                    raise httpx2.ReadTimeout("the answer trickles in", request=request)
        return httpx2.Response(response.status_code, headers=response.headers, content=bytes(body))

    def close(self) -> None:
        """Close the connections."""
        self._network.close()


class Provider:
    """The HTTP interface of one of them.

    Args:
        url: where it is; none: it can be asked for nothing.
        settings: how long and how often it is asked.
    """

    def __init__(self, url: str | None, settings: Settings) -> None:
        self._url = url
        self._client = httpx2.Client(transport=RepeatingTransport(settings))

    def request(self, method: str, path: str, *, headers: Json | None = None, **options: Any) -> Json:
        """Ask, and give what was answered.

        Raises:
            Refused: it said no.
            Unavailable: it could not be reached, took too long, or failed.
        """
        if self._url is None:
            raise Unavailable("its address is not set")
        url = self._url.rstrip("/") + path
        try:
            response = self._client.request(method, url, headers=outgoing.headers() | (headers or {}), **options)
        except httpx2.RequestError as error:
            raise Unavailable(f"{type(error).__name__}: {error}") from error
        status = response.status_code
        if response.is_client_error and status not in OVER_SOON:
            raise Refused(f"it answered {status}", status=status)
        if response.is_error or not _is_whole(response):
            raise Unavailable(f"it answered {status}", retry_after=_retry_after(response.headers))
        return cast("Json", response.json())


def _is_whole(response: httpx2.Response) -> bool:
    with suppress(ValueError):
        response.json()
        return True
    return False


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
        answer = self.request("POST", "/charges", json=charge, headers=key)
        return Charge(reference=_field(answer, "id", str))


class DeliveryCompany(Provider):
    """Knows what a delivery costs, and sends couriers. It knows no idempotency keys: two bookings are two couriers."""

    def quote(self, *, city: str, items: int, speed: str) -> Quote:
        """What it costs to have a number of items taken to a city.

        Raises:
            ProviderError: it cannot be had.
        """
        wanted = {"city": city, "items": items, "speed": speed}
        answer = self.request("GET", "/quotes", params=wanted)
        price = _field(answer, "price", dict)
        return Quote(speed, _field(price, "amount", int), _field(price, "currency", str), _field(answer, "days", int))

    def book_pickup(self, *, reference: str) -> str:
        """Have a courier come; returns the number of the booking.

        Raises:
            ProviderError: no courier comes, as far as can be known.
        """
        answer = self.request("POST", "/pickups", json={"reference": reference})
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
