"""Lists, a page at a time: which entries, in what order, from where on.

A page is named by a cursor: where in the list its neighbour ends. The database finds that place in an index, however
deep it is, and it stays where it is when entries are added or taken away before it. Callers who still count (`offset`)
are answered, and get cursors to go on with.

A cursor holds the values that the list is sorted by, as the entry at its end had them, and that entry's public id. It
is signed, together with the list that it belongs to: nobody can make one, change one, or use one in another list.
"""

import hashlib
import hmac
import json
import re
import secrets
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Generic, TypeVar
from uuid import UUID

from flask import Blueprint, Flask, Response, current_app, jsonify, request
from pydantic import AwareDatetime, BeforeValidator, Field
from sqlalchemy import ColumnElement, UnaryExpression, and_, literal, or_, select, tuple_
from sqlalchemy.orm import InstrumentedAttribute, load_only, raiseload
from werkzeug.exceptions import NotFound

from shop import database
from shop.data import n_plus_one
from shop.foundations import validation
from shop.foundations.serialization import moment, money, order_json, product_json
from shop.foundations.validation import Invalid, Strict
from shop.models import Category, Customer, Order, OrderStatus, Product
from shop.settings import settings_of

blueprint = Blueprint("pagination", __name__, url_prefix="/v1")

Json = dict[str, Any]
Entry = TypeVar("Entry", Order, Product)
Columns = Mapping[str, InstrumentedAttribute[Any]]
Word = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^\x00]+$")]  # PostgreSQL's text holds no NUL

NUMBER = re.compile(r"[-+]?\d+(\.\d*)?")


def _no_number(text: object) -> object:
    """Pydantic takes a number for the seconds since 1970: in `placed_after=2026` nobody means 1970."""
    if isinstance(text, str) and NUMBER.fullmatch(text):
        raise ValueError("a time is written as 2026-03-01T09:00:00+01:00")
    return text


Moment = Annotated[AwareDatetime, BeforeValidator(_no_number)]

ORDER_COLUMNS: Columns = {"placed_at": Order.placed_at, "total_amount": Order.total_amount, "status": Order.status}
PRODUCT_COLUMNS: Columns = {"name": Product.name, "price": Product.price_amount, "sku": Product.sku}

# [start:plain]
# What an order shows of its own row. Whoever asks for these alone costs no customer, item or product.
PLAIN: Mapping[str, Callable[[Order], Any]] = {
    "id": lambda order: str(order.public_id),
    "status": lambda order: order.status,
    "placed_at": lambda order: moment(order.placed_at),
    "total": lambda order: money(order.total_amount, order.currency),
}
ITS_OWN_ROW = (
    load_only(Order.public_id, Order.status, Order.placed_at, Order.total_amount, Order.currency),
    raiseload("*"),
)
# [end:plain]
ORDER_FIELDS = (*PLAIN, "customer", "items")
PRODUCT_FIELDS = ("id", "sku", "name", "price", "attributes")

SIGNS = ("-", "+", " ")  # a plus that is not written as %2B means a space
SIGNATURE_BYTES = 16


class PageQuery(Strict):
    """Which part of a list, and what of its entries."""

    limit: Annotated[int, Field(ge=1)] | None = None
    offset: Annotated[int, Field(ge=0, le=1_000_000_000)] | None = None
    cursor: Annotated[str, Field(max_length=2000)] | None = None
    fields: str | None = None


class HistoryQuery(PageQuery):
    """Which of one customer's orders: placed at or after a moment, before a moment, in a status."""

    status: OrderStatus | None = None
    placed_after: Moment | None = None
    placed_before: Moment | None = None
    sort: str = "-placed_at"

    def conditions(self) -> list[ColumnElement[bool]]:
        """What holds for the orders on the page."""
        conditions: list[ColumnElement[bool]] = []
        if self.status is not None:
            conditions.append(Order.status == self.status)
        if self.placed_after is not None:
            conditions.append(Order.placed_at >= self.placed_after)
        if self.placed_before is not None:
            conditions.append(Order.placed_at < self.placed_before)
        return conditions


class OrdersQuery(HistoryQuery):
    """Which of all orders; `customer` is a public id."""

    customer: UUID | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        """What holds for the orders on the page."""
        conditions = super().conditions()
        if self.customer is not None:
            key = select(Customer.id).where(Customer.public_id == self.customer).scalar_subquery()
            conditions.append(Order.customer_id == key)
        return conditions


class ProductsQuery(PageQuery):
    """Which products: of a category, and with these attributes."""

    category: Word | None = None
    colour: Word | None = None
    material: Word | None = None
    size: Word | None = None
    tag: Word | None = None
    sort: str = "name"

    def conditions(self) -> list[ColumnElement[bool]]:
        """What holds for the products on the page; those withdrawn are on none."""
        conditions: list[ColumnElement[bool]] = [Product.withdrawn_at.is_(None)]
        if self.category is not None:
            conditions.append(Product.category.has(Category.name == self.category))
        attributes: dict[str, Any] = self.model_dump(include={"colour", "material", "size"}, exclude_none=True)
        if self.tag is not None:
            attributes["tags"] = [self.tag]
        if attributes:
            conditions.append(Product.attributes.contains(attributes))
        return conditions


# [start:place]
@dataclass(frozen=True)
class Key:
    """Something that a list is sorted by."""

    column: InstrumentedAttribute[Any]
    descending: bool

    def beyond(self, value: ColumnElement[Any]) -> ColumnElement[bool]:
        """What comes later in this order than a value."""
        return self.column < value if self.descending else self.column > value


@dataclass(frozen=True)
class Place:
    """Where a page ends: the values that the list is sorted by, and the public id, of the entry there.

    Attributes:
        backwards: the page wanted is the one before it, not the one after it.
    """

    backwards: bool
    values: tuple[Any, ...]
    public_id: UUID


# [end:place]


@dataclass(frozen=True)
class Sorted(Generic[Entry]):
    """A list of which a page is asked for.

    Attributes:
        model: whose rows they are.
        columns: by what it is sorted, each with its sign.
        name: tells it from every other list, and from itself with other filters or another order.
    """

    model: type[Entry]
    columns: tuple[Key, ...]
    name: str

    @property
    def keys(self) -> tuple[Key, ...]:
        """The columns, and then the row's own key, so that no two entries tie."""
        return (*self.columns, Key(self.model.id, self.columns[-1].descending))

    # [start:beyond]
    def beyond(self, place: Place) -> ColumnElement[bool]:
        """What comes after a place; before it, if that is what the place is for."""
        keys = [Key(key.column, key.descending != place.backwards) for key in self.keys]
        there: list[ColumnElement[Any]] = [
            literal(value, key.column.type) for key, value in zip(keys, place.values, strict=False)
        ]
        # The row's own key never leaves the shop, so it is looked up. No entry is ever deleted.
        there.append(select(self.model.id).where(self.model.public_id == place.public_id).scalar_subquery())
        if len({key.descending for key in keys}) == 1:
            # One comparison of rows, which is one range of an index that is sorted in this order.
            row = tuple_(*(key.column for key in keys))
            return row < tuple_(*there) if keys[0].descending else row > tuple_(*there)
        # With mixed directions: like the place up to one key, and beyond it in that one.
        cases = [key.beyond(value) for key, value in zip(keys, there, strict=True)]
        for number in reversed(range(len(keys) - 1)):
            cases[number] = or_(cases[number], and_(keys[number].column == there[number], cases[number + 1]))
        return cases[0]

    def ordering(self, *, backwards: bool) -> list[UnaryExpression[Any]]:
        """The order of the list, or the reverse, to read from a place towards the beginning."""
        return [key.column.desc() if key.descending != backwards else key.column.asc() for key in self.keys]

    # [end:beyond]

    # [start:sign]
    def seal(self, entry: Entry, *, backwards: bool) -> str:
        """The cursor for the page after an entry, or before it."""
        here: list[Any] = [getattr(entry, key.column.key) for key in self.columns]
        said = json.dumps([backwards, str(entry.public_id), *here], default=datetime.isoformat).encode()
        return _text(self._signature(said) + said)

    def open(self, cursor: str) -> Place:
        """What a cursor says.

        Raises:
            Invalid: it is none, or not one of this list.
        """
        try:
            sealed = b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True)
        except ValueError:
            sealed = b""
        signature, said = sealed[:SIGNATURE_BYTES], sealed[SIGNATURE_BYTES:]
        if not hmac.compare_digest(signature, self._signature(said)):
            problem = "It is not a cursor of this list with these filters in this order: begin without one."
            raise Invalid([{"field": "cursor", "detail": problem}])
        backwards, public_id, *there = json.loads(said)  # our own words, so they are what `seal` wrote
        for number, key in enumerate(self.columns):
            if key.column.type.python_type is datetime:
                there[number] = datetime.fromisoformat(there[number])
        return Place(backwards, tuple(there), UUID(public_id))

    def _signature(self, said: bytes) -> bytes:
        key: bytes = current_app.extensions["cursor_key"]
        name = hashlib.sha256(self.name.encode()).digest()  # of one length, so that no other split reads the same
        return hmac.digest(key, name + said, "sha256")[:SIGNATURE_BYTES]

    # [end:sign]


def _text(sealed: bytes) -> str:
    return urlsafe_b64encode(sealed).rstrip(b"=").decode()


def init_app(app: Flask) -> None:
    """Add the routes of lists, and find the key that cursors are signed with."""
    given = settings_of(app).cursor_key
    app.extensions["cursor_key"] = given.get_secret_value().encode() if given else secrets.token_bytes(32)
    app.register_blueprint(blueprint)


@blueprint.get("/products")
def products() -> Response:
    """The products for sale."""
    query = validation.query(ProductsQuery)
    fields = _fields(query.fields, PRODUCT_FIELDS)

    def read(
        where: Sequence[ColumnElement[bool]], order_by: Sequence[UnaryExpression[Any]], limit: int, offset: int
    ) -> Iterable[Product]:
        statement = select(Product).where(*where).order_by(*order_by).limit(limit).offset(offset)
        return database.session().scalars(statement)

    def show(product: Product) -> Json:
        shown = product_json(product)
        return {name: shown[name] for name in fields or shown}

    return _page(query, _sorted(query, Product, PRODUCT_COLUMNS), query.conditions(), read, show)


@blueprint.get("/orders")
def orders() -> Response:
    """All orders, the newest first unless asked otherwise."""
    query = validation.query(OrdersQuery)
    return _orders(query, query.conditions())


@blueprint.get("/customers/<uuid:public_id>/orders")
def customer_orders(public_id: UUID) -> Response:
    """A customer's history."""
    query = validation.query(HistoryQuery)
    customer_id = database.session().scalar(select(Customer.id).where(Customer.public_id == public_id))
    if customer_id is None:
        raise NotFound("There is no such customer.")
    return _orders(query, [Order.customer_id == customer_id, *query.conditions()])


def _orders(query: HistoryQuery, conditions: list[ColumnElement[bool]]) -> Response:
    fields = _fields(query.fields, ORDER_FIELDS)
    plain = fields is not None and PLAIN.keys() >= set(fields)

    def read(
        where: Sequence[ColumnElement[bool]], order_by: Sequence[UnaryExpression[Any]], limit: int, offset: int
    ) -> Iterable[Order]:
        if not plain:
            return n_plus_one.orders_page(
                database.session(), where=where, order_by=order_by, limit=limit, offset=offset
            )
        statement = select(Order).where(*where).order_by(*order_by).limit(limit).offset(offset)
        return database.session().scalars(statement.options(*ITS_OWN_ROW))

    def show(order: Order) -> Json:
        if plain:
            return {name: PLAIN[name](order) for name in fields or ()}
        shown = order_json(order)
        return {name: shown[name] for name in fields or shown}

    return _page(query, _sorted(query, Order, ORDER_COLUMNS), conditions, read, show)


# [start:page]
def _page(
    query: PageQuery,
    listed: Sorted[Entry],
    conditions: Sequence[ColumnElement[bool]],
    read: Callable[[Sequence[ColumnElement[bool]], Sequence[UnaryExpression[Any]], int, int], Iterable[Entry]],
    show: Callable[[Entry], Json],
) -> Response:
    limit = _limit(query)
    if query.cursor is not None and query.offset is not None:
        raise Invalid([{"field": "offset", "detail": "A cursor says where the page begins: give one or the other."}])
    place = None if query.cursor is None else listed.open(query.cursor)
    backwards = place is not None and place.backwards
    where = conditions if place is None else [*conditions, listed.beyond(place)]
    offset = query.offset or 0

    # One more than is shown: whether it is there tells whether anything comes after the page.
    found = list(read(where, listed.ordering(backwards=backwards), limit + 1, offset))
    more, entries = len(found) > limit, found[:limit]
    if backwards:
        entries.reverse()

    before, after = (more, True) if backwards else (place is not None or offset > 0, more)
    meta: Json = {"limit": limit, "count": len(entries)}
    if place is None:
        meta["offset"] = offset
    meta["prev"] = listed.seal(entries[0], backwards=True) if entries and before else None
    meta["next"] = listed.seal(entries[-1], backwards=False) if entries and after else None
    return jsonify({"data": [show(entry) for entry in entries], "meta": meta})


# [end:page]


def _limit(query: PageQuery) -> int:
    settings = settings_of(current_app)
    limit = query.limit or settings.page_limit_default
    if limit > settings.page_limit_max:
        raise Invalid([{"field": "limit", "detail": f"A page has at most {settings.page_limit_max} entries."}])
    return limit


# [start:sort]
def _sorted(query: HistoryQuery | ProductsQuery, model: type[Entry], columns: Columns) -> Sorted[Entry]:
    """The list in the order of `sort=-placed_at,+status`, where a plus may be left out."""
    signed = [(word[:1], word[1:]) if word[:1] in SIGNS else ("+", word) for word in query.sort.split(",")]
    unknown = [name for _, name in signed if name not in columns]
    if unknown:
        allowed = ", ".join(columns)
        raise Invalid([{"field": "sort", "detail": f"{', '.join(unknown)!r} is none of {allowed}."}])
    keys = tuple(Key(columns[name], sign == "-") for sign, name in signed)
    filters = query.model_dump(mode="json", exclude={"limit", "offset", "cursor", "fields", "sort"})
    order = [(key.column.key, key.descending) for key in keys]
    return Sorted(model, keys, json.dumps([request.path, filters, order]))


# [end:sort]


# [start:fields]
def _fields(asked: str | None, known: Sequence[str]) -> list[str] | None:
    """The names in `fields=id,total`; None for all."""
    if asked is None:
        return None
    names = asked.split(",")
    unknown = [name for name in names if name not in known]
    if unknown:
        raise Invalid([{"field": "fields", "detail": f"{', '.join(unknown)!r} is none of {', '.join(known)}."}])
    return names


# [end:fields]
