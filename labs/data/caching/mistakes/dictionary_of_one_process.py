"""What is kept lies in a dictionary of the process.

Nothing is faster. But a service runs as several processes on several machines, and each has a dictionary of its own. A
change reaches the one that handled it. In production a page shows the new price and, reloaded, the old one, depending
on which worker answers, and it does so until the last of them has forgotten. Each worker also computes everything for
itself, and a deployment empties all of them at once.

Keep it where all workers look: in Valkey. A process's own memory is for what never changes, or may differ for a second.

Read: "In the process or beside it" in the chapter Caching.
"""

import random
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, cast
from uuid import UUID

from flask import Flask, current_app
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from shop.models import Order, OrderItem, Product, Stock
from shop.settings import settings_of


class Cache:
    """Answers with the moment at which each expires."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._kept: dict[tuple[Any, ...], tuple[float, Any]] = {}
        self._lock = threading.Lock()

    def fetch(self, key: tuple[Any, ...], compute: Callable[[], Any]) -> Any:
        """What is kept under a key, else what is computed."""
        with self._lock:
            expires, value = self._kept.get(key, (0.0, None))
            if time.monotonic() >= expires:
                value = compute()
                seconds = self._seconds * random.uniform(0.8, 1)  # noqa: S311 - nothing to guess
                self._kept[key] = time.monotonic() + seconds, value
            return value

    def forget(self, public_id: UUID) -> None:
        """Forget a product, and all lists."""
        with self._lock:
            self._kept = {
                key: kept
                for key, kept in self._kept.items()
                if key[0] != "bestsellers" and key != ("product", public_id)
            }


def init_app(app: Flask) -> None:
    """Make the application's cache."""
    app.extensions["cache"] = Cache(settings_of(app).cache_ttl_seconds)


def _cache() -> Cache:
    return cast("Cache", current_app.extensions["cache"])


def save_product(session: Session, product: Product) -> None:
    """Commit what was changed about a product. Whoever reads it from then on reads it as it is."""
    session.commit()
    _cache().forget(product.public_id)


def product_detail(session: Session, public_id: UUID) -> dict[str, Any] | None:
    """A product as its page shows it, ready for JSON; none if no product has this public id."""
    page = _cache().fetch(("product", public_id), lambda: _describe(session, public_id))
    if page is None:
        return None
    return {**page, "available": 0 if page["withdrawn"] else _available(session, public_id)}


def _available(session: Session, public_id: UUID) -> int:
    free = select(func.greatest(Stock.on_hand - Stock.reserved, 0)).join(Stock.product)
    return session.scalar(free.where(Product.public_id == public_id)) or 0


def _describe(session: Session, public_id: UUID) -> dict[str, Any] | None:
    product = session.scalar(select(Product).where(Product.public_id == public_id))
    if product is None:
        return None
    return {
        "id": str(product.public_id),
        "sku": product.sku,
        "name": product.name,
        "category": product.category.name,
        "price": {"amount": product.price_amount, "currency": product.currency},
        "attributes": product.attributes,
        "withdrawn": product.withdrawn_at is not None,
        "version": product.version,
    }


def bestsellers(session: Session, days: int, limit: int) -> list[dict[str, Any]]:
    """The products of which most were sold, best first, ready for JSON.

    Args:
        session: to read with.
        days: how far to look back from the latest order.
        limit: most products to give.
    """
    found = _cache().fetch(("bestsellers", days, limit), lambda: _sellers(session, days, limit))
    return cast("list[dict[str, Any]]", found)


def _sellers(session: Session, days: int, limit: int) -> list[dict[str, Any]]:
    latest = select(func.max(Order.placed_at)).scalar_subquery()
    sold = func.sum(OrderItem.quantity).label("sold")
    query = (
        select(Product.public_id, Product.sku, Product.name, sold)
        .join(OrderItem, OrderItem.product_id == Product.id)
        .join(Order, OrderItem.order_id == Order.id)
        .where(Order.placed_at > latest - timedelta(days=days), Order.status != "cancelled")
        .where(Product.withdrawn_at.is_(None))
        .group_by(Product.id)
        .order_by(sold.desc(), Product.id)
        .limit(limit)
    )
    return [
        {"id": str(row.public_id), "sku": row.sku, "name": row.name, "sold": row.sold} for row in session.execute(query)
    ]
