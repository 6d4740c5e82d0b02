"""Recomputed by chance shortly before it expires, while the others still read it; a version in every key.

Source: Andrea Vattani, Flavio Chierichetti, Keegan Lowenstein, "Optimal Probabilistic Cache Stampede Prevention",
Proceedings of the VLDB Endowment 8 (2015).
"""

import json
import math
import random
import secrets
import threading
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
GIVE_BACK = "return redis.call('GET', KEYS[1]) == ARGV[1] and redis.call('DEL', KEYS[1])"

_away = threading.Event()  # set while the cache is left alone


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
    """What is kept under a name, unless chance says to refresh it; else what is computed, by one of all who ask."""
    if _away.is_set():
        return compute()
    try:
        fresh = secrets.token_hex(8)
        version = _client().set(f"{PREFIX}{tag}:version", fresh, nx=True, get=True, ex=86_400) or fresh.encode()
        key = f"{PREFIX}{name}:{version.hex()}"
        return _kept_or_computed(key, shape, compute)
    except redis.RedisError:
        _away.set()
        threading.Timer(1, _away.clear).start()
        return compute()


def _kept_or_computed(key: str, shape: TypeAdapter[T], compute: Callable[[], T]) -> T:
    token, deadline = secrets.token_hex(8), time.monotonic() + LOCK_SECONDS
    while time.monotonic() < deadline:
        found, due = _look(key, shape)
        if found and not due:
            return found[0]
        if _client().set(f"{key}:lock", token, nx=True, px=1000 * LOCK_SECONDS):
            try:
                again, _ = _look(key, shape)
                if again and not found:  # it came between the look and the lock
                    return again[0]
                return _computed(key, shape, compute)
            finally:
                with suppress(redis.RedisError):
                    _client().eval(GIVE_BACK, 1, f"{key}:lock", token)
        if found:
            return found[0]  # another refreshes it
        time.sleep(0.02)
    return compute()


def _look(key: str, shape: TypeAdapter[T]) -> tuple[list[T], bool]:
    """What is kept, if anything, and whether it is this reader's turn to refresh it."""
    with _client().pipeline(transaction=False) as pipeline:
        raw, left = pipeline.get(key).pttl(key).execute()
    with suppress(ValueError, TypeError, KeyError):
        entry = json.loads(raw)
        with suppress(ValidationError):
            value = shape.validate_json(json.dumps(entry["value"]), strict=True)
            chance = -math.log(1 - random.random())  # noqa: S311 - nothing to guess
            return [value], entry["milliseconds"] * chance >= left
    return [], True


def _computed(key: str, shape: TypeAdapter[T], compute: Callable[[], T]) -> T:
    began = time.monotonic()
    value = compute()
    entry = {"milliseconds": 1000 * (time.monotonic() - began), "value": shape.dump_python(value)}
    seconds = settings_of(current_app).cache_ttl_seconds * random.uniform(0.8, 1)  # noqa: S311 - nothing to guess
    with suppress(redis.RedisError):
        _client().set(key, json.dumps(entry), px=int(1000 * seconds * (1 if value is not None else 0.05)))
    return value


def save_product(session: Session, product: Product) -> None:
    """Commit what was changed about a product. Whoever reads it from then on reads it as it is."""
    tags = _page_of(product.public_id), "bestsellers"
    session.commit()
    with suppress(redis.RedisError):
        _client().delete(*(f"{PREFIX}{tag}:version" for tag in tags))


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
