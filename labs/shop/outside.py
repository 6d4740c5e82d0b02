"""Calls that leave the shop, on their way through what protects both sides: given code, no lab changes it.

A call takes a place in the bulkhead of its dependency first, then asks its circuit breaker, and is repeated innermost.
So a call keeps its one place while it is repeated, the breaker judges calls and not attempts, and one that found no
place is no failure of the dependency.
"""

from collections.abc import Callable
from typing import TypeVar

from shop import parallel
from shop.models import Order, Payment
from shop.reliability import bulkheads, circuit_breaker, timeouts_retries
from shop.reliability.timeouts_retries import Charge, Quote

T = TypeVar("T")
PAYMENTS, DELIVERY = "payments", "delivery"
SPEEDS = ("standard", "express")


def charge(payment: Payment, order: Order) -> Charge:
    """Take the money of a payment.

    Raises:
        ProviderError: no money was taken, as far as can be known.
    """
    amount, currency = payment.amount, payment.currency
    reference, key = str(order.public_id), str(payment.idempotency_key)
    return _protected(
        PAYMENTS,
        lambda: timeouts_retries.payments().charge(
            amount=amount, currency=currency, reference=reference, idempotency_key=key
        ),
    )


def quotes(order: Order) -> list[Quote]:
    """What it costs to have an order delivered, at each speed; asked for at once, as each answer takes its time.

    Raises:
        ProviderError: one of them could not be had.
    """
    city, items = order.customer.city, sum(item.quantity for item in order.items)

    def ask(speed: str) -> Callable[[], Quote]:
        return lambda: _protected(
            DELIVERY, lambda: timeouts_retries.delivery().quote(city=city, items=items, speed=speed)
        )

    return parallel.gather(*map(ask, SPEEDS))


def book_pickup(order: Order) -> str:
    """Have a courier come for an order; returns the number of the booking.

    Raises:
        ProviderError: no courier comes, as far as can be known.
    """
    reference = str(order.public_id)
    return _protected(DELIVERY, lambda: timeouts_retries.delivery().book_pickup(reference=reference))


def _protected(dependency: str, call: Callable[[], T]) -> T:
    return bulkheads.run(dependency, lambda: circuit_breaker.call(dependency, call))
