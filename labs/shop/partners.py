"""What partners send and fetch by machine: price lists, and orders by the thousand. Given code, no lab changes it.

How they are written and read is the business of `shop.foundations.serialization`.
"""

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast
from uuid import UUID

from flask import Blueprint, Flask, Response, jsonify, request
from sqlalchemy import select
from sqlalchemy.orm import Bundle, Session
from werkzeug.exceptions import NotAcceptable, UnprocessableEntity

from shop import database
from shop.data import caching
from shop.foundations import serialization, validation
from shop.models import Customer, Order, OrderItem, Product
from shop.price_list import PriceList
from shop.shapes import ExportQuery

blueprint = Blueprint("partners", __name__, url_prefix="/v1")

CUSTOMER: Bundle[Any] = Bundle("customer", Customer.public_id, Customer.name)
PRODUCT: Bundle[Any] = Bundle("product", Product.public_id, Product.sku, Product.name)


def init_app(app: Flask) -> None:
    """Add the partners' routes."""
    app.register_blueprint(blueprint)


@blueprint.get("/exports/orders")
def export_orders() -> Response:
    """The newest orders, in the format that the caller prefers."""
    limit = validation.query(ExportQuery).limit
    accepted = request.accept_mimetypes
    media_type = accepted.best_match(serialization.WRITTEN) if accepted else serialization.WRITTEN[0]
    if media_type is None:
        raise NotAcceptable(f"Orders are written as {', '.join(serialization.WRITTEN)}.")
    written = serialization.write_orders(newest_orders(database.session(), limit), media_type)
    return Response(written, content_type=media_type, headers={"Vary": "Accept"})


@dataclass(frozen=True, slots=True)
class WholeOrder:
    """What is shown of an order: nobody changes it here, so it does without what the ORM spends on changes."""

    public_id: UUID
    status: str
    placed_at: datetime
    total_amount: int
    currency: str
    customer: Any
    items: list[Any]


def newest_orders(session: Session, limit: int) -> list[Order]:
    """Orders as `shop.foundations.serialization.order_json` reads them, the newest first, in two statements."""
    shown = (Order.public_id, Order.status, Order.placed_at, Order.total_amount, Order.currency, CUSTOMER)
    newest = select(Order.id, *shown).join(Order.customer).order_by(Order.placed_at.desc(), Order.id.desc())
    orders = session.execute(newest.limit(limit)).all()
    lines = select(OrderItem.order_id, OrderItem.quantity, OrderItem.unit_price, PRODUCT).join(OrderItem.product)
    items = defaultdict(list)
    for line in session.execute(lines.where(OrderItem.order_id.in_([row.id for row in orders])).order_by(OrderItem.id)):
        items[line.order_id].append(line)
    whole = (
        WholeOrder(
            row.public_id, row.status, row.placed_at, row.total_amount, row.currency, row.customer, items[row.id]
        )
        for row in orders
    )
    return cast("list[Order]", list(whole))


@blueprint.post("/price-lists")
def take_price_list() -> Response:
    """Set the prices of a partner's list, all of them or none, and say how the list was understood."""
    price_list = serialization.read_price_list(request.get_data(), request.mimetype)
    session = database.session()
    for product in set_prices(session, price_list):
        caching.save_product(session, product)
    return jsonify(
        {
            "partner": price_list.partner,
            "reference": price_list.reference,
            "issued_at": serialization.moment(price_list.issued_at),
            "prices": [
                {"sku": price.sku, "price": serialization.money(price.amount, price.currency)}
                for price in price_list.prices
            ],
        }
    )


def set_prices(session: Session, price_list: PriceList) -> list[Product]:
    """Change the products that a list names. The caller commits.

    Raises:
        werkzeug.exceptions.UnprocessableEntity: a product is not there, is listed twice, or has another currency.
    """
    prices = {price.sku: price for price in price_list.prices}
    if len(prices) < len(price_list.prices):
        raise UnprocessableEntity("A product is listed twice.")
    wanted = select(Product).where(Product.sku.in_(prices)).order_by(Product.id).with_for_update()
    products = session.scalars(wanted).all()
    if len(products) < len(prices):
        raise UnprocessableEntity("A product of the list does not exist.")
    for product in products:
        price = prices[product.sku]
        if product.currency != price.currency:
            raise UnprocessableEntity(f"{product.sku} is sold in {product.currency}, not in {price.currency}.")
        product.price_amount = price.amount
        product.version += 1
    return list(products)
