"""Calls run in an event loop, in a thread of its own, where whatever takes too long can be cancelled.

So the deadline is one line, and holds for connecting, for waiting for a connection, and for every byte. The jitter is
decorrelated: each wait is drawn from what the last one was.
"""

import asyncio
import random
import threading
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
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


class Provider:
    """The HTTP interface of one of them.

    Args:
        url: where it is; none: it can be asked for nothing.
        settings: how long and how often it is asked.
    """

    def __init__(self, url: str | None, settings: Settings) -> None:
        self._url, self._settings = url, settings
        timeout = httpx2.Timeout(settings.read_timeout_seconds, connect=settings.connect_timeout_seconds)
        limits = httpx2.Limits(max_connections=None)
        self._client = httpx2.AsyncClient(timeout=timeout, limits=limits)
        self._retries = settings.retry_budget  # those left; the loop's one thread needs no lock
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()

    def request(self, method: str, path: str, *, repeatable: bool, **options: Any) -> Json:
        """Ask, again if need be, and give what was answered.

        Raises:
            Refused: it said no.
            Unavailable: it could not be reached, took too long, or failed.
        """
        if self._url is None:
            raise Unavailable("its address is not set")
        options["headers"] = outgoing.headers() | options.get("headers", {})
        call = self._call(method, self._url.rstrip("/") + path, repeatable, options)
        return asyncio.run_coroutine_threadsafe(call, self._loop).result()  # with a copy of our context variables

    async def _call(self, method: str, url: str, repeatable: bool, options: dict[str, Any]) -> Json:
        settings = self._settings
        self._retries = min(settings.retry_budget, self._retries + settings.retry_budget_share)
        until = self._loop.time() + settings.deadline_seconds
        base = wait = settings.retry_wait_seconds / 3
        for left in reversed(range(settings.retry_attempts)):
            try:
                return await self._attempt(method, url, until, options)
            except Passing as failure:
                current_app.logger.warning("%s %s failed: %s", method, url, failure)
                wait = random.uniform(base, 3 * wait)  # noqa: S311 - no secret
                pause = max(wait, failure.retry_after or 0)
                safe = repeatable or isinstance(failure, NotSent)
                if not (safe and left and self._loop.time() + pause < until and self._retries >= 1):
                    raise
                self._retries -= 1
            await asyncio.sleep(pause)
        raise AssertionError("the last attempt raises")

    async def _attempt(self, method: str, url: str, until: float, options: dict[str, Any]) -> Json:
        try:
            async with asyncio.timeout_at(until):
                response = await self._client.request(method, url, **options)
            return _content(response)
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            raise NotSent(f"{type(error).__name__}: {error}") from error
        except TimeoutError as error:
            raise Passing("TimeoutError: the deadline is over") from error
        except (httpx2.RequestError, ValueError) as error:
            raise Passing(f"{type(error).__name__}: {error}") from error


def _content(response: httpx2.Response) -> Json:
    status = response.status_code
    if status in OVER_SOON:
        raise Passing(f"it answered {status}", retry_after=_retry_after(response.headers))
    if response.is_client_error:
        raise Refused(f"it answered {status}", status=status)
    if response.is_error:
        raise Unavailable(f"it answered {status}")
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
