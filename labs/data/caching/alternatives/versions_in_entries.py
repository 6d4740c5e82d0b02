"""Each entry names the version of its tag, and is good as long as that is the tag's version; redis-py's own lock."""

import random
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
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


TAG_SECONDS = 86_400
LOCK_SECONDS = 5


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
    """What is kept under a name since its tag last changed, else what is computed, by one of all who ask."""
    with suppress(redis.RedisError):
        version, found = _look(name, tag, shape)
        if found:
            return found[0]
        with _turn(name):
            version, found = _look(name, tag, shape)
            if not found:
                found = [compute()]
                with suppress(redis.RedisError):
                    _keep(name, version, shape, found[0])
            return found[0]
    return compute()


def _look(name: str, tag: str, shape: TypeAdapter[T]) -> tuple[bytes, list[T]]:
    """The version of the tag, and what is kept of that version: one answer or none."""
    entry, version = _client().mget(f"{PREFIX}{name}", f"{PREFIX}{tag}:version")
    if version is None:
        fresh = secrets.token_hex(8).encode()
        set_by_another = _client().set(f"{PREFIX}{tag}:version", fresh, nx=True, get=True, ex=TAG_SECONDS)
        return set_by_another or fresh, []
    kept_version, _, value = (entry or b"").partition(b" ")
    if kept_version == version:
        with suppress(ValidationError):
            return version, [shape.validate_json(value, strict=True)]
    return version, []


def _keep(name: str, version: bytes, shape: TypeAdapter[T], value: T) -> None:
    seconds = settings_of(current_app).cache_ttl_seconds * random.uniform(0.8, 1)  # noqa: S311 - nothing to guess
    milliseconds = int(1000 * seconds * (1 if value is not None else 0.05))
    _client().set(f"{PREFIX}{name}", version + b" " + shape.dump_json(value), px=milliseconds)


@contextmanager
def _turn(name: str) -> Iterator[None]:
    """One after the other; after a while, or without a cache, all at once."""
    lock = _client().lock(f"{PREFIX}{name}:lock", timeout=LOCK_SECONDS, blocking_timeout=LOCK_SECONDS, sleep=0.02)
    lock.acquire()
    try:
        yield
    finally:
        with suppress(redis.RedisError):  # it may have expired, and be another's by now
            lock.release()


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
