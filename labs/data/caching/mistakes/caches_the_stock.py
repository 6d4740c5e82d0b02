"""The stock is kept together with the product.

How many can be had changes with every order, and an order does not come by this file: nothing here is told to forget.
In production the page offers what was sold minutes ago. The customer learns it at the till, or, worse, from a mail that
the order has been cancelled.

Keep what changes seldom, and ask for the rest each time: the stock is one row under its primary key. What changes more
often than it is read is not worth keeping at all.

Read: "What to keep, and what not" in the chapter Caching.
"""

import random
import secrets
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any, TypeVar, cast
from uuid import UUID

import redis
from flask import Flask, current_app
from pydantic import TypeAdapter, ValidationError
from redis.backoff import NoBackoff
from redis.retry import Retry
from sqlalchemy import func, select
from sqlalchemy.orm import Session
from typing_extensions import TypedDict

from shop.models import Order, OrderItem, Product
from shop.settings import settings_of

T = TypeVar("T")
PREFIX = "shop:1:"


class Described(TypedDict):
    """A product's page."""

    id: str
    sku: str
    name: str
    category: str
    price: dict[str, Any]
    attributes: dict[str, Any]
    available: int
    withdrawn: bool
    version: int


class Seller(TypedDict):
    """An entry among the bestsellers."""

    id: str
    sku: str
    name: str
    sold: int


PAGE = TypeAdapter[Described | None](Described | None)
LIST = TypeAdapter(list[Seller])


def init_app(app: Flask) -> None:
    """Make the application's client of Valkey."""
    settings = settings_of(app)
    app.extensions["cache"] = redis.Redis.from_url(
        settings.redis_url or "redis://",
        socket_timeout=settings.cache_timeout_seconds,
        socket_connect_timeout=settings.cache_timeout_seconds,
        retry=Retry(NoBackoff(), 0),
    )


def _client() -> redis.Redis:
    return cast("redis.Redis", current_app.extensions["cache"])


def _kept(key: str, shape: TypeAdapter[T], compute: Callable[[], T]) -> T:
    """What is kept under a key, else what is computed."""
    with suppress(redis.RedisError, ValidationError):
        found = _client().get(PREFIX + key)
        if found is not None:
            return shape.validate_json(found, strict=True)
    value = compute()
    with suppress(redis.RedisError):
        _client().set(PREFIX + key, shape.dump_json(value), px=_milliseconds(value))
    return value


def _milliseconds(value: object) -> int:
    seconds = settings_of(current_app).cache_ttl_seconds * random.uniform(0.8, 1)  # noqa: S311 - nothing to guess
    return int(1000 * seconds * (1 if value is not None else 0.05))


def save_product(session: Session, product: Product) -> None:
    """Commit what was changed about a product. Whoever reads it from then on reads it as it is."""
    session.commit()
    with suppress(redis.RedisError):
        _client().delete(f"{PREFIX}product:{product.public_id}")
        _client().set(f"{PREFIX}version", secrets.token_hex(8), ex=86_400)


def product_detail(session: Session, public_id: UUID) -> dict[str, Any] | None:
    """A product as its page shows it, ready for JSON; none if no product has this public id."""
    page = _kept(f"product:{public_id}", PAGE, lambda: _describe(session, public_id))
    return cast("dict[str, Any] | None", page)


def _describe(session: Session, public_id: UUID) -> Described | None:
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
        "available": 0 if product.withdrawn_at else max(product.stock.on_hand - product.stock.reserved, 0),
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
    try:
        version = (_client().get(f"{PREFIX}version") or b"").decode()
    except redis.RedisError:
        return cast("list[dict[str, Any]]", _sellers(session, days, limit))
    found = _kept(f"bestsellers:{version}:{days}:{limit}", LIST, lambda: _sellers(session, days, limit))
    return cast("list[dict[str, Any]]", found)


def _sellers(session: Session, days: int, limit: int) -> list[Seller]:
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
