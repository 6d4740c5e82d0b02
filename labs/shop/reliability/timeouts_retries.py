"""The payment provider, as the shop calls it: once, over a new connection, and for as long as it takes."""

from dataclasses import dataclass
from typing import cast

import httpx2
from flask import Flask, current_app

from shop.settings import settings_of


class ProviderError(Exception):
    """The provider could not be reached, or did not take the money. The message says which."""


@dataclass(frozen=True)
class Charge:
    """Money taken, under the provider's reference."""

    reference: str


class PaymentProvider:
    """The provider's HTTP interface.

    Args:
        url: where the provider is; none: no order can be paid.
    """

    def __init__(self, url: str | None) -> None:
        self._url = url

    def charge(self, *, amount: int, currency: str, reference: str, idempotency_key: str) -> Charge:
        """Take money.

        Args:
            amount: in minor units.
            currency: of the amount, as of ISO 4217.
            reference: ours, which the provider keeps beside its own.
            idempotency_key: two requests with the same key are one charge.

        Raises:
            ProviderError: no money was taken, as far as can be known.
        """
        if self._url is None:
            raise ProviderError("PAYMENTS_URL is not set.")
        try:
            response = httpx2.post(
                f"{self._url.rstrip('/')}/charges",
                json={"amount": amount, "currency": currency, "reference": reference},
                headers={"Idempotency-Key": idempotency_key},
                timeout=None,  # an answer that never comes is waited for all the same
            )
            return Charge(reference=response.raise_for_status().json()["id"])
        except (httpx2.HTTPError, ValueError, KeyError) as error:
            raise ProviderError(f"{type(error).__name__}: {error}") from error


def init_app(app: Flask) -> None:
    """Give the application its client of the provider."""
    url = settings_of(app).payments_url
    app.extensions["payments"] = PaymentProvider(str(url) if url else None)


def provider() -> PaymentProvider:
    """The payment provider of the current application."""
    return cast("PaymentProvider", current_app.extensions["payments"])
