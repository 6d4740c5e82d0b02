"""A request that was sent is never sent again, whatever becomes of its answer.

`HTTPTransport(retries=3)` reads as if it did it all. It repeats the making of a connection, and nothing else. An
answer that is lost on its way, a connection that is reset, a 503 of a server that is being deployed: each goes to the
customer as an error, though the next attempt would have been fine. A call is lost this way at each deployment of the
provider.

Repeat what may be repeated: what only reads, and what carries an idempotency key.

Read: "What may be repeated" in the chapter Timeouts and retries.
"""

from dataclasses import dataclass
from typing import Any, cast

import httpx2
from flask import Flask, current_app

from shop import outgoing
from shop.reliability.failures import Refused, Unavailable
from shop.settings import Settings, settings_of

Json = dict[str, Any]


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
        settings: how long it may take.
    """

    def __init__(self, url: str | None, settings: Settings) -> None:
        self._url = url
        self._client = httpx2.Client(
            transport=httpx2.HTTPTransport(retries=settings.retry_attempts - 1),
            timeout=httpx2.Timeout(settings.read_timeout_seconds, connect=settings.connect_timeout_seconds),
        )

    def request(self, method: str, path: str, **options: Any) -> Json:
        """Ask, and give what was answered.

        Raises:
            Refused: it said no.
            Unavailable: it could not be reached, took too long, or failed.
        """
        if self._url is None:
            raise Unavailable("its address is not set")
        headers = outgoing.headers() | options.pop("headers", {})
        try:
            response = self._client.request(method, f"{self._url.rstrip('/')}{path}", headers=headers, **options)
            if response.is_client_error:
                raise Refused(f"it answered {response.status_code}", status=response.status_code)
            return cast("Json", response.raise_for_status().json())
        except (httpx2.HTTPError, ValueError) as error:
            raise Unavailable(f"{type(error).__name__}: {error}") from error


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
        answer = self.request("POST", "/charges", json=charge, headers={"Idempotency-Key": idempotency_key})
        return Charge(reference=_field(answer, "id", str))


class DeliveryCompany(Provider):
    """Knows what a delivery costs, and sends couriers. It knows no idempotency keys: two bookings are two couriers."""

    def quote(self, *, city: str, items: int, speed: str) -> Quote:
        """What it costs to have a number of items taken to a city.

        Raises:
            ProviderError: it cannot be had.
        """
        answer = self.request("GET", "/quotes", params={"city": city, "items": items, "speed": speed})
        price = _field(answer, "price", dict)
        return Quote(speed, _field(price, "amount", int), _field(price, "currency", str), _field(answer, "days", int))

    def book_pickup(self, *, reference: str) -> str:
        """Have a courier come; returns the number of the booking.

        Raises:
            ProviderError: no courier comes, as far as can be known.
        """
        return str(_field(self.request("POST", "/pickups", json={"reference": reference}), "id", str))


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
