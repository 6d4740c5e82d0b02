"""Those who wait are woken by a list in Valkey; a tag is a set of keys, and a change deletes what is in it.

A key is entered into its tag before anything is computed for it, so that a change finds what is under way as well.
"""

import random
import secrets
import time
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

from shop.models import Category, Order, OrderItem, Product, Stock
from shop.settings import settings_of

T = TypeVar("T")
PREFIX = "shop:1:"


LOCK_SECONDS = 5
LOOK = """
local kept = redis.call('GET', KEYS[1])
if kept then return {kept, 0} end
redis.call('SADD', KEYS[3], KEYS[1], KEYS[2])
redis.call('EXPIRE', KEYS[3], 86400)
return {false, redis.call('SET', KEYS[2], ARGV[1], 'NX', 'EX', ARGV[2]) and 1 or 0}
"""
KEEP = """
if redis.call('GET', KEYS[2]) == ARGV[1] then
    redis.call('DEL', KEYS[2])
    if ARGV[2] then redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end
end
redis.call('RPUSH', KEYS[3], 'look')
redis.call('EXPIRE', KEYS[3], 5)
"""
FORGET = """
for _, tag in ipairs(KEYS) do
    for _, key in ipairs(redis.call('SMEMBERS', tag)) do redis.call('UNLINK', key) end
    redis.call('UNLINK', tag)
end
"""


class Money(TypedDict):
    """An amount of minor units with its currency."""

    amount: int
    currency: str


class Described(TypedDict):
    """A product's page without its stock, which changes with every order."""

    id: str
    sku: str
    name: str
    category: str
    price: Money
    attributes: dict[str, Any]
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


def _fetch(name: str, tag: str, shape: TypeAdapter[T], compute: Callable[[], T]) -> T:
    """What is kept under a name, else what is computed, by one of all who ask."""
    key, token, deadline = f"{PREFIX}{name}", secrets.token_hex(8), time.monotonic() + LOCK_SECONDS
    with suppress(redis.RedisError):
        woken = None
        while time.monotonic() < deadline:
            keys = key, f"{key}:lock", f"{PREFIX}{tag}:tag"
            kept, mine = _client().eval(LOOK, 3, *keys, token, LOCK_SECONDS)
            if mine:
                return _computed(key, token, shape, compute)
            if kept is None:
                wait = min(0.5, settings_of(current_app).cache_timeout_seconds / 2)  # less than the client would
                woken = _client().blpop(f"{key}:done", timeout=wait)
                continue
            if woken:  # the next of those who wait
                _client().rpush(f"{key}:done", "look")
                _client().expire(f"{key}:done", 5)
            try:
                return shape.validate_json(kept, strict=True)
            except ValidationError:
                _client().delete(key)
    return compute()


def _computed(key: str, token: str, shape: TypeAdapter[T], compute: Callable[[], T]) -> T:
    result: tuple[bytes | int, ...] = ()
    try:
        value = compute()
        seconds = settings_of(current_app).cache_ttl_seconds * random.uniform(0.8, 1)  # noqa: S311 - nothing to guess
        result = shape.dump_json(value), int(1000 * seconds * (1 if value is not None else 0.05))
        return value
    finally:
        with suppress(redis.RedisError):
            _client().eval(KEEP, 3, key, f"{key}:lock", f"{key}:done", token, *result)


def save_product(session: Session, product: Product) -> None:
    """Commit what was changed about a product. Whoever reads it from then on reads it as it is."""
    tags = _page_of(product.public_id), "bestsellers"
    session.commit()
    with suppress(redis.RedisError):
        _client().eval(FORGET, len(tags), *(f"{PREFIX}{tag}:tag" for tag in tags))


def product_detail(session: Session, public_id: UUID) -> dict[str, Any] | None:
    """A product as its page shows it, ready for JSON; none if no product has this public id."""
    name = _page_of(public_id)
    page = _fetch(name, name, PAGE, lambda: _describe(session, public_id))
    if page is None:
        return None
    return {**page, "available": 0 if page["withdrawn"] else _available(session, public_id)}


def _page_of(public_id: UUID) -> str:
    return f"product:{public_id}"


def _available(session: Session, public_id: UUID) -> int:
    """How many can be had now. It is asked for each time: every order changes it, and nobody tells."""
    free = select(func.greatest(Stock.on_hand - Stock.reserved, 0)).join(Stock.product)
    return session.scalar(free.where(Product.public_id == public_id)) or 0


def _describe(session: Session, public_id: UUID) -> Described | None:
    query = select(Product, Category.name).join(Product.category).where(Product.public_id == public_id)
    found = session.execute(query).one_or_none()
    if found is None:
        return None
    product, category = found
    return {
        "id": str(product.public_id),
        "sku": product.sku,
        "name": product.name,
        "category": category,
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
    name = f"bestsellers:{days}:{limit}"
    found = _fetch(name, "bestsellers", LIST, lambda: _sellers(session, days, limit))
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
