"""Lists, a page at a time: which entries, in what order, from where on.

The page is named by how many entries come before it (`offset`), which the database must read to pass over.
"""

from collections.abc import Mapping
from typing import Annotated, Any
from uuid import UUID

from flask import Blueprint, Flask, Response, current_app, jsonify
from pydantic import AwareDatetime, Field
from sqlalchemy import ColumnElement, UnaryExpression, select
from sqlalchemy.orm import InstrumentedAttribute
from werkzeug.exceptions import NotFound

from shop import database
from shop.data import n_plus_one
from shop.foundations import validation
from shop.foundations.serialization import order_json, page_json, product_json
from shop.foundations.validation import Invalid, Strict
from shop.models import Category, Customer, Order, OrderStatus, Product
from shop.settings import settings_of

blueprint = Blueprint("pagination", __name__, url_prefix="/v1")

Columns = Mapping[str, InstrumentedAttribute[Any]]
Word = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^\x00]+$")]  # PostgreSQL's text holds no NUL

ORDER_COLUMNS: Columns = {"placed_at": Order.placed_at, "total_amount": Order.total_amount, "status": Order.status}
PRODUCT_COLUMNS: Columns = {"name": Product.name, "price": Product.price_amount, "sku": Product.sku}


class PageQuery(Strict):
    """Which part of a list."""

    limit: Annotated[int, Field(ge=1)] | None = None
    offset: Annotated[int, Field(ge=0, le=1_000_000_000)] = 0


class HistoryQuery(PageQuery):
    """Which of one customer's orders: placed at or after a moment, before a moment, in a status."""

    status: OrderStatus | None = None
    placed_after: AwareDatetime | None = None
    placed_before: AwareDatetime | None = None
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


def init_app(app: Flask) -> None:
    """Add the routes of lists."""
    app.register_blueprint(blueprint)


@blueprint.get("/products")
def products() -> Response:
    """The products for sale."""
    query = validation.query(ProductsQuery)
    limit = _limit(query)
    statement = (
        select(Product)
        .where(*query.conditions())
        .order_by(*_ordering(query.sort, PRODUCT_COLUMNS, Product.id))
        .limit(limit)
        .offset(query.offset)
    )
    found = database.session().scalars(statement)
    return jsonify(page_json([product_json(product) for product in found], limit, query.offset))


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
    limit = _limit(query)
    page = n_plus_one.orders_page(
        database.session(),
        where=conditions,
        order_by=_ordering(query.sort, ORDER_COLUMNS, Order.id),
        limit=limit,
        offset=query.offset,
    )
    return jsonify(page_json([order_json(order) for order in page], limit, query.offset))


def _limit(query: PageQuery) -> int:
    settings = settings_of(current_app)
    limit = query.limit or settings.page_limit_default
    if limit > settings.page_limit_max:
        raise Invalid([{"field": "limit", "detail": f"A page has at most {settings.page_limit_max} entries."}])
    return limit


def _ordering(sort: str, columns: Columns, key: InstrumentedAttribute[int]) -> list[UnaryExpression[Any]]:
    """The expressions for `sort=-placed_at,status`; the key comes last, so that no two entries tie."""
    names = sort.split(",")
    unknown = [name for name in names if name.removeprefix("-") not in columns]
    if unknown:
        allowed = ", ".join(columns)
        raise Invalid([{"field": "sort", "detail": f"{', '.join(unknown)!r} is none of {allowed}, nor one after a -."}])
    keys = [(columns[name.removeprefix("-")], name.startswith("-")) for name in names]
    keys.append((key, keys[-1][1]))
    return [column.desc() if descending else column.asc() for column, descending in keys]
