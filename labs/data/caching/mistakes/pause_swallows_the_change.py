"""The pause after a failure holds for changes, too.

After Valkey has failed to answer, this worker leaves it alone for a second, which is right for reading: what is not
found is computed. A change is different. Here it is committed, and the deletion is left out, although Valkey may be
back and other workers never lost it: one packet lost between this worker and Valkey is enough. In production the others
show the old price for the whole time to live, after each small fault of the network, and the log says no more than
"left alone for 1 s".

Not to read costs time. Not to forget costs the truth. Always try to forget, pause or not: it is one command, within its
time limit.

Read: "When the cache is away" in the chapter Caching.
"""

import logging
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
from shop.settings import Settings, settings_of

T = TypeVar("T")
log = logging.getLogger(__name__)

PREFIX = "shop:1:"  # whose keys they are, and of which shape: another number when the shape changes
LEASE_SECONDS = 5.0  # longer than any computation takes; as long are others held up if whoever computes dies
POLL_SECONDS = 0.02
PAUSE_SECONDS = 1.0  # how long Valkey is left alone after it failed to answer
SPREAD = 0.2  # what is filled together expires over this share of its time
ABSENT_SHARE = 0.05  # of that time, for what does not exist: it may come into being, and nobody tells
VERSION_SECONDS = 86_400  # a version that is gone costs a computation, no more


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

# Give what is kept; if nothing is, give the lease to compute it, unless somebody has it.
LOOK = """
local kept = redis.call('GET', KEYS[1])
local mine = not kept and redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2])
return {kept, mine and 1 or 0}
"""

# Give the lease back, and keep what was computed; neither if it is no longer held, as after a change or its expiry.
FINISH = """
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[2])
if ARGV[2] then redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end
return 1
"""


class Unavailable(Exception):  # noqa: N818 - what it says of the cache
    """The cache did not answer, or failed a moment ago and is not asked."""


class Cache:
    """Answers kept in Valkey for a while; safe to use from many threads and processes."""

    def __init__(self, settings: Settings) -> None:
        self._client = redis.Redis.from_url(
            settings.redis_url or "redis://",
            socket_timeout=settings.cache_timeout_seconds,
            socket_connect_timeout=settings.cache_timeout_seconds,
            retry=Retry(NoBackoff(), 0),  # said, since the library's own depends on how the client is made
        )
        self._look = self._client.register_script(LOOK)
        self._finish = self._client.register_script(FINISH)
        self._seconds = settings.cache_ttl_seconds
        self._is_there = settings.redis_url is not None
        self._resumes = 0.0

    def _ask(self, command: Callable[[], Any], *, insist: bool = False) -> Any:
        """Ask Valkey, unless it failed a moment ago; that it failed is no reason not to `insist`.

        Raises:
            Unavailable: it was not asked, or did not answer.
        """
        if not self._is_there or (time.monotonic() < self._resumes and not insist):
            raise Unavailable
        try:
            return command()
        except (redis.ConnectionError, redis.TimeoutError) as error:
            self._resumes = max(self._resumes, time.monotonic() + PAUSE_SECONDS)
            log.warning("the cache is left alone for %s s: %s", PAUSE_SECONDS, error)
            raise Unavailable from error
        except redis.RedisError as error:  # it answers, but refuses: out of memory, read-only
            log.warning("the cache refuses: %s", error)
            raise Unavailable from error

    def fetch(self, name: str, shape: TypeAdapter[T], compute: Callable[[], T]) -> T:
        """What is kept under a name, else what is computed; of many who ask at once, one computes."""
        key, token = PREFIX + name, secrets.token_hex(8)
        deadline = time.monotonic() + LEASE_SECONDS
        with suppress(Unavailable):
            while time.monotonic() < deadline:
                kept, mine = self._ask(lambda: self._look([key, _lease(key)], [token, int(1000 * LEASE_SECONDS)]))
                if mine:
                    return self._computed(key, token, shape, compute)
                if kept is None:  # somebody else computes
                    time.sleep(POLL_SECONDS)
                    continue
                try:
                    return shape.validate_json(kept, strict=True)
                except ValidationError:
                    log.warning("what the cache holds under %s is not of its shape", key)
                    self.forget(name)
        return compute()

    def _computed(self, key: str, token: str, shape: TypeAdapter[T], compute: Callable[[], T]) -> T:
        """Compute under a lease, and keep what came of it if the lease still holds then."""
        result: tuple[bytes | int, ...] = ()
        try:
            value = compute()
            result = shape.dump_json(value), self._milliseconds(value)
            return value
        finally:  # an error ends the lease as well, for the next to try
            with suppress(Unavailable):
                self._ask(lambda: self._finish([key, _lease(key)], [token, *result]), insist=True)

    def _milliseconds(self, value: object) -> int:
        share = ABSENT_SHARE if value is None else 1.0
        spread = random.uniform(1 - SPREAD, 1)  # noqa: S311 - nothing to guess
        return max(1, int(1000 * self._seconds * share * spread))

    def version(self, name: str) -> str:
        """The version of all that a name stands for: another one after each `forget`.

        Raises:
            Unavailable: it cannot be told.
        """
        fresh = secrets.token_hex(8)
        life = int(1000 * VERSION_SECONDS)
        known: bytes | None = self._ask(lambda: self._client.set(PREFIX + name, fresh, nx=True, get=True, px=life))
        return known.hex() if known else fresh.encode().hex()

    def forget(self, *names: str) -> None:
        """Forget what is kept under names, and let nobody keep what he is computing for them at this moment."""
        keys = [key for name in names for key in (PREFIX + name, _lease(PREFIX + name))]
        with suppress(Unavailable):  # then it is out of date until it expires
            self._ask(lambda: self._client.delete(*keys))


def _lease(key: str) -> str:
    return f"{key}:lease"


def init_app(app: Flask) -> None:
    """Make the application's cache. It connects when it is first asked."""
    app.extensions["cache"] = Cache(settings_of(app))


def _cache() -> Cache:
    return cast("Cache", current_app.extensions["cache"])


def save_product(session: Session, product: Product) -> None:
    """Commit what was changed about a product. Whoever reads it from then on reads it as it is."""
    name = _page_of(product.public_id)
    session.commit()  # before it is forgotten: else a reader in between would keep what was true until now
    _cache().forget(name, "bestsellers")  # every list: one that it is not in may be one that it comes back to


def product_detail(session: Session, public_id: UUID) -> dict[str, Any] | None:
    """A product as its page shows it, ready for JSON; none if no product has this public id."""
    page = _cache().fetch(_page_of(public_id), PAGE, lambda: _describe(session, public_id))
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
    try:
        version = _cache().version("bestsellers")  # before reading: what a change makes old stays under an old name
    except Unavailable:
        found = _sellers(session, days, limit)
    else:
        name = f"bestsellers:{version}:{days}:{limit}"
        found = _cache().fetch(name, LIST, lambda: _sellers(session, days, limit))
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
